"""``make bench-sweeps``: what M, d, the pool's size and a shift do to certificates.

One thing varies at a time, from the same defaults, with n = 64 examples. Every prior gets the
same M, the same search and the same recipes. M, d and the pool vary on `digits`; what is held
out of the pool is a digit, a domain of requests, or three languages. ``--sweep`` measures one
of them, and leaves the others as they are in the record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.arrays import FloatArray
from fedcert.certificates import Recipe
from fedcert.data.examples import Examples
from fedcert.errors import SettingsError
from fedcert.planning import menu, recipe_name
from fedcert.planning.replays import ClientReplay
from fedcert.priors import PRIORS, Prior
from fedcert.randomness import derive_seed, small_seed
from fedcert.runs.machine import describe_machine, versions
from fedcert.search import BatchedScorer
from fedcert.simulations.benchmarks.comparison import LocalLora, Upstream
from fedcert.simulations.benchmarks.federations import remembered
from fedcert.simulations.benchmarks.options import parsed, parser_of
from fedcert.simulations.benchmarks.publishing import kept_record, publish, say
from fedcert.simulations.benchmarks.sweep_cases import CASES, Site
from fedcert.simulations.benchmarks.sweeps_page import sweeps_page
from fedcert.threads import torch_threads

__all__ = ["documents", "main"]

# Raise it when a setting changes what it gives.
_VERSION = 3
SEEDS, N, DELTA = (0, 1, 2), 64, 0.05
POOL, RANK, CANDIDATES = 128, 4, 1000
RECIPES = ("union", "hybrid 0.25", "posterior_split 0.5")
LOCAL = LocalLora.name
"""A column beside the recipes': half of the examples train an adapter, with no federation."""
_SHIFTS = {"digit": "digits", "domain": "intents", "languages": "topics"}
# As many adapters as there are of clients with other languages.
_POOL_OF_LANGUAGES = 90
# How many numbers adapted modules share, by rank; 0: none. Few adapters, where few coordinates
# should help most.
_TIED, _POOL_OF_TIED, _SEEDS_OF_TIED = {4: (0, 4, 8, 16), 8: (0, 8)}, 64, 2


@dataclass(frozen=True)
class Setting:
    """One point of a sweep; the defaults are where all sweeps meet.

    Attributes
    ----------
    sweep : str
        What varies.
    value : str
        Its value here.
    prior : str
        Kind of prior.
    candidates : int
        M.
    rank : int
        Rank of the adapters.
    tied : int
        How many numbers the adapted modules share; 0 is an R of each.
    pool : int
        Adapters that the prior is fitted to.
    scenario : str
        Name of the case.
    held_out : bool
        Whether the pool is of clients that do not have what is held out.
    having : bool, optional
        If given, only new clients that have it, or have not.
    seeds : int
        On how many of the benchmark's seeds at most.
    """

    sweep: str
    value: str
    prior: str = "diffusion"
    candidates: int = CANDIDATES
    rank: int = RANK
    tied: int = 0
    pool: int = POOL
    scenario: str = "digits"
    held_out: bool = False
    having: bool | None = None
    seeds: int = len(SEEDS)


def settings() -> Iterator[Setting]:
    """Yield all points of all sweeps."""
    for prior in PRIORS:
        for count in (100, 1000, 10_000):
            yield Setting("candidates", f"{count:,}", prior=prior, candidates=count)
    for rank in (2, 4, 8):
        yield Setting("rank", str(rank), rank=rank)
    for prior in ("diffusion", "gaussian"):
        for pool in (16, 32, 64, 128, 512):
            yield Setting("pool", str(pool), prior=prior, pool=pool)
    for rank, counts in _TIED.items():
        for tied in counts:
            own = f"{tied} shared" if tied else "an R of each"
            value = f"rank {rank}, {own}"
            yield Setting(
                "tied", value, rank=rank, tied=tied, pool=_POOL_OF_TIED, seeds=_SEEDS_OF_TIED
            )
    for sweep, scenario in _SHIFTS.items():
        yield from _shifted(sweep, scenario)


def _shifted(sweep: str, scenario: str) -> Iterator[Setting]:
    """Yield the points of a shift; whole languages have no clients that share them partly."""
    languages = sweep == "languages"
    for prior in ("diffusion", "gaussian", "pool"):
        for held_out in (False, True):
            for having in (True,) if languages else (False, True):
                upstream = "never upstream" if held_out else "upstream too"
                client = "have it" if having else "do not"
                yield Setting(
                    sweep,
                    upstream if languages else f"{upstream}; new clients {client}",
                    prior,
                    pool=_POOL_OF_LANGUAGES if languages else POOL,
                    scenario=scenario,
                    held_out=held_out,
                    having=having,
                )


@lru_cache(maxsize=4)
def _site(scenario: str, seed: int, rank: int, tied: int) -> Site:
    adapter = {} if rank == RANK else {"rank": rank}
    return Site(CASES[scenario], seed, adapter | ({"tied": tied} if tied else {}))


class _Point:
    """One setting and seed."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self._setting, self._seed = setting, seed
        self.site = _site(setting.scenario, seed, setting.rank, setting.tied)

    @cached_property
    def pool(self) -> FloatArray:
        """The setting's adapters, shape ``(N, d)``."""
        return self.site.pool(self._setting.pool, held_out=self._setting.held_out)

    @cached_property
    def prior(self) -> Prior:
        """Fitted to the pool."""
        return PRIORS[self._setting.prior].fit(self.pool, seed=small_seed("prior", self._seed))

    @property
    def clients(self) -> list[str]:
        """Return the new clients that are measured."""
        return self.site.new_clients(having=self._setting.having)

    def size(self) -> tuple[int, int]:
        """Return how many coordinates an adapter has, and the prior directions."""
        return self.site.federation.model.space.dimension, self.prior.noise_width

    def rows(self) -> list[tuple[str, str, float, float]]:
        """Return client, recipe, certificate and true error."""
        federation = self.site.federation
        identity = {
            "version": _VERSION, "prior": self.prior.digest, "n": N, "delta": DELTA,
            "scenario": federation.settings.scenario.model_dump(), "seed": self._seed,
            "space": federation.model.space.digest, "clients": self.clients,
            "new": dict(self.site.case.new), "candidates": self._setting.candidates,
            "recipes": RECIPES,
        }  # fmt: skip
        found = remembered("sweeps", identity, lambda: list(self._measured()))
        return [tuple(row) for row in found]

    def _measured(self) -> Iterator[tuple[str, str, float, float]]:
        model, scenario = self.site.federation.model, self.site.scenario
        counted = BatchedScorer(model, margin_tolerance=1e-4)
        true = BatchedScorer(model, margin_tolerance=0.0)
        recipes = _recipes(self._setting.candidates)
        for client in self.clients:
            examples = scenario.support_examples(client, N)
            tests = scenario.test_examples(client)
            assert tests is not None  # every case's new clients have some
            tested = partial(_wrong, true, tests)
            replays = ClientReplay(
                self.prior, counted, examples,
                seed=derive_seed("bench sweeps", self._seed),
                candidates=self._setting.candidates, tested=tested,
            )  # fmt: skip
            for name, recipe in recipes.items():
                outcome = replays.outcome(recipe, N)
                yield client, name, outcome.bound, outcome.risk
            local = self._local.personalize(examples)
            yield client, LOCAL, local.certificate, float(tested(local.adapters).mean())

    @cached_property
    def _local(self) -> LocalLora:
        federation = self.site.federation
        training = federation.settings.finetune_settings()
        upstream = Upstream(
            model=federation.model, clients={},
            pool=self.pool, prior=self.prior, training=training, delta=DELTA,
            candidates=CANDIDATES, steel_candidates=CANDIDATES, seed=self._seed,
        )  # fmt: skip
        return LocalLora.variants(upstream)[0]


def _point(setting: Setting, seed: int) -> _Point:
    """Return a point; one that another sweep has, too, is made once."""
    return _made(replace(setting, sweep="", value="", seeds=1), seed)


@lru_cache(maxsize=8)
def _made(setting: Setting, seed: int) -> _Point:
    return _Point(setting, seed)


def _wrong(
    scorer: BatchedScorer, tests: Examples, adapters: FloatArray
) -> npt.NDArray[np.bool_]:
    return scorer.score(adapters, tests).wrong


def _recipes(candidates: int) -> dict[str, Recipe]:
    named = {recipe_name(recipe): recipe for recipe in menu(candidates=candidates, delta=DELTA)}
    return {name: named[name] for name in RECIPES}


def measure(
    points: Sequence[Setting], seeds: Sequence[int], say: Callable[[str], object]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return a row per setting and recipe, and the scenarios that are missing here.

    A row holds means over clients and seeds; a case may run on the first few seeds alone.

    Parameters
    ----------
    points : sequence of Setting
        The settings to measure.
    seeds : sequence of int
        Seeds of the federations.
    say : callable
        Called with a line of progress.

    Returns
    -------
    tuple
        Rows, and why a scenario is missing, by name.
    """
    table: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    for setting in points:
        if setting.scenario in missing:
            continue
        try:
            most = min(setting.seeds, CASES[setting.scenario].seeds)
            table += _rows(setting, seeds[:most])
        except SettingsError as error:  # data or base model are not on this machine
            missing[setting.scenario] = str(error)
            say(f"left out: {error}")
            continue
        say(f"{setting.sweep} {setting.value}, {setting.prior}")
    return table, missing


def _rows(setting: Setting, seeds: Sequence[int]) -> list[dict[str, Any]]:
    found, about = _outcomes(setting, seeds), {"seeds": list(seeds)}
    rows = [_row(setting, name, values) | about for name, values in found.items()]
    if setting.sweep != "tied":
        return rows
    sizes = [_point(setting, seed).size() for seed in seeds]
    plain = _outcomes(replace(setting, tied=0), seeds)
    return [
        row
        | {
            "rank": setting.rank,
            "tied": setting.tied,
            "coordinates": sizes[0][0],
            "directions": [directions for _, directions in sizes],
        }
        | _change(found[row["recipe"]], plain[row["recipe"]])
        for row in rows
    ]


def _outcomes(setting: Setting, seeds: Sequence[int]) -> dict[str, FloatArray]:
    """Return certificate and true error by recipe, shape ``(clients, 2)``."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in (*RECIPES, LOCAL)}
    for seed in seeds:
        for _, name, bound, risk in _point(setting, seed).rows():
            found[name].append((bound, risk))
    return {name: np.array(values) for name, values in found.items()}


def _change(values: FloatArray, plain: FloatArray) -> dict[str, float]:
    """Compare certificates of the same clients with those where every module has its R."""
    change = values[:, 0] - plain[:, 0]
    return {
        "change": float(change.mean()),
        "change_se": float(change.std(ddof=1) / len(change) ** 0.5),
    }


def _row(setting: Setting, recipe: str, values: FloatArray) -> dict[str, Any]:
    bounds, risks = values.T
    return {
        "sweep": setting.sweep,
        "scenario": setting.scenario,
        "value": setting.value,
        "prior": setting.prior,
        "pool": setting.pool,
        "recipe": recipe,
        "certificate": float(bounds.mean()),
        "se": float(bounds.std(ddof=1) / len(bounds) ** 0.5),
        "error": float(risks.mean()),
        "clients": len(bounds),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and render; fewer seeds go to a folder of their own."""
    parser = parser_of("sweeps", __doc__, seeds=SEEDS)
    parser.add_argument("--sweep", action="append", help="run this one alone")
    options = parsed(parser, arguments, free=("sweep",))
    points = [each for each in settings() if not options.sweep or each.sweep in options.sweep]
    if not points:
        parser.error(f"there is no sweep {options.sweep[0]!r}")
    with torch_threads(1):
        table, missing = measure(points, options.seeds, say)
    kept = kept_record("sweeps") if options.sweep and options.output is None else {}
    record: dict[str, Any] = {
        "command": "make bench-sweeps",
        "seeds": options.seeds,
        "n": N,
        "delta": DELTA,
        "defaults": {"candidates": CANDIDATES, "rank": RANK, "pool": POOL},
        "held_out": {name: list(case.held_out) for name, case in CASES.items()},
        "machine": describe_machine(),
        "versions": versions(),
        "missing": missing,
        "table": table,
    }
    if kept:
        record = _beside(kept, record)
    publish("sweeps", record, documents(record), folder=options.output)


def documents(record: dict[str, Any]) -> dict[str, str]:
    """Return what is rendered from a record, by path below ``docs/``."""
    return {"sweeps.md": sweeps_page(record)}


def _beside(kept: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Return the record of before with some sweeps measured anew, each naming its machine."""
    about = {name: part[name] for name in ("machine", "versions")}
    anew = dict.fromkeys(row["sweep"] for row in part["table"])
    others = [row for row in kept["table"] if row["sweep"] not in anew]
    order = [setting.sweep for setting in settings()]
    table = sorted([*others, *part["table"]], key=lambda row: order.index(row["sweep"]))
    parts = kept.get("parts", {}) | dict.fromkeys(anew, about)
    return kept | {"table": table, "parts": parts, "missing": kept["missing"] | part["missing"]}


if __name__ == "__main__":
    main()
