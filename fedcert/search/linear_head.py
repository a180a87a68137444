"""A head whose logits are linear in features: where it is in an adapter, and what it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedcert.adapters.forward import AdaptedModel
from fedcert.arrays import FloatArray
from fedcert.data.examples import Examples
from fedcert.devices import exact_float32
from fedcert.models.encoder import TASK_HEAD
from fedcert.search.batched import BatchedScorer

__all__ = ["LinearHead"]

# Part of what "local_head" and "tuned_head" mean: certificates are repeated by it. The first
# are for features of length 1, the second for moves of embeddings of length 1.
_TRAINED = (1e-1, 1e-2, 1e-3, 1e-4)
_FROM_NAMES = (10.0, 1.0, 0.1, 0.01)


@dataclass(frozen=True, eq=False)
class LinearHead:
    """The linear head of one adapter.

    Attributes
    ----------
    start : numpy.ndarray
        The adapter, with the coordinates of all that the head can learn.
    weight : numpy.ndarray
        What its features are multiplied with, shape ``(K, width)``.
    at : int
        Where weights, or how far they are moved, begin in the adapter.
    trained : bool
        Whether weights are the adapter's own, and a bias for each label follows after them;
        else how far they are from the embeddings of the labels' names is.
    """

    start: FloatArray
    weight: FloatArray
    at: int
    trained: bool

    @classmethod
    def of(cls, model: AdaptedModel, start: FloatArray) -> LinearHead:
        """Find the head of an adapter.

        Parameters
        ----------
        model : AdaptedModel
            A model whose head is linear: `fedcert.search.learning.has_linear_head`.
        start : numpy.ndarray
            The adapter, shape ``(d,)``.
        """
        space = model.space
        if space.names_head:
            names: Any = model.base.model.get_submodule("task_head")
            weight = names.get_buffer("label_embeddings").cpu().double().numpy()
            padded = np.concatenate([start, np.zeros(weight.size)])
            return cls(padded, weight, len(start), trained=False)
        labels, width = space.head[0].shape
        at = space.dimension - labels * width - labels
        weight = start[at : at + labels * width].reshape(labels, width)
        return cls(start.copy(), weight, at, trained=True)

    @property
    def penalties(self) -> tuple[float, ...]:
        """Strengths of the pull to the start, among which the choosing examples choose."""
        return _TRAINED if self.trained else _FROM_NAMES

    @property
    def width(self) -> int:
        """Number of features."""
        return int(self.weight.shape[1])

    def moved(self, moves: FloatArray) -> FloatArray:
        """Return the adapter with weights and biases moved, ``(K, width)`` or one more."""
        adapter = self.start.copy()
        size = self.weight.size
        adapter[self.at : self.at + size] += moves[:, : self.width].ravel()
        if self.trained:
            adapter[self.at + size :] += moves[:, -1]
        return adapter

    def gathered(self, features: FloatArray, labels: npt.NDArray[np.int64]) -> FloatArray:
        """Return the moves that some examples give at once, before anything is trained.

        The embedding of a label's name counts as one example of the label, and the label moves
        to the mean of all of them. A head of weights stays where it is.

        Parameters
        ----------
        features : numpy.ndarray
            Shape ``(n, h)``.
        labels : numpy.ndarray
            Shape ``(n,)``.

        Returns
        -------
        numpy.ndarray
            Shape ``(K, h)``.
        """
        moves = np.zeros((len(self.weight), features.shape[1]))
        if self.trained:
            return moves
        lengths = np.linalg.norm(features, axis=1, keepdims=True)
        units = features / np.where(lengths > 0, lengths, 1.0)
        np.add.at(moves, labels, units - self.weight[labels])
        return moves / (1 + np.bincount(labels, minlength=len(moves)))[:, None]

    def features(self, scorer: BatchedScorer, examples: Examples) -> FloatArray:
        """Return what the head multiplies with its weights, shape ``(n, width)``.

        Where row k of the weights is the unit vector of feature j, that feature is the logit of
        label k. What is below the head does not know of its weights, so it runs once.
        """
        labels, width = self.weight.shape
        units = np.zeros((-(-width // labels), labels, width))
        places = np.arange(width)
        units[places // labels, places % labels, places] = 1.0
        probes = np.tile(self.start, (len(units), 1))
        size = self.weight.size
        probes[:, self.at : self.at + size] += (units - self.weight).reshape(len(units), size)
        if self.trained:
            probes[:, self.at + size :] = 0.0
        logits = self._logits(scorer, probes, examples)
        flat = logits.double().numpy().transpose(1, 0, 2).reshape(len(examples), -1)
        return np.asarray(flat[:, :width])

    def _logits(
        self, scorer: BatchedScorer, probes: FloatArray, examples: Examples
    ) -> torch.Tensor:
        """Return the logits of adapters that differ in the head alone, ``(C, n, K)``."""
        model, start = scorer.model, f"{TASK_HEAD}."
        if model.space.head[0].name.startswith(start):
            given = scorer.given_to(TASK_HEAD, self.start, examples.inputs)
            if given is not None:
                head: Any = model.base.model.get_submodule(TASK_HEAD)
                space = model.space.holding(probes.shape[1], labels=model.base.num_labels)
                tensors = {
                    name.removeprefix(start): part.to(model.device)
                    for name, part in space.split(torch.from_numpy(probes).float()).items()
                    if name.startswith(start)
                }
                stacked = given.to(model.device).repeat(len(probes), 1)
                with torch.inference_mode(), exact_float32():
                    logits: torch.Tensor = head.stacked(stacked, tensors).cpu()
                return logits.reshape(len(probes), len(given), -1)
        return torch.cat([part for _, part in scorer.logits(probes, examples.inputs)])
