"""Which candidate wins: the lowest (errors, loss, index), however the search is cut up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tiny_models import Family

from fedcert.adapters import Task
from fedcert.data import Examples
from fedcert.priors import GaussianPrior, ResamplingPrior
from fedcert.randomness import keyed_generator
from fedcert.search import BatchedScorer, ReferenceScorer, Scorer, Scores, search
from fedcert.search.scores import margins_and_losses

SEED = "0123456789abcdef" * 4
NOTHING = Examples(np.zeros((4, 1)), np.zeros(4, dtype=np.int64))


def _scores(errors: list[int], losses: list[float]) -> Scores:
    wrong = np.arange(4) < np.array(errors)[:, None]
    return Scores(wrong, np.repeat(np.array(losses)[:, None], 4, axis=1))


@pytest.mark.parametrize(
    ("errors", "losses", "winner"),
    [
        ([2, 1, 3], [0.1, 0.9, 0.0], 1),
        ([1, 1, 1], [0.5, 0.2, 0.3], 1),
        ([1, 1, 1], [0.2, 0.2, 0.2], 0),
        ([2, 1, 1], [0.1, 0.3, 0.3], 1),
        ([4, 4], [np.inf, np.inf], 0),
        ([1, 1], [np.inf, 9.0], 1),
    ],
)
def test_errors_then_loss_then_index(
    errors: list[int], losses: list[float], winner: int
) -> None:
    assert _scores(errors, losses).best() == (winner, errors[winner], losses[winner])


def test_only_the_given_examples_choose() -> None:
    wrong = np.array([[1, 0, 0, 0], [0, 1, 1, 1]], dtype=bool)
    scores = Scores(wrong, np.array([[9, 1, 1, 1], [0, 2, 2, 2]], dtype=float))
    assert scores.best() == (0, 1, 3.0)
    assert scores.best(slice(0, 1)) == (1, 0, 0.0)
    assert scores.best(slice(1, 4)) == (0, 0, 1.0)


class _FromVector(Scorer):
    """Reads errors and loss off the first two coordinates of a candidate."""

    def __init__(self, rule: Callable[[np.ndarray], Scores]) -> None:
        super().__init__(margin_tolerance=0.0)
        self._rule = rule

    def score(
        self,
        vectors: np.ndarray,
        examples: Examples,
        *,
        on_scored: Callable[[int], None] = lambda _count: None,
    ) -> Scores:
        on_scored(len(vectors))
        return self._rule(vectors)


def _by_sign(vectors: np.ndarray) -> Scores:
    errors = np.where(vectors[:, 0] > 0, 1, 2)
    return _scores(list(errors), [round(value) for value in vectors[:, 1]])


@pytest.mark.parametrize("chunk", [1, 2, 7, 49, 50, 1024])
def test_the_chunk_does_not_change_the_winner(chunk: int) -> None:
    """Even when many candidates tie on errors and loss."""
    pool = keyed_generator("winner").standard_normal((40, 3)) @ np.diag([1.0, 1.5, 0.1])
    prior, counts = GaussianPrior.fit(pool, seed=0), []
    winner = search(
        prior,
        _FromVector(_by_sign),
        NOTHING,
        seed=SEED,
        candidates=50,
        chunk=chunk,
        on_scored=counts.append,
    )
    vectors = prior.sample(SEED, count=50)
    scores = _by_sign(vectors)
    rows = zip(scores.wrong.sum(axis=1), scores.losses[:, 0], range(50), strict=True)
    ties = [(int(errors), loss, index) for errors, loss, index in rows]
    assert (winner.errors, winner.loss, winner.index) == min(ties)
    assert sum((e, x) == min(ties)[:2] for e, x, _ in ties) > 1
    np.testing.assert_allclose(winner.vector, vectors[winner.index], atol=1e-12)
    assert sum(counts) == 50


@pytest.mark.parametrize("memory_mib", [1e-6, 0.1, 256])
@pytest.mark.parametrize("chunk", [5, 64])
def test_nor_does_the_memory_of_the_batched_scorer(
    vit: Family, chunk: int, memory_mib: float
) -> None:
    model = vit.adapted()
    pool = keyed_generator("pool").standard_normal((30, model.space.dimension))
    prior, examples = GaussianPrior.fit(pool, seed=0), vit.examples(12)
    scorer = BatchedScorer(model, margin_tolerance=1e-4, memory_mib=memory_mib)
    winner = search(
        prior,
        scorer,
        examples,
        seed=SEED,
        candidates=40,
        chunk=chunk,
    )
    reference = ReferenceScorer(Task(vit.base, model.space, vit.inputs), margin_tolerance=1e-4)
    scores = reference.score(prior.sample(SEED, count=40), examples)
    assert (winner.index, winner.errors) == scores.best()[:2]
    assert winner.index >= 5  # not in the first chunk


@pytest.mark.parametrize("chunk", [1, 7, 1024])
def test_of_equal_candidates_the_first_wins(chunk: int) -> None:
    """Pool resampling draws the same adapter many times."""
    pool = keyed_generator("pool").standard_normal((5, 3))
    prior = ResamplingPrior.fit(pool, seed=0)
    scorer = _FromVector(_by_sign)
    winner = search(prior, scorer, NOTHING, seed=SEED, candidates=40, chunk=chunk)
    equal = (prior.sample(SEED, count=40) == winner.vector).all(axis=1)
    assert equal.sum() > 3
    assert winner.index == int(np.argmax(equal))


@pytest.mark.parametrize("memory_mib", [1e-6, 0.1, 0.3, 256])
def test_equal_candidates_score_alike(vit: Family, memory_mib: float) -> None:
    """Up to rounding, which may differ with the place in a batch: any of them may win then."""
    model, examples = vit.adapted(), vit.examples(12)
    pool = keyed_generator("pool").standard_normal((5, model.space.dimension))
    vectors = ResamplingPrior.fit(pool, seed=0).sample(SEED, count=40)
    scorer = BatchedScorer(model, margin_tolerance=1e-4, memory_mib=memory_mib)
    scores = scorer.score(vectors, examples)
    for vector in pool:
        equal = (vectors == vector).all(axis=1)
        assert equal.any()
        np.testing.assert_allclose(np.ptp(scores.losses[equal], axis=0), 0, atol=1e-5)


def test_a_search_needs_a_candidate() -> None:
    prior = ResamplingPrior(np.ones((1, 3)))
    with pytest.raises(ValueError, match="at least one candidate"):
        search(prior, _FromVector(_by_sign), NOTHING, seed=SEED, candidates=0)


def test_margins_and_losses_of_known_logits() -> None:
    logits = torch.tensor([[[2.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 3.0, 1.0]]])
    margins, losses = margins_and_losses(logits, torch.tensor([0, 1, 2]))
    np.testing.assert_allclose(margins, [[1.0, 0.0, -2.0]])
    expected = torch.nn.functional.cross_entropy(
        logits[0].double(), torch.tensor([0, 1, 2]), reduction="none"
    )
    np.testing.assert_allclose(losses[0], expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 1])
def test_a_logit_that_is_not_finite_is_an_error(bad: float, where: int) -> None:
    """Even where an infinity would make the right class win."""
    logits = torch.tensor([[[5.0, 0.0], [5.0, 0.0]]])
    logits[0, 1, where] = bad
    margins, losses = margins_and_losses(logits, torch.tensor([0, 0]))
    assert margins.tolist() == [[5.0, -np.inf]]
    assert losses[0, 1] == np.inf
    assert losses[0, 0] < 0.01
