"""An upstream client's part in a method that averages something: one update a round."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from flwr.app import Message, MetricRecord, RecordDict
from safetensors import safe_open
from safetensors.numpy import save

from fedcert.adapters import AdapterSpace
from fedcert.atomic import write_atomically
from fedcert.canonical import digest_json
from fedcert.clients.node import Node
from fedcert.errors import ProtocolError
from fedcert.messages import METRICS, REPLY, UPSTREAM, AverageRequest
from fedcert.messages.flower import arrays_of, content, payload_of
from fedcert.methods import State, averaging_method
from fedcert.methods.federated import round_seed

__all__ = ["average"]


def average(message: Message, node: Node) -> RecordDict:
    """Make an update of the server's state; what is personal stays on this client's disk."""
    if node.role != UPSTREAM:
        raise ProtocolError(f"{node.client} is no {UPSTREAM} client")
    request = AverageRequest.from_object(payload_of(message.content))
    arrays = arrays_of(message.content)
    space = AdapterSpace.from_config(request.space, _part(arrays, "basis."))
    # First: what is refused must not cost an example.
    method, number, state = (
        averaging_method(request.method),
        request.round,
        _part(arrays, "state."),
    )
    examples, started = node.training_examples(), time.perf_counter()
    # Before anything can depend on them: an upload spends its examples for good.
    node.state().spent.mark(examples, f"training by the method {method.kind}")
    kept = _Kept(node.folder / "averaging" / f"{digest_json(request.identity())}.safetensors")
    update = method.local(
        state,
        node.model_of(node.task(space)),
        examples,
        number=number,
        seed=round_seed(request.seed, number, node.client),
        own=kept.before(number),
    )
    kept.keep(update.own, number)
    reply = content({}, dict(update.tensors), key=REPLY)
    reply[METRICS] = MetricRecord(
        {
            **update.measured,
            "num-examples": update.weight,
            "seconds": time.perf_counter() - started,
        }
    )
    return reply


class _Kept:
    """What a client keeps from round to round, so that a fresh process can go on with it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def before(self, number: int) -> State:
        """Return what was kept of an earlier round; nothing, of this one or a later one.

        A run that begins again goes through its rounds again, and each gives the same.
        """
        if not self._path.is_file():
            return {}
        with safe_open(self._path, framework="numpy") as file:
            if int((file.metadata() or {}).get("round", number)) >= number:
                return {}
            return {name: np.array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118

    def keep(self, own: State, number: int) -> None:
        """Keep what is personal; nothing is written if nothing is."""
        if own:
            tensors = {name: np.ascontiguousarray(array) for name, array in own.items()}
            write_atomically(self._path, save(tensors, metadata={"round": str(number)}))


def _part(arrays: State, prefix: str) -> State:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
