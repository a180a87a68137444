"""Trouble with real processes: SuperLink and SuperNodes, TLS on, killed without warning."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.fault import NOTHING, Fault, Outcome
from faults.node_rig import NodeRig
from fedcert.deployment import Deployment
from fedcert.errors import RunError

__all__ = ["DEPLOYED_NODE_FAULTS"]

# Enough for a busy core; a round with a killed node takes two heartbeats, a minute.
_LONGEST_RUN = 400.0
_LONGEST_WAIT = 200.0
_TRAINING_STEPS = 4000

_GIVEN_UP = Outcome(
    "its training is given up when its heartbeat stops, and the others are served; restarted, "
    "it trains in the next run"
)
_WENT_ON = Outcome(
    "the run is listed as failed; the next one goes on with the pool, asks nobody for an "
    "adapter twice, and certifies"
)


def killed_supernode(folder: Path) -> Outcome:
    """Kill one of two upstream nodes, and all that it started, while it trains; revive it."""
    rig = NodeRig.make(folder, upstream=2, new=1)
    rig.config["training.steps"] = _TRAINING_STEPS
    with Deployment(folder / "deployment", rig.nodes) as deployment:
        submission = deployment.submit(rig.config)
        ledger = deployment.folder / "nodes" / "up-0" / "state" / "spent.sqlite"
        # Examples are marked as spent just before training begins.
        _wait_for(ledger.is_file, "up-0 to begin")
        time.sleep(1.0)
        deployment.kill("up-0")
        deployment.revive("up-0")
        first = submission.wait(_LONGEST_RUN)
        happened = _events(rig, first.run_id)
        second = deployment.submit(rig.config).wait(_LONGEST_RUN)
        afterwards = _events(rig, second.run_id)
    if (
        first.completed
        and _clients(happened, "upload-accepted") == {"up-1"}
        and _clients(happened, "certificate-filed") == {"new-0"}
        and second.completed
        and _clients(afterwards, "upload-accepted") == {"up-0"}
    ):
        return _GIVEN_UP
    return Outcome(f"{first.status}, {second.status}: {_kinds(happened, afterwards)}")


def killed_superlink(folder: Path) -> Outcome:
    """Kill the SuperLink, server app and all, after the first upload, and start it again."""
    rig = NodeRig.make(folder, upstream=2, new=1)
    with Deployment(folder / "deployment", rig.nodes) as deployment:
        submission = deployment.submit(rig.config)
        _wait_for(
            lambda: bool(_clients(_events(rig), "upload-accepted")), "the first upload to come"
        )
        deployment.kill("superlink")
        accepted = _clients(_events(rig), "upload-accepted")
        deployment.kill(submission.service.name)
        deployment.start_superlink()
        second = deployment.submit(rig.config).wait(_LONGEST_RUN)
        # Flower notices when the server app's heartbeat has run out, a minute or so later.
        _wait_for(
            lambda: submission.finished().status.startswith("finished"),
            "the first run to be listed as finished",
        )
        first = submission.finished()
        afterwards = _events(rig, second.run_id)
        logs = {name: deployment.folder / "logs" / f"{name}.log" for name in accepted}
        asked = {
            name: log.read_text().count("Receiving: train.adapter")
            for name, log in logs.items()
        }
    lost = sorted(client for client, times in asked.items() if times != 1)
    if (
        first.status == "finished:failed"
        and second.completed
        and _clients(afterwards, "upload-accepted") == {"up-0", "up-1"} - accepted
        and _clients(afterwards, "certificate-filed") == {"new-0"}
    ):
        return Outcome(_WENT_ON.outcome, ", ".join(lost) or NOTHING)
    return Outcome(f"{first.status}, {second.status}: {_kinds(afterwards)}")


def _events(rig: NodeRig, run: str | None = None) -> list[dict[str, Any]]:
    """Return the server's events, of one run if it is named."""
    path = rig.run / "events.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
    # The last line may be on its way.
    events = [json.loads(line) for line in lines[:-1]]
    return [event for event in events if run in (None, event["run"])]


def _clients(events: list[dict[str, Any]], kind: str) -> set[str]:
    return {str(event["client"]) for event in events if event["kind"] == kind}


def _kinds(*runs: list[dict[str, Any]]) -> str:
    return "; then ".join(
        ", ".join(f"{e['kind']} {e.get('client', e.get('cause', ''))}" for e in events)
        for events in runs
    )


def _wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _LONGEST_WAIT
    while not condition():
        if time.monotonic() > deadline:
            raise RunError(f"waited {_LONGEST_WAIT:g} s for {what}")
        time.sleep(0.05)


DEPLOYED_NODE_FAULTS = (
    Fault("a SuperNode is killed while it trains", _GIVEN_UP, killed_supernode),
    Fault("the SuperLink is killed in the middle of a run", _WENT_ON, killed_superlink),
)
"""Faults that take real processes, and minutes."""
