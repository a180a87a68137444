"""The batched scorer: many candidates per forward pass over a shared frozen model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedcert.adapters.forward import AdaptedModel, PreparedInputs
from fedcert.data.examples import Examples
from fedcert.data.inputs import InputSpec
from fedcert.search.grouping import length_groups
from fedcert.search.scores import Scorer, Scores, margins_and_losses

__all__ = ["BatchedScorer"]

_Groups = list[tuple[torch.Tensor, PreparedInputs]]

# Sets of inputs whose frozen layers are kept; a search scores a few parts in turn.
_KEPT_INPUTS = 16
# Candidates whose logits are kept at once.
_BLOCK = 512
# Activations beyond this no longer fit the processor's caches, and more is slower.
_CACHE_FRIENDLY = 16 * 2**20


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
        self._model, self._memory = model, memory_mib * 2**20
        self._spec = spec.bound_to(model.base)
        self._known: dict[int, tuple[npt.NDArray[Any], _Groups]] = {}

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
        """Yield blocks of candidates with their logits ``(block, n, K)``."""
        with torch.inference_mode():
            groups = self._prepared(inputs)
            for start in range(0, len(vectors), _BLOCK):
                block = torch.from_numpy(vectors[start : start + _BLOCK]).float()
                logits = torch.empty(len(block), len(inputs), self._model.base.num_labels)
                for rows, prepared in groups:
                    chunk = self._chunk(prepared)
                    for first in range(0, len(block), chunk):
                        part = slice(first, first + chunk)
                        logits[part, rows] = self._model.logits(prepared, block[part])
                yield slice(start, start + len(block)), logits

    def _prepared(self, inputs: npt.NDArray[Any]) -> _Groups:
        """Run the frozen layers, once for all calls with the same inputs."""
        key = id(inputs)
        if key not in self._known:
            encoded = self._spec.encode(inputs)
            # Where the top layer alone is adapted, padding costs next to nothing, and small
            # groups would.
            whole = [(torch.arange(len(inputs)), encoded)]
            groups = whole if self._model.top_only else length_groups(encoded)
            prepared = [(rows, self._model.prepare(part)) for rows, part in groups]
            if len(self._known) >= _KEPT_INPUTS:
                self._known.pop(next(iter(self._known)))
            # The array is kept along, so that its id stays its own.
            self._known[key] = (inputs, prepared)
        return self._known[key][1]

    def _chunk(self, prepared: PreparedInputs) -> int:
        """Return how many candidates to run at once: within the budget and the cache."""
        budget = min(self._memory, _CACHE_FRIENDLY)
        return max(1, int(budget // (4 * self._model.floats_per_adapter(prepared))))
