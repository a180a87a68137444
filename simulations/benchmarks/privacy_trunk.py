"""What noise costs a base model that clients warm up together, by epsilon.

New clients tell how good it is by what a head certifies that they train on it with half of
their examples. Neither prior nor plan is in that, so that a base model takes minutes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from fedcert.certificates import PosteriorSplitRecipe
from fedcert.certificates.attempts import FIRST_SHARE
from fedcert.search import BatchedScorer
from fedcert.search.learning import local_head
from fedcert.simulations.benchmarks.federations import remembered
from fedcert.simulations.benchmarks.named_site import DELTA
from fedcert.simulations.benchmarks.publishing import say
from fedcert.simulations.benchmarks.warm_start_site import CELLS, WarmCell, WarmSite

__all__ = ["measured_trunks"]

EPSILONS = (8.0, 2.0)
# Raise it when a row gives something else for the same settings.
_VERSION = 1
_CELL = next(cell for cell in CELLS if "private" in cell.methods)


def measured_trunks(
    *, seeds: Sequence[int], new: int, cell: WarmCell = _CELL
) -> dict[str, Any]:
    """Return what is measured of private base models.

    Parameters
    ----------
    seeds : sequence of int
        Of the federations.
    new : int
        New clients of each.
    cell : WarmCell
        Scenario, and the rounds; that of ``make bench-warm-start`` by default.

    Returns
    -------
    dict
        A JSON object: settings, and under ``table`` a row for each seed and base model.
    """
    cell = replace(cell, new=new)
    return {
        "scenario": cell.name,
        "clients": cell.trunk,
        "new": new,
        "n": max(cell.sizes),
        "delta": DELTA,
        "seeds": list(seeds),
        "table": [_row(site, about) for seed in seeds for site, about in _sites(cell, seed)],
    }


def _sites(cell: WarmCell, seed: int) -> Iterator[tuple[WarmSite, dict[str, Any]]]:
    """Yield each base model, and what a row says of it."""
    yield WarmSite(cell, seed, "none"), {"base": "as it was"}
    # As private ones, but for clip, noise, and the server's rate.
    yield WarmSite(cell, seed, "meta"), {"base": "warmed up"}
    for epsilon in EPSILONS:
        site = WarmSite(cell, seed, "private", epsilon=epsilon)
        assert site.privacy is not None
        noise = site.privacy.noise_deviation
        promise = {"epsilon": epsilon, "delta_p": site.privacy.delta, "clip": site.privacy.clip}
        yield site, {"base": "with noise", **promise, "noise_deviation": noise}


def _row(site: WarmSite, about: dict[str, Any]) -> dict[str, Any]:
    say(f"trunk, seed {site.seed}, {about['base']} {about.get('epsilon', '')}: ", end="")
    scenario = site.settings.scenario.model_dump()
    rounds = site.identity_of_rounds if site.warm.rounds else scenario
    identity = {"version": _VERSION, "new": site.cell.new, "rounds": rounds}
    identity["n"] = max(site.cell.sizes)
    found = remembered("private-trunk", identity, partial(_outcomes, site))
    say(f" {np.mean(found['certificates']):.3f}")
    return {"seed": site.seed, **about, **found}


def _outcomes(site: WarmSite) -> dict[str, list[float]]:
    """Return what a head on half of n examples certifies with the rest, and its error."""
    n = max(site.cell.sizes)
    recipe = PosteriorSplitRecipe(
        candidates=1,
        delta=DELTA,
        first_share=FIRST_SHARE,
        refinement="local_head",
        choose_fraction=0.5,
    )
    found: dict[str, list[float]] = {"certificates": [], "errors": []}
    if site.warm.rounds:
        _ = site.progress  # before anything of the clients is loaded
    for name in site.measured:
        scorer = BatchedScorer(site.model(name), margin_tolerance=0.0)
        labeled = site.scenario.support_examples(name, n)
        tests = site.scenario.test_examples(name)
        assert tests is not None
        head = local_head(scorer, labeled.take(recipe.choosing(n).as_slice()))[None]
        rest = labeled.take(recipe.certifying(n).as_slice())
        wrong = int(scorer.score(head, rest).wrong.sum())
        found["certificates"].append(recipe.bound(wrong, len(rest)))
        found["errors"].append(float(scorer.score(head, tests).wrong.mean()))
        say(".", end="")
    return found
