"""Early dropping leaves the winner as it is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from fedcert.data import Examples
from fedcert.priors import GaussianPrior, LatentSpace
from fedcert.randomness import keyed_generator
from fedcert.search import Scorer, Scores, search
from fedcert.search.racing import _discriminating_first
from fedcert.simulations.benchmarks.dropping import exhaustive_search


class Linear(Scorer):
    """Classifies by the sign of a product; counts how many predictions it made."""

    def __init__(self) -> None:
        super().__init__(margin_tolerance=0.0)
        self.predictions = 0

    def score(
        self,
        vectors: npt.NDArray[np.float64],
        examples: Examples,
        *,
        on_scored: Callable[[int], None] = lambda _count: None,
    ) -> Scores:
        self.predictions += len(vectors) * len(examples)
        margins = vectors @ examples.inputs.T * (2 * examples.labels - 1)
        return Scores(margins <= 0, np.logaddexp(0, -margins))


def _case(number: int, size: int) -> tuple[GaussianPrior, Examples, str]:
    generator = keyed_generator("dropping", number)
    inputs = generator.normal(size=(size, 5))
    blur = generator.normal(size=size)
    labels = (inputs @ generator.normal(size=5) + blur > 0).astype(np.int64)
    prior = GaussianPrior(LatentSpace.of(generator.normal(size=(20, 5)), size=4))
    return prior, Examples(inputs, labels), f"{number:064x}"


@pytest.mark.parametrize("size", [1, 8, 9, 64, 100])
def test_dropping_early_keeps_the_winner(size: int) -> None:
    for number in range(40):
        prior, examples, seed = _case(number, size)
        winners = [
            exhaustive_search(prior, Linear(), examples, seed=seed, candidates=300),
            search(prior, Linear(), examples, seed=seed, candidates=300, chunk=300),
            search(prior, Linear(), examples, seed=seed, candidates=300, chunk=64),
        ]
        assert {(w.index, w.errors) for w in winners} == {(winners[0].index, winners[0].errors)}
        assert np.ptp([w.loss for w in winners]) < 1e-12


def test_dropping_early_saves_most_predictions() -> None:
    prior, examples, seed = _case(0, 64)
    # A candidate that is always right is what a good prior holds, nearly.
    right = (examples.inputs @ prior.sample(seed, count=2000)[17] > 0).astype(np.int64)
    examples = Examples(examples.inputs, right)
    counts = []
    for find in (exhaustive_search, search):
        scorer = Linear()
        find(prior, scorer, examples, seed=seed, candidates=2000)
        counts.append(scorer.predictions)
    assert counts[0] == 2000 * 64
    assert counts[1] < counts[0] / 3


def test_a_dropped_rival_with_as_many_errors_can_still_win_by_loss() -> None:
    # Two candidates with the same errors: the one with the lower loss wins, whichever ran
    # ahead.
    prior, examples, seed = _case(3, 64)
    winner = search(prior, Linear(), examples, seed=seed, candidates=300)
    vectors = prior.sample(seed, count=300)
    scores = Linear().score(vectors, examples)
    errors = scores.wrong.sum(axis=1)
    tied = np.nonzero(errors == errors.min())[0]
    assert winner.index == tied[np.argmin(scores.losses[tied].mean(axis=1))]


def test_discriminating_examples_come_first() -> None:
    # Eight candidates: three examples catch the same four, one catches the other four.
    wrong = np.zeros((8, 5), dtype=np.bool_)
    wrong[:4, :3] = True
    wrong[4:, 4] = True
    assert _discriminating_first(wrong).tolist()[:2] == [0, 4]
    assert sorted(_discriminating_first(wrong)) == [0, 1, 2, 3, 4]
