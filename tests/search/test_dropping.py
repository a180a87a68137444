"""Early dropping and sharding leave the winner as it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fedcert.data import Examples
from fedcert.priors import GaussianPrior, LatentSpace
from fedcert.randomness import keyed_generator
from fedcert.search import Scorer, Scores, search
from fedcert.search.racing import _telling_first
from fedcert.simulations.sharding import best_winner, search_on_ray, shard_ranges


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
            search(
                prior,
                Linear(),
                examples,
                seed=seed,
                candidates=300,
                chunk=chunk,
                early_dropping="exact" if dropping else "none",
            )
            for chunk, dropping in ((300, False), (300, True), (64, True))
        ]
        assert {(w.index, w.errors) for w in winners} == {(winners[0].index, winners[0].errors)}
        assert np.ptp([w.loss for w in winners]) < 1e-12


def test_dropping_early_saves_most_predictions() -> None:
    prior, examples, seed = _case(0, 64)
    # A candidate that is always right is what a good prior holds, nearly.
    right = (examples.inputs @ prior.sample(seed, count=2000)[17] > 0).astype(np.int64)
    examples = Examples(examples.inputs, right)
    counts = []
    for dropping in (False, True):
        scorer = Linear()
        search(
            prior,
            scorer,
            examples,
            seed=seed,
            candidates=2000,
            early_dropping="exact" if dropping else "none",
        )
        counts.append(scorer.predictions)
    assert counts[0] == 2000 * 64
    assert counts[1] < counts[0] / 3


def test_a_dropped_rival_with_as_many_errors_can_still_win_by_loss() -> None:
    # Two candidates with the same errors: the one with the lower loss wins, whichever ran
    # ahead.
    prior, examples, seed = _case(3, 64)
    full = search(prior, Linear(), examples, seed=seed, candidates=300, early_dropping="none")
    vectors = prior.sample(seed, count=300)
    scores = Linear().score(vectors, examples)
    errors = scores.wrong.sum(axis=1)
    tied = np.nonzero(errors == errors.min())[0]
    assert full.index == tied[np.argmin(scores.losses[tied].mean(axis=1))]


@pytest.mark.parametrize("shards", [1, 2, 3, 7, 300])
def test_the_winner_does_not_depend_on_the_number_of_shards(shards: int) -> None:
    prior, examples, seed = _case(1, 30)
    whole = search(prior, Linear(), examples, seed=seed, candidates=300)
    parts = [
        search(prior, Linear(), examples, seed=seed, candidates=count, start=start)
        for start, count in shard_ranges(300, shards)
    ]
    best = best_winner(parts)
    assert (best.index, best.errors) == (whole.index, whole.errors)
    np.testing.assert_array_equal(best.vector, whole.vector)


def test_shards_cover_every_candidate_once() -> None:
    for candidates, shards in ((10, 3), (3, 10), (1000, 7)):
        ranges = shard_ranges(candidates, shards)
        numbers = [j for start, count in ranges for j in range(start, start + count)]
        assert numbers == list(range(candidates))


@pytest.mark.slow
def test_shards_run_on_ray() -> None:
    ray = pytest.importorskip("ray")
    prior, examples, seed = _case(2, 30)
    whole = search(prior, Linear(), examples, seed=seed, candidates=300)
    # The workers cannot import this file.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        found = search_on_ray(prior, Linear, examples, seed=seed, candidates=300, shards=2)
    finally:
        ray.shutdown()
    assert (found.index, found.errors) == (whole.index, whole.errors)


class Sketched(GaussianPrior):
    """Draws sketches that are off by a little; counts candidates drawn in full."""

    drawn = 0

    def transform(self, noise: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        self.drawn += len(noise)
        return super().transform(noise)

    def sketch(self) -> GaussianPrior:
        return _Coarse(self._latent)


class _Coarse(GaussianPrior):
    def transform(self, noise: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return super().transform(noise) + 0.005 * np.sin(40 * noise[:, :1])


def _sketched_case(number: int, size: int) -> tuple[Sketched, Examples, str]:
    generator = keyed_generator("halving", number)
    prior = Sketched(LatentSpace.of(generator.normal(size=(20, 5)), size=4))
    seed = f"{number:064x}"
    inputs = generator.normal(size=(size, 5))
    # A candidate that is nearly right exists, as with a prior that is good for something.
    blur = 0.1 * generator.normal(size=size)
    labels = (inputs @ prior.sample(seed, count=2000)[17] + blur > 0).astype(np.int64)
    prior.drawn = 0
    return prior, Examples(inputs, labels), seed


def test_halving_keeps_most_winners_and_draws_few_in_full() -> None:
    kept, drawn = [], 0
    for number in range(20):
        prior, examples, seed = _sketched_case(number, 64)
        found = search(
            prior, Linear(), examples, seed=seed, candidates=2000, early_dropping="halving"
        )
        drawn += prior.drawn
        full = search(
            prior, Linear(), examples, seed=seed, candidates=2000, early_dropping="none"
        )
        kept.append(found.index == full.index)
        # What it reports is the candidate as drawn in full, never its sketch.
        vector = prior.sample(seed, start=found.index, count=1)
        np.testing.assert_allclose(found.vector, vector[0], rtol=0, atol=1e-12)
        assert found.errors == Linear().score(vector, examples).wrong.sum()
        assert found.errors >= full.errors
    assert np.mean(kept) >= 0.9
    assert drawn < 20 * 2000 / 4


def test_halving_on_a_handful_of_examples_or_candidates() -> None:
    for size, candidates in ((3, 50), (64, 1), (9, 2)):
        prior, examples, seed = _sketched_case(1, size)
        found = search(
            prior,
            Linear(),
            examples,
            seed=seed,
            candidates=candidates,
            chunk=16,
            early_dropping="halving",
        )
        assert 0 <= found.index < candidates


def test_telling_examples_come_first() -> None:
    # Eight candidates: three examples catch the same four, one catches the other four.
    wrong = np.zeros((8, 5), dtype=np.bool_)
    wrong[:4, :3] = True
    wrong[4:, 4] = True
    assert _telling_first(wrong).tolist()[:2] == [0, 4]
    assert sorted(_telling_first(wrong)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("mode", [False, "sometimes"])
def test_an_unknown_mode_is_refused(mode: Any) -> None:
    prior, examples, seed = _case(0, 9)
    with pytest.raises(ValueError, match="early_dropping is one of"):
        search(prior, Linear(), examples, seed=seed, candidates=5, early_dropping=mode)
