"""An upstream client's part in a method that averages something: one update a round."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from flwr.app import Message, MetricRecord, RecordDict
from safetensors.numpy import load_file, save

from fedcert.adapters import AdapterSpace
from fedcert.atomic import write_atomically
from fedcert.canonical import digest_json
from fedcert.clients.node import Node
from fedcert.errors import ProtocolError
from fedcert.messages import METRICS, REPLY, UPSTREAM, AverageRequest
from fedcert.messages.flower import arrays_of, content, payload_of
from fedcert.methods import State, averaging_method
from fedcert.methods.federated import round_seed
from fedcert.named_arrays import under
from fedcert.protocol.uses import TRAINING

__all__ = ["average"]


def average(message: Message, node: Node) -> RecordDict:
    """Make an update of the server's state; what is personal stays on this client's disk."""
    if node.role != UPSTREAM:
        raise ProtocolError(f"{node.client} is no {UPSTREAM} client")
    request = AverageRequest.from_object(payload_of(message.content))
    arrays = arrays_of(message.content)
    space = AdapterSpace.from_config(request.space, under("basis.", arrays))
    # First: what is refused must not cost an example.
    method, number, state = (
        averaging_method(request.method),
        request.round,
        under("state.", arrays),
    )
    examples, started = node.training_examples(), time.perf_counter()
    # Before anything can depend on them: an upload spends its examples for good.
    node.state().spent.mark(examples, f"{TRAINING} by the method {method.kind}")
    kept = _Kept(node.folder / "averaging" / digest_json(request.identity())[:16])
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
    """What a client keeps from round to round, so that a fresh process can go on with it.

    A file for each of the last two rounds: a server that died asks for its last round again,
    and what went into that is what was kept before it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def before(self, number: int) -> State:
        """Return what was kept of the last round before this one; nothing if there is none."""
        earlier = [known for known in self._rounds() if known < number]
        return dict(load_file(self._file(max(earlier)))) if earlier else {}

    def keep(self, own: State, number: int) -> None:
        """Keep what is personal; nothing is written if nothing is."""
        if not own:
            return
        tensors = {name: np.ascontiguousarray(array) for name, array in own.items()}
        write_atomically(self._file(number), save(tensors))
        earlier = [known for known in self._rounds() if known < number]
        for known in {*self._rounds()} - {number, *earlier[-1:]}:
            self._file(known).unlink()

    def _rounds(self) -> list[int]:
        return sorted(int(path.stem) for path in self._folder.glob("*.safetensors"))

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:06d}.safetensors"
