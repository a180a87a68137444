"""What docs/launched.md says of the costs of a federation: time, and bytes at the server."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedcert.strategies.averaging import AveragingSource
from fedcert.strategies.federated_prior import FederatedSource
from fedcert.strategies.phases import SHOWN, Phase
from fedcert.strategies.sources import NothingSource

__all__ = ["costs"]

# What a federation's computing time goes to before new clients come; what else a run does
# serves to measure. Where clients and server work in turns, both are in the phase.
_TIMED = {
    "learn": (
        SHOWN[Phase.TRAIN],
        *(source.shown for source in (AveragingSource, FederatedSource, NothingSource)),
    ),
    "fit": (SHOWN[Phase.FIT],),
    "plan": (SHOWN[Phase.PLAN],),
}


def costs(methods: list[list[dict[str, Any]]], upstream: int | None) -> list[str]:
    """Return what the federation computes, and what its server receives and sends.

    Parameters
    ----------
    methods : list of list of dict
        Each method's rows of the record, a row per seed.
    upstream : int, optional
        How many upstream clients there are, if the benchmark's settings say it.

    Returns
    -------
    list of str
        Lines of Markdown.
    """
    return [
        "What the server receives from all upstream clients and sends to all new ones, in KiB; "
        "and what is computed before new clients come, in seconds of one core: all upstream "
        "clients together (*learn*), the server's prior (*fit*), and clients that plan "
        "(*plan*). Seconds are means over the seeds that are named; older runs kept none. "
        "Other runs shared the machine.",
        "",
        f"| method | server receives | server sends | seeds timed | {' | '.join(_TIMED)} |",
        f"|---|---|---|---|{'---|' * len(_TIMED)}",
        *(
            f"| {own[0]['method']} | {' | '.join([*_bytes(own, upstream), *_seconds(own)])} |"
            for own in methods
        ),
        "",
    ]


def _bytes(own: list[dict[str, Any]], upstream: int | None) -> list[str]:
    up, down = (float(np.mean([row[key] for row in own])) for key in ("up_bytes", "down_bytes"))
    received = "-" if upstream is None else f"{upstream * up / 1024:,.0f}"
    return [received, f"{own[0]['clients'] * down / 1024:,.0f}"]


def _seconds(own: list[dict[str, Any]]) -> list[str]:
    timed = [row for row in own if "phases" in row]
    if not timed:
        return ["-"] * (1 + len(_TIMED))
    spent = [
        np.mean([sum(row["phases"].get(name, 0.0) for name in names) for row in timed])
        for names in _TIMED.values()
    ]
    seeds = ", ".join(str(seed) for seed in sorted(row["seed"] for row in timed))
    return [seeds, *(f"{seconds:.0f}" for seconds in spent)]
