"""Scores of candidates, and which candidate wins."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fedcert.data.examples import ALWAYS_WRONG, Examples

__all__ = ["Scorer", "Scores", "margins_and_losses"]


@dataclass(frozen=True)
class Scores:
    """Scores of candidates on one set of examples.

    Attributes
    ----------
    wrong : numpy.ndarray
        Bool, shape ``(candidates, examples)``: predictions that count as errors.
    losses : numpy.ndarray
        Float64, shape ``(candidates, examples)``: cross-entropy, nats.
    """

    wrong: npt.NDArray[np.bool_]
    losses: npt.NDArray[np.float64]

    def led_by(self, first: Scores) -> Scores:
        """Return these scores with the first candidates' replaced by those of others."""
        count = len(first.wrong)
        return Scores(
            np.concatenate([first.wrong, self.wrong[count:]]),
            np.concatenate([first.losses, self.losses[count:]]),
        )

    def best(self, rows: slice = slice(None)) -> tuple[int, int, float]:
        """Return index, errors and mean loss of the winner on some of the examples.

        The winner is the lowest (errors, loss, index).
        """
        errors = self.wrong[:, rows].sum(axis=1)
        losses = self.losses[:, rows].mean(axis=1)
        order = np.lexsort((losses, errors))  # stable: equal ones stay in index order
        winner = int(order[0])
        return winner, int(errors[winner]), float(losses[winner])


class Scorer(ABC):
    """Something that scores candidate adapters on fixed examples.

    Parameters
    ----------
    margin_tolerance : float
        A prediction whose true-class logit does not exceed every other by more than this
        counts as an error, so that rounding on another machine cannot add errors.
    """

    def __init__(self, *, margin_tolerance: float) -> None:
        self.margin_tolerance = margin_tolerance

    @abstractmethod
    def score(
        self,
        vectors: npt.NDArray[np.float64],
        examples: Examples,
        *,
        on_scored: Callable[[int], None] = lambda _count: None,
    ) -> Scores:
        """Score candidates.

        Parameters
        ----------
        vectors : numpy.ndarray
            Shape ``(candidates, d)``.
        examples : Examples
            What to score on.
        on_scored : callable
            Called with the number of candidates that were scored since the last call.

        Returns
        -------
        Scores
            Errors and losses of every candidate on every example.
        """

    @property
    def device(self) -> torch.device:
        """Where candidates are scored."""
        return torch.device("cpu")

    def split(
        self, examples: Examples, parts: Sequence[npt.NDArray[np.int64]]
    ) -> list[Examples]:
        """Split examples into parts, given as row numbers, that are scored in turn.

        A scorer may carry over what it knows of the whole.
        """
        return [examples.take(rows) for rows in parts]


def margins_and_losses(
    logits: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return margin and cross-entropy of predictions ``(..., n, K)`` for labels ``(n,)``.

    The margin is the true class's logit minus the largest other. A logit that is not
    finite gives a margin of minus infinity and an infinite loss: it failed to evaluate. An
    example that is `ALWAYS_WRONG` gives minus infinity too, and no loss, which would be the
    same for all candidates.
    """
    logits = logits.double()
    fair = labels != ALWAYS_WRONG
    index = labels.clamp(min=0).expand(logits.shape[:-1])[..., None]
    own = logits.gather(-1, index)[..., 0]
    others = logits.scatter(-1, index, -torch.inf).amax(dim=-1)
    losses = torch.logsumexp(logits, dim=-1) - own
    finite = logits.isfinite().all(dim=-1)
    margins = torch.where(finite & fair, own - others, -torch.inf)
    return margins, torch.where(fair, torch.where(finite, losses, torch.inf), 0.0)
