"""Recipes from outside: what serves a client is what was planned with, played, and verified."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
from tiny_models import Family

from fedcert.adapters import AdaptedModel
from fedcert.adapters.constants import constant_adapters
from fedcert.certificates import (
    WEIGHT_DENOMINATOR,
    Choice,
    Chosen,
    LedgerEntry,
    Recipe,
    RecipeTable,
    Session,
    Span,
    SplitRecipe,
    SwapRecipe,
    UnionRecipe,
    verify_record,
)
from fedcert.certificates.counts import Counts, Selection, lowest
from fedcert.certificates.recipes import register
from fedcert.certificates.replay import ErrorTable, replay
from fedcert.data.orders import in_drawn_order
from fedcert.personalization import Personalization, personalize
from fedcert.planning import ClientReplay
from fedcert.search import BatchedScorer
from fedcert.simulations.benchmarks.episodes import play
from fedcert.verification import check_adapter, check_bundle, check_data
from personalization.conftest import CANDIDATES, KEY, make_bundle, solvable_examples

TERMS: dict[str, Any] = {"candidates": CANDIDATES, "delta": 0.05}
N = 48


@register
@dataclass(frozen=True, kw_only=True)
class FourthBest(UnionRecipe):
    """A rule of its own: the union pays for any."""

    kind: ClassVar[str] = "fourth_best"

    def select(self, counts: Counts) -> Selection:
        order = np.lexsort((counts.losses, counts.choosing), axis=1)
        return self._selected(order[:, 3], counts)


@register
@dataclass(frozen=True, kw_only=True)
class ConstantsToo(UnionRecipe):
    """A union in which the first two candidates predict one label each."""

    kind: ClassVar[str] = "constants_too"

    @property
    def constant_predictors(self) -> int:
        return 2


@register
@dataclass(frozen=True, kw_only=True)
class MeanOfTheBest(SplitRecipe):
    """Certifies the mean of the candidates that fit the choosing examples best."""

    kind: ClassVar[str] = "mean_of_the_best"
    refines: ClassVar[bool] = True

    averaged: int = 4

    @property
    def hypotheses(self) -> int:
        return 1

    def refine(self, session: Session) -> npt.NDArray[np.float64]:
        everything = Span(0, session.n)
        counts = session.count(everything, everything)
        [best] = np.lexsort((counts.losses, counts.choosing), axis=1)[:, : self.averaged]
        drawn = session.draw(start=0, count=session.candidates)
        return np.asarray(drawn[best].mean(axis=0, keepdims=True))


@register
@dataclass(frozen=True, kw_only=True)
class OwnSwap(SplitRecipe):
    """Each half chooses a candidate for the other; both certify, at half of delta each.

    Hypothesis j is candidate j, certified on the second half; M + j is the same candidate,
    certified on the first.
    """

    kind: ClassVar[str] = "own_swap"

    @property
    def hypotheses(self) -> int:
        return 2 * self.candidates

    def candidate_of(self, choice: Choice) -> int:
        return choice.index % self.candidates

    def certifies_on(self, choice: Choice, n: int) -> Span:
        second = choice.index < self.candidates
        return self.certifying(n) if second else self.choosing(n)

    def weight(self, choice: Choice | None = None) -> int:
        return WEIGHT_DENOMINATOR // 2

    def ledger(self, n: int) -> tuple[LedgerEntry, ...]:
        return (LedgerEntry("bound one candidate on each half", self.delta),)

    def choose(self, session: Session) -> Chosen:
        bounds, made = [], []
        for number, half in enumerate((self.choosing(session.n), self.certifying(session.n))):
            best = session.best(half)
            choice = Choice(index=best.index + number * self.candidates)
            span = self.certifies_on(choice, session.n)
            errors = int(session.score(best.vector[None], span)[0].sum())
            bounds.append(self.bound(errors, span.size, choice))
            made.append(Chosen(choice, best.vector))
        return made[int(np.argmin(bounds))]


def _serve(
    family: Family, model: AdaptedModel, recipe: Recipe, folder: Path
) -> tuple[Any, Any, Personalization]:
    bundle = make_bundle(family, recipes=RecipeTable(((1, recipe),)))
    examples = solvable_examples(family, bundle, model, N)
    done = personalize(bundle, model, examples, client="c", key=KEY, folder=folder)
    return bundle, examples, done


@pytest.mark.parametrize(
    "recipe",
    [
        FourthBest(**TERMS),
        ConstantsToo(**TERMS),
        MeanOfTheBest(**TERMS),
        OwnSwap(**TERMS),
        SwapRecipe(**TERMS),
    ],
    ids=lambda r: r.kind,
)
def test_it_serves_by_the_rule_that_is_replayed_and_verified(
    vit: Family, model: AdaptedModel, recipe: Recipe, tmp_path: Path
) -> None:
    bundle, examples, done = _serve(vit, model, recipe, tmp_path)
    made = done.certificate
    assert verify_record(made).passed
    checks = check_bundle(made, bundle)
    checks += check_adapter(made, bundle, done.adapter)
    checks += check_data(made, bundle, model.base, done.adapter, examples).checks
    assert [check.detail for check in checks if not check.passed] == []

    seed = made.candidate.seed
    replays = ClientReplay(
        bundle.prior,
        BatchedScorer(model, margin_tolerance=recipe.margin_tolerance),
        in_drawn_order(examples, seed),
        seed=seed,
        candidates=CANDIDATES,
        constants=constant_adapters(bundle.space, 2),
    )
    outcome = replays.outcome(recipe, N)
    assert (outcome.index, outcome.errors) == (made.candidate.index, made.errors)
    assert outcome.bound == made.bound
    assert replays.mean_bound(recipe, N // 2) <= 1.0


def test_such_a_recipe_is_not_served_as_a_union(
    vit: Family, model: AdaptedModel, tmp_path: Path
) -> None:
    served = {}
    for recipe in (UnionRecipe(**TERMS), FourthBest(**TERMS), ConstantsToo(**TERMS)):
        bundle = make_bundle(vit, recipes=RecipeTable(((1, UnionRecipe(**TERMS)),)))
        examples = solvable_examples(vit, bundle, model, N)
        ordered = in_drawn_order(examples, "5" * 64)
        session = _session(recipe, bundle, model, ordered)
        served[recipe.kind] = recipe.choose(session).index
    assert served["fourth_best"] != served["union"]


def _session(recipe: Recipe, bundle: Any, model: AdaptedModel, ordered: Any) -> Session:
    from fedcert.search import SupportSession

    scorer = BatchedScorer(model, margin_tolerance=recipe.margin_tolerance)
    return SupportSession(
        recipe, bundle.prior, scorer, ordered,
        seed="5" * 64, constants=constant_adapters(bundle.space, 2), chunk=10,
    )  # fmt: skip


def test_a_race_finds_what_counting_finds(vit: Family, model: AdaptedModel) -> None:
    recipe = ConstantsToo(**TERMS)
    bundle = make_bundle(vit)
    ordered = in_drawn_order(solvable_examples(vit, bundle, model, N), "5" * 64)
    session = _session(recipe, bundle, model, ordered)
    counts = session.count(Span(0, N), Span(0, N))
    assert session.best(Span(0, N)).index == int(lowest(counts.choosing, counts.losses)[0])
    # Without draws, a client whose labels are all alike is served by their constant.
    alike = replace(ordered, labels=np.ones(N, dtype=np.int64))
    best = _session(replace(recipe, candidates=2), bundle, model, alike).best(Span(0, N))
    assert best.index == 1
    assert np.array_equal(best.vector, constant_adapters(bundle.space, 2)[1])


def test_a_refining_recipe_cannot_read_certifying_examples(
    vit: Family, model: AdaptedModel
) -> None:
    recipe = MeanOfTheBest(**TERMS)
    bundle = make_bundle(vit)
    ordered = in_drawn_order(solvable_examples(vit, bundle, model, N), "5" * 64)
    other = replace(
        ordered, labels=np.concatenate([ordered.labels[:24], 1 - ordered.labels[24:]])
    )
    one, two = (
        recipe.choose(_session(recipe, bundle, model, each)) for each in (ordered, other)
    )
    assert np.array_equal(one.vector, two.vector)


def test_a_recipe_may_choose_on_two_spans() -> None:
    """By a `choose` of its own, which is what replays and coverage tests play as well."""
    recipe = OwnSwap(candidates=20, delta=0.05)
    rng = np.random.default_rng(0)
    wrong = rng.random((20, 40)) < np.linspace(0.1, 0.6, 20)[:, None]
    table = ErrorTable(
        wrong=wrong, losses=rng.random((20, 40)), test_risk=np.linspace(0.1, 0.6, 20)
    )
    outcome = replay(recipe, table, 40)
    assert outcome.index is not None
    assert outcome.risk == table.test_risk[outcome.index % 20]
    for played in play(recipe, episodes=200):
        assert played.p_value > 1e-4
