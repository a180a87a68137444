"""Posterior modes, and rates and gates that come from a pool, beside posterior means.

A part of ``make bench-certificates``. Beside the refinements that recipes have, a new client of
a prior's bundle fine-tunes at rates that are in proportion to how far upstream clients moved
each coordinate, or along the pool's directions from the posterior mean on. All ways learn from
the same choosing examples, and the others certify.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from fedcert.arrays import FloatArray
from fedcert.certificates import PosteriorSplitRecipe
from fedcert.data.examples import Examples
from fedcert.errors import SettingsError
from fedcert.planning import MODE_STEPS
from fedcert.priors.latent import LatentSpace
from fedcert.search.learning import finetuned, posterior_mode, tuned_head
from fedcert.search.session import SupportSession
from fedcert.simulations.benchmarks.federations import remembered
from fedcert.simulations.benchmarks.named import CELLS
from fedcert.simulations.benchmarks.named_site import DELTA, Cell, Client, Site
from fedcert.simulations.benchmarks.publishing import say
from fedcert.threads import torch_threads

__all__ = ["GROUNDS", "MEAN", "Ground", "axes", "refinements"]

# Raise it when something else is measured for the same client.
_VERSION = 2
MEAN = "posterior mean"
# By way: the true error, and on which of the examples that do not choose it errs.
Outcomes = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Ground:
    """Where refinements are compared.

    Attributes
    ----------
    cell : Cell
        Scenario and prior.
    seeds : tuple of int
        Seeds of the federations.
    splits : tuple
        Numbers of examples, with the share of them that chooses.
    """

    cell: Cell
    seeds: tuple[int, ...]
    splits: tuple[tuple[int, float], ...]


GROUNDS = (
    Ground(
        Cell(
            scenario="digits", sizes=(64, 128), new=20, fitted=128, planners=0, candidates=1000
        ),
        seeds=(0, 1),
        splits=((16, 0.5), (32, 0.5), (64, 0.5), (128, 0.25), (128, 0.5)),
    ),
    Ground(
        replace(next(c for c in CELLS if c.scenario == "intents"), sizes=(64, 128), new=8),
        seeds=(0,),
        # Posterior means of an encoder that is read at all tokens take long.
        splits=((32, 0.5), (64, 0.5), (128, 0.25)),
    ),
)


@dataclass(frozen=True)
class _Way:
    """A way to fine-tune.

    Attributes
    ----------
    along : str
        The axes: ``"plain"`` takes the adapter's coordinates, ``"rated"`` these in units of the
        pool's standard deviations, and ``"gated"`` the pool's directions, in units of those.
    rate, pull : float
        Of Adam, and to the start, in these units.
    from_mean : bool
        Whether it starts at the posterior mean, or at the center.
    """

    along: str
    rate: float
    pull: float
    from_mean: bool


# Of a few rates and pulls those with the lowest mean errors on twelve clients of `digits` with
# another seed (3), learning from 32 and from 64 examples.
_WAYS = {
    "plain, from the mean": _Way("plain", 0.03, 0.1, True),
    "rated": _Way("rated", 0.5, 0.003, False),
    "rated, from the mean": _Way("rated", 0.5, 0.03, True),
    "gated, from the mean": _Way("gated", 0.3, 0.1, True),
}


def refinements(grounds: Sequence[Ground] = GROUNDS) -> dict[str, Any]:
    """Return the table's rows, and which scenarios are not in it."""
    rows: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    with torch_threads(1):
        for ground in grounds:
            cell = ground.cell
            say(f"refinements, {cell.scenario}: ", end="")
            try:
                clients = [_measured(ground, seed) for seed in ground.seeds]
            except SettingsError as error:  # data or base model are not on this machine
                missing[cell.scenario] = str(error)
                say(f"left out: {error}")
                continue
            about = {"scenario": cell.scenario, "seeds": list(ground.seeds)}
            rows += [
                about | {"n": n, "share": share} | row
                for n, share in ground.splits
                for row in _averaged(_recipe(cell, share), list(chain(*clients)), n)
            ]
            say(" done")
    return {"table": rows, "missing": missing}


def _measured(ground: Ground, seed: int) -> list[dict[int, Outcomes]]:
    """Return each client's outcomes, by the number of examples that choose."""
    site = Site(ground.cell, seed)
    sizes = sorted({_recipe(site.cell, share).choosing(n).size for n, share in ground.splits})
    return [{size: _kept(site.client(name), size) for size in sizes} for name in site.measured]


def _kept(client: Client, size: int) -> Outcomes:
    """Return a client's outcomes, from before if they were measured."""
    identity = client.site.identity(
        new=client.name,
        choosing=size,
        prior=client.site.prior.digest,
        ways={name: asdict(way) for name, way in _WAYS.items()},
        version=_VERSION,
    )
    found: Outcomes = remembered("refinements", identity, partial(_outcomes, client, size))
    say(".", end="")
    return found


def _outcomes(client: Client, size: int) -> Outcomes:
    """Return each way's true error, and on which of the other examples it errs, in order."""
    choosing, rest = client.support.take(slice(size)), client.support.take(slice(size, None))
    adapters = dict(_adapters(client, choosing))
    wrong = client.scorer.score(np.stack(list(adapters.values())), rest).wrong
    return {
        name: {"error": client.error(adapter), "wrong": row.astype(int).tolist()}
        for (name, adapter), row in zip(adapters.items(), wrong, strict=True)
    }


def _adapters(client: Client, choosing: Examples) -> Iterator[tuple[str, FloatArray]]:
    """Yield what each way makes of the choosing examples."""
    site, scorer = client.site, client.scorer
    settings = site.settings.finetune_settings()
    mean, center, latent = _mean(client, choosing), site.prior.center(), site.prior.latent
    yield MEAN, mean
    yield "posterior mode", posterior_mode(scorer, choosing, site.prior, steps=MODE_STEPS)
    yield (
        "finetune",
        finetuned(
            scorer,
            choosing,
            center,
            steps=settings.steps,
            learning_rate=settings.learning_rate,
            pull=settings.weight_decay,
        ),
    )
    yield "tuned head", tuned_head(scorer, choosing, center)
    for name, way in _WAYS.items():
        start = mean if way.from_mean else center
        yield (
            name,
            finetuned(
                scorer,
                choosing,
                start,
                axes=axes(latent, way.along),
                steps=settings.steps,
                learning_rate=way.rate,
                pull=way.pull,
            ),
        )


def _mean(client: Client, choosing: Examples) -> FloatArray:
    """Return the posterior mean, which takes the longest."""
    site = client.site
    recipe = _recipe(site.cell, 0.5)

    def compute() -> list[float]:
        session = SupportSession(
            recipe, site.prior, client.scorer, choosing, seed=site.candidate_seed
        )
        return [float(value) for value in recipe.refine(session)[0]]

    identity = site.identity(
        mean=client.name, choosing=len(choosing), **site.recipe_identity(recipe)
    )
    return np.array(remembered("refinements", identity, compute))


def axes(latent: LatentSpace, along: str) -> FloatArray:
    """Return axes, each of the length of one step at a rate of 1, ``(k, d)``."""
    if along == "plain":
        return np.eye(latent.dimension)
    if along == "gated":
        return latent.axes()
    # What no upstream client moved stays where it is.
    return np.diag(latent.scale * latent.directions.any(axis=0))


def _recipe(cell: Cell, share: float) -> PosteriorSplitRecipe:
    return PosteriorSplitRecipe(candidates=cell.candidates, delta=DELTA, choose_fraction=share)


def _averaged(
    recipe: PosteriorSplitRecipe, clients: list[dict[int, Outcomes]], n: int
) -> Iterator[dict[str, Any]]:
    """Yield each way's means over clients, and how far it is from the posterior mean."""
    size, rest = recipe.choosing(n).size, recipe.certifying(n).size
    outcomes = [client[size] for client in clients]

    def bounds(way: str) -> FloatArray:
        wrong = [sum(outcome[way]["wrong"][:rest]) for outcome in outcomes]
        return np.array([recipe.bound(count, rest) for count in wrong])

    def errors(way: str) -> FloatArray:
        return np.array([outcome[way]["error"] for outcome in outcomes])

    for way in outcomes[0]:
        yield {
            "refinement": way,
            "certificate": _against(bounds(way), bounds(MEAN)),
            "error": _against(errors(way), errors(MEAN)),
            "clients": len(outcomes),
        }


def _against(values: FloatArray, others: FloatArray) -> dict[str, float]:
    """Return the mean, and the mean difference from others with its standard error."""
    apart = values - others
    return {
        "mean": float(values.mean()),
        "difference": float(apart.mean()),
        "se": float(apart.std(ddof=1) / len(apart) ** 0.5),
    }
