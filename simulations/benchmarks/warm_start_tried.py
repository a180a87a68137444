"""What was tried for the rounds of a warm start, on a seed that is not measured.

A setting is judged by what new clients of that seed get from the base model with a head of
their own, or from its names, and so without prior, plan and certificates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from fedcert.search import BatchedScorer
from fedcert.search.learning import local_head
from fedcert.simulations.benchmarks.federations import attempted, remembered
from fedcert.simulations.benchmarks.publishing import say
from fedcert.simulations.benchmarks.warm_start_site import WarmCell, WarmSite

__all__ = ["SEED", "TRIED", "tried_rows", "untried"]

SEED = 7
# Raise it when a row gives something else for the same settings.
_VERSION = 1
_LABELS, _NEW = 32, 16
_RATES = (3e-3, 1e-2, 3e-2, 1e-1)
_SHORT = {"rounds": 10}

Setting = tuple[str, dict[str, Any]]

TRIED: Mapping[str, Sequence[Setting]] = {
    "named-intents, mixed": (
        ("none", {}),
        ("standard", {"learning_rate": 3e-3}),
        ("standard", {}),
        ("standard", {"learning_rate": 3e-2}),
        ("standard", {"learning_rate": 3e-2, "held_out": 0.5}),
        ("central", {}),
    ),
    "digits": (
        ("none", {}),
        *(("standard", {**_SHORT, "learning_rate": rate}) for rate in _RATES),
        ("standard", {**_SHORT, "learning_rate": 1e-2, "momentum": 0.9}),
        ("standard", {}),
        ("central", {}),
    ),
    "intents": (
        ("none", {}),
        ("standard", {**_SHORT, "learning_rate": 1e-2, "held_out": 0.0}),
        ("standard", {**_SHORT, "learning_rate": 1e-2}),
        ("standard", _SHORT),
        ("standard", {"rounds": 20}),
        ("standard", {}),
        ("central", {"rounds": 20}),
    ),
}
"""By cell, ways to warm up and how they differ from the settings that the cell has now."""


def tried_rows(cells: Sequence[WarmCell]) -> Iterator[dict[str, Any]]:
    """Yield a row for each setting of `TRIED`, of the cells that are given.

    Parameters
    ----------
    cells : sequence of WarmCell
        What is measured.

    Yields
    ------
    dict
        ``scenario``, ``warm_start``, ``settings`` in full, ``chosen``, and mean ``errors`` of
        new clients, with the base model's ``names`` or with a ``head`` on 32 examples.
    """
    for cell in cells:
        for method, differs in TRIED.get(cell.name, ()):
            say(f"{cell.name}, seed {SEED}, {method} {differs}: ", end="")
            compute = partial(_row, cell, method, differs)
            row = attempted(compute, missing={}, name=cell.name)
            if row is not None:
                yield row


def _row(cell: WarmCell, method: str, differs: Mapping[str, Any]) -> dict[str, Any]:
    # Nobody plans, and so nobody is set apart to plan.
    alike = replace(cell, warm={**cell.warm, **differs}, strangers=False)
    site = WarmSite(alike, SEED, method)
    return {
        "scenario": cell.name,
        "warm_start": method,
        "settings": site.warm.model_dump() if site.warm.rounds else {},
        "chosen": method == "standard" and not differs,
        "errors": remembered("warm-start-tried", _identity(site), partial(_errors, site)),
    }


def untried(cells: Sequence[WarmCell], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the scenarios of which less was tried than `TRIED` says, and how much less."""
    missing = {
        cell.name: len(TRIED.get(cell.name, ())) - sum(r["scenario"] == cell.name for r in rows)
        for cell in cells
    }
    return [f"{count} settings of `{name}`" for name, count in missing.items() if count]


def _identity(site: WarmSite) -> dict[str, Any]:
    about = {"version": _VERSION, "labels": _LABELS, "new": _NEW, "method": site.method}
    return about | site.identity_of_rounds


def _errors(site: WarmSite) -> dict[str, float]:
    """Return mean errors of new clients without an adapter, by what they use of the base."""
    found: dict[str, list[float]] = {"names": [], "head": []}
    if site.warm.rounds:
        _ = site.progress  # before anything of the clients is loaded
    for name in site.scenario.new_clients[:_NEW]:
        scorer = BatchedScorer(site.model(name), margin_tolerance=0.0)
        tests = site.scenario.test_examples(name)
        assert tests is not None
        labeled = site.scenario.support_examples(name, max(site.cell.sizes))
        adapters = {"head": local_head(scorer, labeled.take(slice(0, _LABELS)))}
        if site.base.takes_labels:
            adapters["names"] = np.zeros(site.space.dimension)
        for key, adapter in adapters.items():
            wrong = scorer.score(adapter[None], tests).wrong.mean()
            found[key].append(float(wrong))
        say(".", end="")
    return {key: float(np.mean(values)) for key, values in found.items() if values}
