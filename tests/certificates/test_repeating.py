"""Choices made again: what rounding explains passes, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fedcert.certificates import (
    Choice,
    FirstStage,
    HybridRecipe,
    Recipe,
    Session,
    SplitRecipe,
    UnionRecipe,
    WeightedUnionRecipe,
)
from fedcert.certificates.bounds import WEIGHT_DENOMINATOR
from fedcert.errors import CertificateError

TOLERANCE = 1e-4
TERMS: dict[str, Any] = {"candidates": 3, "delta": 0.05, "margin_tolerance": TOLERANCE}
SPLIT = SplitRecipe(**TERMS)


class Margins(Session):
    """Candidates known by their margins, of two labels; a vector is a number."""

    def __init__(self, margins: npt.NDArray[np.float64], tolerance: float = TOLERANCE) -> None:
        self.candidates, self.n = margins.shape
        self.margins, self.tolerance = margins, tolerance

    def draw(self, *, start: int, count: int) -> npt.NDArray[np.float64]:
        return np.arange(start, start + count, dtype=np.float64)[:, None]

    def score(self, vectors: Any, span: Any) -> tuple[Any, Any]:
        margins = self.margins[vectors[:, 0].astype(int), span.as_slice()]
        return margins <= self.tolerance, np.log1p(np.exp(-margins))

    def posterior_means(self, **_options: int) -> Any:
        raise NotImplementedError

    def only(self, span: Any) -> Margins:
        return Margins(self.margins[:, span.as_slice()], self.tolerance)

    def at(self, tolerance: float) -> Margins:
        return Margins(self.margins, tolerance)


def _session(*changes: tuple[int, int, float]) -> Margins:
    """Return ten examples, on which candidate 0 is best by a little and 2 by much worse."""
    margins = np.ones((3, 10))
    margins[1], margins[2] = 0.99, -1.0
    for candidate, example, margin in changes:
        margins[candidate, example] = margin
    return Margins(margins)


def _may_choose(recipe: Recipe, choice: Choice, session: Session) -> bool:
    try:
        recipe.check_repeated(choice, session)
    except CertificateError:
        return False
    return True


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ([], False),  # as few errors, and a higher loss
        ([(1, example, 1.0) for example in range(5)], True),  # the very same
        ([(1, example, 1 - 2e-4) for example in range(5)], True),  # apart by rounding
        ([(0, 0, -1.0)], True),  # an error less
        ([(1, 0, -1.0)], False),  # an error more
        ([(0, 0, 1.5e-4)], True),  # which counts as an error where margins are rounded down
        ([(0, 0, -1.0), (1, 1, 0.5e-4)], True),  # an error that may be none
        ([(0, 0, 2.5e-4), (1, 1, -0.5e-4)], False),  # an error that is one anywhere
        ([(1, example, -1.0) for example in range(5, 10)], False),  # others do not choose
    ],
)
def test_a_candidate_may_win_where_rounding_allows_it(
    changes: list[tuple[int, int, float]], passes: bool
) -> None:
    session = _session(*changes)
    assert _may_choose(SPLIT, Choice(index=1), session) == passes
    assert not _may_choose(SPLIT, Choice(index=2), session)
    assert _may_choose(SPLIT, SPLIT.choose(session).choice, session)


def test_all_near_equal_candidates_are_named_beside_one_that_does_not_win_here() -> None:
    session = _session(*((1, example, 1 - 2e-4) for example in range(5)))
    [here] = SPLIT.check_repeated(Choice(index=1), session)
    assert here.index == 0
    assert SPLIT.check_repeated(Choice(index=0), session) == ()
    level = [(candidate, example, 1 - 2e-4) for candidate in (1, 2) for example in range(5)]
    others = SPLIT.check_repeated(Choice(index=2), _session(*level))
    assert [other.index for other in others] == [0, 1]


def test_who_picks_among_near_equal_candidates_gains_little() -> None:
    """The bound that all of them have to earn is false as often as one that is not picked.

    Beside the one that wins where it is verified that makes two chances, and no more.
    """
    rng = np.random.default_rng(0)
    candidates, m = 20, 32
    false = {"picked": 0, "earned by all": 0, "either": 0}
    episodes = 4000
    for _ in range(episodes):
        risks = rng.uniform(0.02, 0.25, candidates)
        errors = rng.binomial(m, risks)
        # The attacker wants a false bound, and knows all risks.
        bounds = np.array([SPLIT.bound(int(each), m) for each in errors])
        false["picked"] += bool((bounds < risks).any())
        allowed = errors == errors.max()
        by_all = bool((bounds < risks)[allowed].any())
        false["earned by all"] += by_all
        # Candidate 0 wins on the choosing examples.
        false["either"] += by_all or bool(bounds[0] < risks[0])
    assert false["picked"] > 2 * SPLIT.delta * episodes
    assert false["earned by all"] < SPLIT.delta * episodes
    assert false["either"] < 2 * SPLIT.delta * episodes


def test_who_pays_for_all_candidates_may_choose_any() -> None:
    for recipe in (UnionRecipe(**TERMS), WeightedUnionRecipe(**TERMS)):
        assert all(_may_choose(recipe, Choice(index=index), _session()) for index in range(3))


@pytest.mark.parametrize(
    ("index", "errors", "profile", "passes"),
    [
        (0, 0, (2, 0, 0, 0, 0, 1), True),
        (1, 0, (2, 0, 0, 0, 0, 1), True),  # any candidate, at its own weight
        (2, 5, (2, 0, 0, 0, 0, 1), True),
        (2, 0, (2, 0, 0, 0, 0, 1), False),
        (0, 0, (1, 0, 0, 0, 0, 2), False),  # all others worse than they are
        (0, 0, (1, 1, 0, 0, 0, 1), False),
        (0, 0, (3, 0, 0, 0, 0, 0), False),
    ],
)
def test_a_first_stage_is_counted_again(
    index: int, errors: int, profile: tuple[int, ...], passes: bool
) -> None:
    recipe = HybridRecipe(**TERMS)
    choice = Choice(index=index, first_stage=FirstStage(errors=errors, profile=profile))
    assert _may_choose(recipe, choice, _session()) == passes


def test_a_first_stage_may_differ_by_what_rounding_explains() -> None:
    recipe = HybridRecipe(**TERMS)
    session = _session((1, 0, 1.5e-4))  # right here, an error elsewhere
    for profile in [(2, 0, 0, 0, 0, 1), (1, 1, 0, 0, 0, 1)]:
        choice = Choice(index=0, first_stage=FirstStage(errors=0, profile=profile))
        assert _may_choose(recipe, choice, session)
    choice = Choice(index=0, first_stage=FirstStage(errors=0, profile=(1, 0, 1, 0, 0, 1)))
    assert not _may_choose(recipe, choice, session)


def test_a_first_stage_that_rounding_favors_is_returned_with_the_weight_it_has_here() -> None:
    """Taking for each candidate what favors it, weights add up to more than one."""
    recipe = HybridRecipe(**TERMS)
    session = _session((1, 0, 1.5e-4))  # right here, an error elsewhere
    stages = [
        FirstStage(errors=0, profile=(2, 0, 0, 0, 0, 1)),
        FirstStage(errors=0, profile=(1, 1, 0, 0, 0, 1)),
        FirstStage(errors=1, profile=(1, 1, 0, 0, 0, 1)),
    ]
    chosen = [Choice(index=0, first_stage=stage) for stage in stages[:2]]
    assert sum(recipe.weight(each) for each in reversed(chosen)) > WEIGHT_DENOMINATOR
    assert recipe.check_repeated(chosen[0], session) == ()
    [here] = recipe.check_repeated(chosen[1], session)
    assert here.choice == chosen[0]
    assert recipe.weight(here.choice) < recipe.weight(chosen[1])
    # Nobody gains by the weight that rounding takes from a candidate.
    assert recipe.check_repeated(Choice(index=1, first_stage=stages[2]), session) == ()


def test_a_rule_of_ones_own_is_made_again() -> None:
    class Last(SplitRecipe):
        def choose(self, session: Session) -> Any:
            return session.candidate(2)

    recipe = Last(**TERMS)
    assert _may_choose(recipe, Choice(index=2), _session())
    with pytest.raises(CertificateError, match="chooses 2 from these examples, not 0"):
        recipe.check_repeated(Choice(index=0), _session())
