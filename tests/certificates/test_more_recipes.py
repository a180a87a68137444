"""The recipes beyond union and split: weights, finalists, posteriors, references."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcert.certificates import (
    WEIGHT_DENOMINATOR,
    Choice,
    FirstStage,
    HybridRecipe,
    MixedUnionRecipe,
    PosteriorSplitRecipe,
    Recipe,
    SplitRecipe,
    UnionRecipe,
    WeightedUnionRecipe,
    binomial_upper_bound,
    budget_of,
    uniform_weight,
)
from fedcert.certificates.counts import Counts
from fedcert.certificates.kl_bounds import kl_upper_inverse
from fedcert.certificates.recipes.by_bound import lowest_bound
from fedcert.certificates.recipes.session import TableSession
from fedcert.certificates.replay import ErrorTable, replay
from fedcert.errors import CertificateError
from fedcert.simulations.benchmarks.recipes import (
    CompressionRecipe,
    GibbsRecipe,
    KnownBestRecipe,
    VoteRecipe,
)

from .recipe_suite import RecipeSuite, WeightSuite, random_table

TERMS: dict[str, Any] = {"candidates": 20_000, "delta": 0.05}
FEW: dict[str, Any] = {"candidates": 9, "delta": 0.05}
STAGE = FirstStage(errors=1, profile=(0, 3, 97, 19_900, *[0] * 37))

profiles = st.lists(st.integers(0, 50), min_size=1, max_size=30).filter(any)


def counts_of(
    choosing: list[list[int]], certifying: list[list[int]], n1: int, m: int
) -> Counts:
    return Counts(
        choosing=np.array(choosing),
        certifying=np.array(certifying),
        losses=np.zeros((len(choosing), len(choosing[0]))),
        chosen_on=n1,
        certified_on=m,
    )


class TestPosteriorSplit(WeightSuite):
    recipe = PosteriorSplitRecipe(**TERMS, finalists=3)
    few = PosteriorSplitRecipe(**FEW, finalists=3)

    def test_every_finalist_is_paid_for(self) -> None:
        assert self.recipe.weight() == uniform_weight(3)
        assert PosteriorSplitRecipe(**TERMS).weight() == WEIGHT_DENOMINATOR
        assert [entry.delta for entry in self.recipe.ledger(80)] == [0.0, 0.05]

    def test_the_certifying_examples_choose_among_the_finalists(self) -> None:
        selection = self.few.select(counts_of([[0, 0, 0]], [[5, 2, 2]], 20, 20))
        assert selection.index is not None
        assert selection.index.tolist() == [1]
        assert selection.bounds.tolist() == [self.few.bound(2, 20)]

    def test_a_replay_needs_what_was_refined(self) -> None:
        with pytest.raises(CertificateError, match="certifies what is made from the choosing"):
            replay(self.few, random_table(9, 32, seed=0), 32)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"finalists": 0}, "finalists must be from 1 to 9"),
            ({"finalists": 10}, "finalists must be from 1 to 9"),
            ({"refinement": "luck"}, "unknown refinement 'luck'; this version knows"),
            ({"steps": 1}, "steps must be from 2 to"),
            ({"chains": 1.5}, "chains must be an integer"),
            ({"refinement": ["finetune"]}, "refinement must be a text"),
            ({"refinement": "finetune+luck"}, "unknown refinement 'luck'"),
            ({"refinement": ""}, "unknown refinement ''"),
            ({"refinement": "finetune+posterior_mean"}, "once, in the order posterior_mean"),
            ({"refinement": "finetune+finetune"}, "must name each algorithm once"),
            ({"refinement": "finetune", "finalists": 2}, "makes 1 finalists, not 2"),
            ({"refinement": "finetune+local_head"}, "makes 2 finalists, not 1"),
            ({"refinement": "posterior_mean+finetune"}, "makes 2 finalists or more, not 1"),
            ({"tuning_steps": 0}, "tuning_steps must be from 1 to"),
            ({"learning_rate": -0.1}, "learning_rate must not be negative"),
            ({"pull": "0.1"}, "pull must be a number"),
            ({"pull": float("nan")}, "pull must be finite"),
        ],
    )
    def test_wrong_terms_are_refused(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(CertificateError, match=message):
            PosteriorSplitRecipe(**FEW, **change)


class TestTrainedFinalists(WeightSuite):
    recipe = PosteriorSplitRecipe(
        **TERMS, finalists=4, refinement="posterior_mean+finetune+local_head"
    )
    few = PosteriorSplitRecipe(
        **FEW, finalists=4, refinement="posterior_mean+finetune+local_head"
    )

    def test_every_finalist_is_paid_for(self) -> None:
        assert self.recipe.weight() == uniform_weight(4)

    def test_each_algorithm_makes_its_own(self) -> None:
        apart = self.recipe.refined_apart()
        assert [(part.refinement, part.finalists) for part in apart] == [
            ("posterior_mean", 2), ("finetune", 1), ("local_head", 1),
        ]  # fmt: skip
        made = self.recipe.refine(Making())
        assert made.tolist() == [[20_000.0], [2.0], [0.03], [7.0]]
        assert np.concatenate([part.refine(Making()) for part in apart]).tolist() == (
            made.tolist()
        )

    def test_finalists_of_another_length_move_no_labels(self) -> None:
        both = PosteriorSplitRecipe(**TERMS, finalists=2, refinement="finetune+tuned_head")
        assert both.refine(Making()).tolist() == [[0.03, 0.0], [8.0, 9.0]]
        assert "with its head alone trained" in both.statement(80)

    def test_what_is_made_depends_on_what_is_said_alone(self) -> None:
        tuned = PosteriorSplitRecipe(**TERMS, refinement="finetune")
        assert tuned.refinement_config() == {
            "refinement": "finetune", "tuning_steps": 60, "learning_rate": 0.03, "pull": 0.01,
        }  # fmt: skip
        assert tuned.refinement_config() == replace(tuned, candidates=7).refinement_config()
        faster = replace(tuned, learning_rate=0.1)
        assert faster.refinement_config() != tuned.refinement_config()

    def test_a_recipe_from_before_is_what_it_was(self) -> None:
        config = {
            "kind": "posterior_split", "candidates": 9, "delta": 0.05, "margin_tolerance": 1e-4,
            "choose_fraction": 0.5, "finalists": 2, "refinement": "posterior_mean",
            "chains": 32, "steps": 60,
        }  # fmt: skip
        recipe = Recipe.from_config(config)
        assert recipe.to_config() == config
        assert recipe.statement(80) == (
            "40 of the 80 examples chose among 9 candidates and refined them into 2 finalists "
            "by 'posterior_mean'; the other 40 certify the adapter, and every finalist is paid "
            "for with an equal share of delta, by exact inversion of the binomial tail."
        )

    def test_it_says_what_made_the_finalists(self) -> None:
        assert (
            "made 4 finalists (the mean of the posterior given 20000 candidates; the center of "
            "the prior, fine-tuned; a head of its own on the frozen base model)"
        ) in self.recipe.statement(80)
        alone = PosteriorSplitRecipe(candidates=1, delta=0.05, refinement="finetune")
        assert "made 1 finalist (the center of the prior, fine-tuned)" in alone.statement(80)
        assert "candidates" not in alone.ledger(80)[0].purpose

    def test_a_table_has_nothing_to_train(self) -> None:
        session = TableSession(random_table(9, 32, seed=0), candidates=9, n=32)
        for name in ("finetune", "local_head", "tuned_head"):
            alone = PosteriorSplitRecipe(**FEW, refinement=name)
            with pytest.raises(CertificateError, match="no model that an adapter could be"):
                alone.refine(session)


class Making(TableSession):
    """Returns what it is asked for, and chooses nothing."""

    def __init__(self) -> None:
        pass

    def posterior_means(self, *, candidates: int, count: int, **_rest: int) -> Any:
        return np.array([[candidates], [count]], dtype=np.float64)

    def finetuned(self, *, learning_rate: float, **_rest: float) -> Any:
        return np.array([learning_rate])

    def local_head(self) -> Any:
        return np.array([7.0])

    def tuned_head(self) -> Any:
        return np.array([8.0, 9.0])  # longer: it moves the embeddings of its labels


class TestHybrid(WeightSuite):
    recipe = HybridRecipe(**TERMS)
    few = HybridRecipe(**FEW)
    choice = Choice(index=7, first_stage=STAGE)

    @settings(derandomize=True, deadline=None)
    @given(profiles, st.one_of(st.just(0.0), st.floats(1e-6, 1e6)))
    def test_all_weights_together_are_at_most_one(
        self, profile: list[int], beta: float
    ) -> None:
        recipe = HybridRecipe(candidates=sum(profile), delta=0.05, beta=beta)
        weights = recipe.weights(profile)
        total = sum(w * number for w, number in zip(weights, profile, strict=True))
        assert WEIGHT_DENOMINATOR - sum(profile) <= total <= WEIGHT_DENOMINATOR

    @settings(derandomize=True, deadline=None)
    @given(profiles)
    def test_more_errors_never_weigh_more(self, profile: list[int]) -> None:
        recipe = HybridRecipe(candidates=sum(profile), delta=0.05, beta=0.7)
        present = [w for w, c in zip(recipe.weights(profile), profile, strict=True) if c]
        assert present == sorted(present, reverse=True)

    def test_without_a_slope_it_weights_equally(self) -> None:
        recipe = HybridRecipe(candidates=100, delta=0.05, beta=0.0)
        assert recipe.weights([40, 0, 60]) == (uniform_weight(100), 0, uniform_weight(100))

    def test_the_weights_are_the_formula(self) -> None:
        weights = HybridRecipe(candidates=6, delta=0.05, beta=1.5).weights([0, 2, 4])
        total = 2 + 4 * math.exp(-1.5)
        assert weights[1] / WEIGHT_DENOMINATOR == pytest.approx(1 / total, rel=1e-14)
        assert weights[2] / WEIGHT_DENOMINATOR == pytest.approx(math.exp(-1.5) / total)

    def test_the_lowest_bound_wins_not_the_lowest_count(self) -> None:
        # Candidate 1 errs less on the certifying examples, but its weight is tiny.
        recipe = HybridRecipe(candidates=2, delta=0.05, beta=4.0)
        selection = recipe.select(counts_of([[0, 10]], [[1, 0]], 20, 20))
        assert selection.index is not None
        assert selection.index.tolist() == [0]
        counts = counts_of([[0, 10]], [[1, 0]], 20, 20)
        stage = recipe.choice(counts, selection).first_stage
        assert stage == FirstStage(errors=0, profile=(1, *[0] * 9, 1, *[0] * 10))
        bound = recipe.bound(1, 20, Choice(index=0, first_stage=stage))
        assert selection.bounds.tolist() == [bound]

    @pytest.mark.parametrize("seed", range(5))
    def test_a_certificate_says_what_the_replay_says(self, seed: int) -> None:
        table = random_table(9, 32, seed=seed)
        outcome = replay(self.few, table, 32)
        assert outcome.index is not None
        errors = table.wrong[:, self.few.choosing(32).as_slice()].sum(axis=1)
        profile = np.bincount(errors, minlength=self.few.choosing(32).size + 1)
        stage = FirstStage(errors=int(errors[outcome.index]), profile=tuple(profile.tolist()))
        choice = Choice(index=outcome.index, first_stage=stage)
        self.few.check_choice(choice, 32)
        assert self.few.bound(int(outcome.errors), outcome.trials, choice) == outcome.bound

    def test_there_is_no_bound_without_the_first_stage(self) -> None:
        for choice in (None, Choice(index=3)):
            with pytest.raises(CertificateError, match="first stage, which is missing"):
                self.recipe.bound(0, 40, choice)

    @pytest.mark.parametrize(
        ("errors", "profile", "message"),
        [
            (0, (1, 1), "must count all 20000 candidates"),
            (0, (), "must count all 20000 candidates"),
            (0, (20_001, -1), "must count all 20000 candidates"),
            (1, (20_000, 0), "no candidate made 1 errors"),
            (2, (20_000, 0), "no candidate made 2 errors"),
            (-1, (0, 20_000), "no candidate made -1 errors"),
        ],
    )
    def test_an_impossible_first_stage_is_refused(
        self, errors: int, profile: tuple[int, ...], message: str
    ) -> None:
        stage = FirstStage(errors=errors, profile=profile)
        with pytest.raises(CertificateError, match=message):
            self.recipe.bound(0, 40, Choice(index=0, first_stage=stage))

    def test_the_first_stage_speaks_about_the_choosing_examples(self) -> None:
        self.recipe.check_choice(self.choice, 80)
        with pytest.raises(CertificateError, match="entry for each of 0 to 20 errors, not 41"):
            self.recipe.check_choice(self.choice, 40)
        with pytest.raises(CertificateError, match="no candidate 20000 among 20000"):
            self.recipe.check_choice(Choice(index=20_000, first_stage=STAGE), 80)

    def test_a_negative_slope_is_refused(self) -> None:
        with pytest.raises(CertificateError, match="beta must not be negative"):
            HybridRecipe(**FEW, beta=-1.0)


class TestWeightedUnion(WeightSuite):
    recipe = WeightedUnionRecipe(**TERMS)
    few = WeightedUnionRecipe(**FEW)
    choice = Choice(index=4)

    def test_all_weights_together_are_at_most_one(self) -> None:
        weights = [self.recipe.weight(Choice(index=j)) for j in range(20_000)]
        assert weights[0] == WEIGHT_DENOMINATOR // 2
        assert Fraction(sum(weights), WEIGHT_DENOMINATOR) <= Fraction(20_000, 20_001)

    def test_there_is_no_bound_without_the_index(self) -> None:
        with pytest.raises(CertificateError, match="say which candidate"):
            self.recipe.bound(0, 80)

    def test_a_low_number_can_win_with_more_errors(self) -> None:
        counts = counts_of([[1, 9, 9, 9, 9, 9, 9, 9, 0]], [[1, 9, 9, 9, 9, 9, 9, 9, 0]], 32, 32)
        selection = self.few.select(counts)
        bounds = [self.few.bound(k, 32, Choice(index=j)) for j, k in ((0, 1), (8, 0))]
        assert selection.bounds.tolist() == [min(bounds)]


class TestMixedUnion(WeightSuite):
    recipe = MixedUnionRecipe(**TERMS, constants=3, share=0.9)
    few = MixedUnionRecipe(**FEW, constants=2)
    choice = Choice(index=4)

    @settings(derandomize=True, deadline=None)
    @given(st.data(), st.integers(3, 3000), st.floats(1e-12, 1, exclude_max=True))
    def test_all_weights_together_are_at_most_one(
        self, data: st.DataObject, candidates: int, share: float
    ) -> None:
        constants = data.draw(st.integers(2, candidates - 1))
        recipe = MixedUnionRecipe(
            candidates=candidates, delta=0.05, constants=constants, share=share
        )
        weights = [recipe.weight(Choice(index=j)) for j in range(candidates)]
        assert WEIGHT_DENOMINATOR - candidates - 1 <= sum(weights) <= WEIGHT_DENOMINATOR
        assert recipe.budgets().tolist() == [budget_of(0.05, weight) for weight in weights]
        assert sum(entry.delta for entry in recipe.ledger(40)) <= 0.05 * (1 + 1e-12)

    def test_constants_share_what_is_theirs(self) -> None:
        constant, draw = (self.recipe.weight(Choice(index=j)) for j in (2, 3))
        assert constant / WEIGHT_DENOMINATOR == pytest.approx(0.3, rel=1e-12)
        assert draw / WEIGHT_DENOMINATOR == pytest.approx(0.1 / 19_997, rel=1e-9)
        assert self.recipe.weight(Choice(index=19_999)) == draw

    def test_there_is_no_bound_without_the_index(self) -> None:
        with pytest.raises(CertificateError, match="say which candidate"):
            self.recipe.bound(0, 80)

    @pytest.mark.parametrize(("draw", "winner"), [(9, 1), (4, 1), (3, 5)])
    def test_a_draw_must_be_better_by_what_it_costs(self, draw: int, winner: int) -> None:
        recipe = MixedUnionRecipe(candidates=1000, delta=0.05, constants=2, share=0.9)
        errors = [[30, 10, 12, 11, 20, draw, *[15] * 994]]
        selection = recipe.select(counts_of(errors, errors, 40, 40))
        assert selection.index is not None
        assert selection.index.tolist() == [winner]
        choice = Choice(index=winner)
        assert selection.bounds.tolist() == [recipe.bound(errors[0][winner], 40, choice)]

    def test_nothing_is_below_the_lowest_bound(self) -> None:
        for share in (0.01, 0.5, 0.99):
            recipe = MixedUnionRecipe(candidates=500, delta=0.05, constants=100, share=share)
            bounds = [recipe.bound(0, 40, Choice(index=j)) for j in (0, 99, 100, 499)]
            assert recipe.lowest_bound(40) == min(bounds)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"constants": 1}, "constants must be from 2 to 8"),
            ({"constants": 9}, "constants must be from 2 to 8"),
            ({"constants": 2.0}, "constants must be an integer"),
            ({"constants": 2, "share": 0.0}, "share must lie between 0 and 1"),
            ({"constants": 2, "share": 1}, "share must lie between 0 and 1"),
            ({"constants": 2, "share": math.nan}, "share must be finite"),
            ({"constants": 2, "share": "half"}, "share must be a number"),
        ],
    )
    def test_wrong_terms_are_refused(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(CertificateError, match=message):
            MixedUnionRecipe(**FEW, **change)


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 20))
def test_choosing_by_the_bound_finds_the_lowest(seed: int, candidates: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    errors = rng.integers(0, m + 1, (3, candidates))
    budgets = 10.0 ** -rng.integers(1, 4, (3, candidates))
    counts = counts_of(errors.tolist(), errors.tolist(), m, m)
    found = lowest_bound(counts, budgets)
    assert found.index is not None
    for row in range(3):
        pairs = zip(errors[row].tolist(), budgets[row].tolist(), strict=True)
        bounds = [binomial_upper_bound(k, m, budget) for k, budget in pairs]
        assert found.bounds[row] == min(bounds) == bounds[found.index[row]]
        assert found.errors[row] == errors[row, found.index[row]]


class TestGibbs(RecipeSuite):
    recipe = GibbsRecipe(**TERMS)
    few = GibbsRecipe(**FEW)

    def test_equal_candidates_cost_no_divergence(self) -> None:
        counts = counts_of([[4] * 9], [[4] * 9], 40, 40)
        price = math.log(2 * math.sqrt(40) / 0.05) / 40
        assert self.few.select(counts).bounds[0] == pytest.approx(
            kl_upper_inverse(0.1, price), abs=2e-6
        )

    def test_one_good_candidate_costs_the_logarithm_of_all(self) -> None:
        counts = counts_of([[0, *[40] * 8]], [[0, *[40] * 8]], 40, 40)
        price = (math.log(9) + math.log(2 * math.sqrt(40) / 0.05)) / 40
        assert self.few.select(counts).bounds[0] == pytest.approx(
            kl_upper_inverse(0.0, price), abs=2e-6
        )

    def test_more_values_to_choose_from_never_raise_it(self) -> None:
        table = random_table(9, 32, seed=3)
        bounds = [replay(GibbsRecipe(**FEW, grid=g), table, 32).bound for g in (1, 5, 10)]
        assert bounds == sorted(bounds, reverse=True)

    def test_no_adapter_has_this_bound(self) -> None:
        with pytest.raises(CertificateError, match="certifies a randomized predictor"):
            self.recipe.bound(0, 80)

    @pytest.mark.parametrize("terms", [{"beta": 0.0}, {"beta": -1.0}, {"grid": 0}])
    def test_wrong_terms_are_refused(self, terms: dict[str, Any]) -> None:
        with pytest.raises(CertificateError, match="must be"):
            GibbsRecipe(**FEW, **terms)


class TestVote(RecipeSuite):
    recipe = VoteRecipe(**TERMS)
    few = VoteRecipe(**FEW)

    def test_it_costs_twice_the_gibbs_bound(self) -> None:
        table = random_table(9, 200, seed=0)
        gibbs = replay(GibbsRecipe(**FEW), table, 200)
        vote = replay(self.few, table, 200)
        assert vote.bound == min(1.0, 2 * gibbs.bound)

    def test_the_vote_beats_its_members_where_they_err_apart(self) -> None:
        rng = np.random.default_rng(0)
        wrong = rng.random((9, 400)) < 0.3
        table = ErrorTable(
            wrong=wrong,
            losses=wrong.astype(float),
            test_risk=np.full(9, 0.3),
            test_wrong=rng.random((9, 2_000)) < 0.3,
        )
        recipe = VoteRecipe(**FEW, beta=1e-6, grid=1)
        # 5 or more of 9 wrong at .3 each.
        assert replay(recipe, table, 400).risk == pytest.approx(0.0988, abs=0.03)

    def test_its_risk_is_unknown_without_test_predictions(self) -> None:
        table = random_table(9, 32, seed=0)
        blind = ErrorTable(wrong=table.wrong, losses=table.losses, test_risk=table.test_risk)
        assert math.isnan(replay(self.few, blind, 32).risk)


class TestCompression(WeightSuite):
    recipe = CompressionRecipe(**TERMS, dimension=12, bits_per_coordinate=2)
    few = CompressionRecipe(candidates=2, delta=0.05, dimension=3, bits_per_coordinate=2)

    def test_it_costs_its_bits(self) -> None:
        assert self.recipe.bound(3, 80) == UnionRecipe(candidates=2**24, delta=0.05).bound(
            3, 80
        )
        assert self.recipe.bound(3, 80) == binomial_upper_bound(3, 80, 0.05 * 2.0**-24)

    @pytest.mark.parametrize("dimension", [60, 899, 900, 10**9])
    def test_long_names_are_exact_or_useless(self, dimension: int) -> None:
        recipe = CompressionRecipe(
            candidates=1, delta=0.05, dimension=dimension, bits_per_coordinate=1
        )
        assert recipe.weight() == 0
        assert Fraction(recipe.budget()) <= Fraction(0.05) / 2 ** min(dimension, 2_000)
        assert (recipe.bound(0, 10**6) < 0.001) == (dimension < 900)


class TestKnownBest(WeightSuite):
    recipe = KnownBestRecipe(**TERMS)
    few = KnownBestRecipe(**FEW)

    def test_the_best_candidate_comes_for_free(self) -> None:
        table = random_table(9, 32, seed=0)
        outcome = replay(self.few, table, 32)
        best = int(table.test_risk.argmin())
        errors = int(table.wrong[best].sum())
        assert (outcome.risk, outcome.errors) == (table.test_risk[best], errors)
        assert outcome.bound == binomial_upper_bound(errors, 32, 0.05)


def test_splits_pay_alike_for_one_finalist() -> None:
    split, posterior = SplitRecipe(**TERMS), PosteriorSplitRecipe(**TERMS)
    assert [split.bound(k, 40) for k in range(41)] == [
        posterior.bound(k, 40) for k in range(41)
    ]
    assert split.bound(0, 40) == binomial_upper_bound(0, 40, budget_of(0.05, 2**53))
