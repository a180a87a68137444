"""Promises that take more of delta than they have, or choose by what they count on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from fedcert.certificates import (
    AbstentionPromise,
    Evidence,
    ExitPromise,
    GainOutcome,
    GainPromise,
    Ground,
    PointsPromise,
    Recipe,
    ReferenceOutcome,
    ReferencePromise,
    SetsOutcome,
    SetsPromise,
    SimultaneousPromise,
    SplitRecipe,
    UnionRecipe,
    binomial_upper_bound,
)
from fedcert.certificates.promises.limits import lower_limit
from fedcert.simulations.benchmarks.mutants.base import DELTA, Mutant, Seed, broken_promise
from fedcert.simulations.benchmarks.point_episodes import (
    CLIENTS,
    POINTS,
    clients_recipe,
    false_together,
    points_recipe,
)
from fedcert.simulations.benchmarks.promise_episodes import WORLDS, World

__all__ = ["MUTANTS"]

_SILENT, _LOSING, _NO_GAIN, _MISSING = WORLDS[1], WORLDS[4], WORLDS[5], WORLDS[6]
_EXITING, _NO_MATTER, _PUBLIC = WORLDS[7], WORLDS[8], WORLDS[10]
_FULL = binomial_upper_bound(0, 32, DELTA) + 1e-9
_BOTH = World(
    "a policy just beyond what all of delta gives on both halves",
    (1.0, 2.0),
    (_FULL, 1 - _FULL),
    (0.0, _FULL / (1 - _FULL)),
    rival_wrong=(0.0, 0.0),
)
_TWICE = World(
    "just beyond what all of delta on both halves gives",
    (1.0, 2.0),
    (1 - 0.9106, 0.9106),
    (1.0, binomial_upper_bound(0, 28, DELTA) + 1e-9),
)


@dataclass(frozen=True, kw_only=True)
class FullOnBothHalves(AbstentionPromise):
    """Error and share answered have all of delta each."""

    def _half(self, ground: Ground) -> float:
        return ground.budget


@dataclass(frozen=True, kw_only=True)
class ThresholdFromCertifying(AbstentionPromise):
    """The threshold is chosen on certifying examples, among all margins."""

    def choose(self, evidence: Evidence, ground: Ground) -> float | None:
        margins = sorted({0.0, *(evidence.certifying.margins + 0.01).tolist()})
        return self._best(margins, evidence.certifying, evidence, ground)


@dataclass(frozen=True, kw_only=True)
class OneSided(GainPromise):
    """What is lost is taken as counted, without a bound."""

    def bound(self, outcome: GainOutcome, ground: Ground) -> GainOutcome:
        won = lower_limit(outcome.won, ground.trials, ground.budget)
        return replace(outcome, at_least=won - outcome.lost / ground.trials)


@dataclass(frozen=True, kw_only=True)
class Unpaired(GainPromise):
    """Who wins and who loses is taken from two separate accuracies."""

    def bound(self, outcome: GainOutcome, ground: Ground) -> GainOutcome:
        right = lower_limit(ground.trials - outcome.lost, ground.trials, ground.budget)
        others = binomial_upper_bound(
            ground.trials - outcome.won, ground.trials, ground.budget / 2
        )
        return replace(outcome, at_least=right - min(others, 1 - outcome.won / ground.trials))


@dataclass(frozen=True, kw_only=True)
class NoWeight(SetsPromise):
    """The best of 8 candidates has all of delta."""

    def bound(self, outcome: SetsOutcome, ground: Ground) -> SetsOutcome:
        return super().bound(outcome, replace(ground, budget=DELTA))


@dataclass(frozen=True, kw_only=True)
class SizeChosenAfter(SetsPromise):
    """A larger set is counted than was promised."""

    def count(self, evidence: Evidence, chosen: None, ground: Ground) -> SetsOutcome:
        larger = replace(self, size=self.size + 1)
        return SetsPromise.count(larger, evidence, chosen, ground)


@dataclass(frozen=True, kw_only=True)
class ExitFromCertifying(ExitPromise):
    """The exit threshold is the one at which the certifying examples err least."""

    def choose(self, evidence: Evidence, ground: Ground) -> float | None:
        early = evidence.early(self.early)
        assert early is not None
        steps = sorted({0.0, *(early.certifying.margins + 0.01).tolist()})
        best: float = min(steps, key=lambda step: self.count(evidence, step, ground).wrong or 0)
        return best


@dataclass(frozen=True, kw_only=True)
class ExitAtFullOnBothHalves(ExitPromise):
    """A policy's error and who goes on have all of delta each."""

    def _half(self, ground: Ground, weight: int) -> float:
        return ground.budget


@dataclass(frozen=True, kw_only=True)
class ExitWithoutWeight(ExitPromise):
    """The best of 8 pairs of adapters has all of delta."""

    def _half(self, ground: Ground, weight: int) -> float:
        return super()._half(replace(ground, budget=DELTA), weight)


@dataclass(frozen=True, kw_only=True)
class PublicForFree(ReferencePromise):
    """A draw that was chosen by the public sample has all of delta there."""

    def bound(self, outcome: ReferenceOutcome, ground: Ground) -> ReferenceOutcome:
        return super().bound(outcome, replace(ground, public_budget=ground.budget))


_SPLIT = SplitRecipe(candidates=1, delta=DELTA)
_MOST_CERTIFY = SplitRecipe(candidates=1, delta=DELTA, choose_fraction=1 / 64)
_UNION = UnionRecipe(candidates=8, delta=DELTA)


def _undivided(name: str, kind: str, things: str, recipe: Recipe, count: int) -> Mutant:
    def play(recipe: Recipe, episodes: int, seed: Seed) -> int:
        return false_together(recipe, count, episodes, seed=seed)

    return Mutant(
        name=name,
        breaks=f"Each of {count} {things} has all of delta",
        of=kind,
        page="promises",
        play=partial(play, replace(recipe, delta=DELTA, promises=())),
        honest=partial(play, recipe),
    )


MUTANTS = (
    broken_promise(_SPLIT, FullOnBothHalves(share=1.0, most_wrong=0.25), _TWICE),
    broken_promise(_MOST_CERTIFY, ThresholdFromCertifying(share=1.0, most_wrong=0.05), _SILENT),
    broken_promise(_SPLIT, OneSided(share=1.0), _LOSING),
    broken_promise(_SPLIT, Unpaired(share=1.0), _NO_GAIN),
    broken_promise(_UNION, NoWeight(share=1.0, size=3), _MISSING),
    broken_promise(_SPLIT, SizeChosenAfter(share=1.0, size=3), _MISSING),
    broken_promise(_MOST_CERTIFY, ExitFromCertifying(share=1.0, early="early"), _NO_MATTER),
    broken_promise(
        _SPLIT, ExitAtFullOnBothHalves(share=1.0, early="early", threshold=1.5), _BOTH
    ),
    broken_promise(
        _UNION, ExitWithoutWeight(share=1.0, early="early", threshold=1.5), _EXITING
    ),
    broken_promise(SplitRecipe(candidates=4, delta=DELTA), PublicForFree(share=1.0), _PUBLIC),
    _undivided(
        "PointsUndivided", PointsPromise.kind, "operating points", points_recipe(), POINTS
    ),
    _undivided(
        "ClientsUndivided", SimultaneousPromise.kind, "clients", clients_recipe(), CLIENTS
    ),
)
