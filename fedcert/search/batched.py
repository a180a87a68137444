"""The batched scorer: many candidates per forward pass over a shared frozen model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedcert.adapters.forward import AdaptedModel
from fedcert.data.examples import Examples
from fedcert.data.inputs import InputSpec
from fedcert.search.scores import Scorer, Scores, margins_and_losses

__all__ = ["BatchedScorer"]


class BatchedScorer(Scorer):
    """Scores as many candidates at a time as a memory budget allows.

    Parameters
    ----------
    model : AdaptedModel
        The frozen model.
    spec : InputSpec
        How inputs are encoded.
    margin_tolerance : float
        See `Scorer`.
    memory_mib : float (default: 64)
        For activations; decides how many candidates run at once, not the result.
    """

    def __init__(
        self,
        model: AdaptedModel,
        spec: InputSpec,
        *,
        margin_tolerance: float,
        memory_mib: float = 64.0,
    ) -> None:
        super().__init__(margin_tolerance=margin_tolerance)
        self._model, self._spec, self._memory = model, spec, memory_mib * 2**20

    def score(
        self,
        vectors: npt.NDArray[np.float64],
        examples: Examples,
        *,
        on_scored: Callable[[int], None] = lambda _count: None,
    ) -> Scores:
        """Score candidates chunk by chunk."""
        labels = torch.from_numpy(examples.labels)
        wrong = np.empty((len(vectors), len(examples)), dtype=np.bool_)
        losses = np.empty((len(vectors), len(examples)))
        for rows, logits in self._logits(vectors, examples.inputs):
            margins, loss = margins_and_losses(logits, labels)
            wrong[rows] = (margins <= self.margin_tolerance).numpy()
            losses[rows] = loss.numpy()
            on_scored(rows.stop - rows.start)
        return Scores(wrong, losses)

    def predict(
        self, vectors: npt.NDArray[np.float64], inputs: npt.NDArray[Any]
    ) -> npt.NDArray[np.int64]:
        """Return the predicted class of each candidate for each input, ``(M, n)``."""
        predicted = np.empty((len(vectors), len(inputs)), dtype=np.int64)
        for rows, logits in self._logits(vectors, inputs):
            predicted[rows] = logits.argmax(dim=-1).numpy()
        return predicted

    def _logits(
        self, vectors: npt.NDArray[np.float64], inputs: npt.NDArray[Any]
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield the rows of each chunk with its logits ``(chunk, n, K)``."""
        with torch.inference_mode():
            prepared = self._model.prepare(self._spec.encode(inputs))
            chunk = max(1, int(self._memory // (4 * self._model.floats_per_adapter(prepared))))
            for start in range(0, len(vectors), chunk):
                part = torch.from_numpy(vectors[start : start + chunk]).float()
                yield slice(start, start + len(part)), self._model.logits(prepared, part)
