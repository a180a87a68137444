"""Trouble with nodes that shows in one process; see `deployed_nodes` for what does not."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from flwr.app import Context, Message

from faults.device_rig import LABELS, make_base
from faults.fault import Fault, Outcome
from faults.node_rig import Answer, NodeRig
from fedcert.clients import node as node_module
from fedcert.messages import PROTOCOL_VERSION, TRAIN
from fedcert.models import load_base_model, with_task_head
from fedcert.pool import Pool
from fedcert.simulations.runners.flower_internals import LocalGrid
from fedcert.strategies.prior_strategy import PriorStrategy

__all__ = ["NODE_FAULTS", "took_part"]

# The others take far less; waiting costs no computing.
_ROUND_SECONDS = 8.0

_REFUSED = Outcome(
    "both are refused, as having another base model, and the others are served; with "
    "the right one they take part in the next run"
)
_TURNED_AWAY = Outcome(
    "turned away when it says hello, with both versions in the cause; the others are served"
)
_NOT_WAITED_FOR = Outcome(
    "not waited for beyond the round's time, and the others are served; its adapter "
    "joins the pool in the next run"
)


def another_base_model(folder: Path) -> Outcome:
    """Let an upstream and a new node have other weights, and then the right ones."""
    rig = NodeRig.make(folder, upstream=2, new=2)
    make_base(folder / "other-backbone", seed=1)
    other = with_task_head(folder / "other-backbone", LABELS, folder / "other-base")
    first = rig.serve_here(bases={"up-0": other, "new-0": other})
    causes = {failure.client: failure.cause for failure in first.failures}
    refused = causes.keys() == {"up-0", "new-0"} and all(
        "another base model" in cause for cause in causes.values()
    )
    served = took_part(rig, first) == {"up-1", "new-1"}
    again = took_part(rig, rig.serve_here())
    if refused and served and again == {"up-0", "up-1", "new-0", "new-1"}:
        return _REFUSED
    return Outcome(f"failures {causes}, served {served}, in the next run {sorted(again)}")


def another_version(folder: Path) -> Outcome:
    """Let one node speak another version of the protocol."""

    def newer(honest: Answer) -> Answer:
        def answer(message: Message, context: Context) -> Message:
            with patch.object(node_module, "PROTOCOL_VERSION", PROTOCOL_VERSION + 1):
                return honest(message, context)

        return answer

    rig = NodeRig.make(folder, upstream=2, new=1)
    done = rig.serve_here(special={"up-0": newer})
    causes = [(failure.phase, failure.cause) for failure in done.failures]
    versions = f"it speaks protocol {PROTOCOL_VERSION + 1} "
    if (
        [phase for phase, _ in causes] == ["hello"]
        and causes[0][1].startswith(versions)
        and took_part(rig, done) == {"up-1", "new-0"}
    ):
        return _TURNED_AWAY
    return Outcome(f"failures {causes}, took part: {sorted(took_part(rig, done))}")


class _SlowGrid(LocalGrid):
    """The first node's adapter takes longer than the server waits."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._slow: dict[str, float] = {}

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        now = time.monotonic()
        ready = [i for i in message_ids if self._ready_at(i, now) <= now]
        return super().pull_messages(ready)

    def _ready_at(self, message_id: str, now: float) -> float:
        message = self._waiting.get(message_id)
        first = next(iter(self._contexts))
        if (
            message is None
            or message.metadata.message_type != TRAIN
            or message.metadata.dst_node_id != first
        ):
            return now
        return self._slow.setdefault(message_id, now + 2 * _ROUND_SECONDS)


def slow_node(folder: Path) -> Outcome:
    """Let a node train for twice as long as a round may take."""
    rig = NodeRig.make(folder, upstream=2, new=1, server__timeout=_ROUND_SECONDS)
    done = rig.serve_here(make_grid=_SlowGrid)
    causes = {failure.client: failure.cause for failure in done.failures}
    first = took_part(rig, done)
    again = took_part(rig, rig.serve_here())
    if (
        causes == {"up-0": "no answer in time"}
        and first == {"up-1", "new-0"}
        and "up-0" in again
    ):
        return _NOT_WAITED_FOR
    return Outcome(f"failures {causes}, took part: {sorted(first)}, then {sorted(again)}")


def took_part(rig: NodeRig, strategy: PriorStrategy) -> set[str]:
    """Return the nodes whose adapters are in the pool, or who were certified in a run."""
    base = load_base_model(str(rig.folder / "base-model"), num_labels=len(LABELS))
    pool = Pool(rig.run / "pool", rig.settings.space_of(base))
    return {node.client for node in rig.nodes if node.client in pool} | {*strategy.certificates}


NODE_FAULTS = (
    Fault(
        "an upstream and a new node have another base model",
        _REFUSED,
        another_base_model,
    ),
    Fault(
        "a node has a fedcert of another protocol version",
        _TURNED_AWAY,
        another_version,
    ),
    Fault(
        "a node trains for longer than a round may take",
        _NOT_WAITED_FOR,
        slow_node,
    ),
)
"""Faults that a single process shows."""
