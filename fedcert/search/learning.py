"""Adapters that are trained on a client's choosing examples, as finalists of a split.

Both repeat themselves up to rounding: all examples in each step, and no random number.
"""

from __future__ import annotations

from math import prod

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax

from fedcert.adapters.finetune import FinetuneSettings, descend
from fedcert.adapters.space import AdapterSpace
from fedcert.data.examples import Examples
from fedcert.errors import CertificateError
from fedcert.priors.base import FloatArray
from fedcert.search.batched import BatchedScorer
from fedcert.search.scores import Scorer
from fedcert.threads import torch_threads

__all__ = ["finetuned", "has_linear_head", "local_head"]

# Part of what "local_head" means: certificates are repeated by it.
_PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4)
_FOLDS = 4


def finetuned(
    scorer: Scorer,
    examples: Examples,
    center: FloatArray,
    *,
    steps: int,
    learning_rate: float,
    pull: float,
) -> FloatArray:
    """Train an adapter from the center on examples; from one label alone nothing is learned.

    Parameters
    ----------
    scorer : Scorer
        Its model is trained on.
    examples : Examples
        The choosing examples; none that certifies may be among them.
    center : numpy.ndarray
        Where training begins, shape ``(d,)``.
    steps : int
        Steps of Adam, on all examples each.
    learning_rate : float
        Falls linearly to zero.
    pull : float
        Factor of half the squared distance to the center in the loss.

    Returns
    -------
    numpy.ndarray
        Float64, shape ``(d,)``.

    Raises
    ------
    CertificateError
        If the scorer has no model that could be trained.
    """
    batched, usable = _trainable(scorer), examples.usable
    if len(np.unique(usable.labels)) < 2:
        return center
    start = torch.from_numpy(center).float()[None].to(batched.model.device)
    shift = torch.zeros_like(start, requires_grad=True)
    with torch_threads(1):
        descend(
            batched.model,
            usable,
            [shift],
            lambda: start + shift,
            seed=0,
            settings=FinetuneSettings(
                steps=steps,
                batch_size=len(usable),
                learning_rate=learning_rate,
                weight_decay=pull,
            ),
        )
    moved = shift.detach()[0].cpu().double().numpy()
    return np.asarray(center + moved, dtype=np.float64)


def has_linear_head(space: AdapterSpace) -> bool:
    """Return whether a model's logits are one linear map of its features, trained in full."""
    shapes = [tensor.shape for tensor in space.head]
    return len(shapes) == 2 and len(shapes[0]) == 2 and shapes[1] == shapes[0][:1]


def local_head(scorer: Scorer, examples: Examples) -> FloatArray:
    """Train a logistic regression on the features of the frozen base model.

    Features and weights are in the adapter space: R = 0 of every target, and the head. The
    penalty is chosen by the loss on held-out folds of the same examples.

    Parameters
    ----------
    scorer : Scorer
        Its model's features are taken.
    examples : Examples
        The choosing examples; none that certifies may be among them.

    Returns
    -------
    numpy.ndarray
        Float64, shape ``(d,)``.

    Raises
    ------
    CertificateError
        If the scorer has no such model, or the model no such head.
    """
    batched, usable = _trainable(scorer), examples.usable
    space = batched.model.space
    if not has_linear_head(space):
        raise CertificateError(
            "a local head needs a base model whose head is one linear layer, with a bias; this "
            "one has another head"
        )
    adapter = np.zeros(space.dimension)
    if len(usable) == 0:
        return adapter
    features = _features(batched, usable)
    scale = float(np.sqrt(np.mean(np.sum(features**2, axis=1)))) or 1.0
    weights = _regression(
        np.column_stack([features / scale, np.ones(len(features))]),
        usable.labels,
        batched.model.base.num_labels,
    )
    head = np.concatenate([(weights[:, :-1] / scale).ravel(), weights[:, -1]])
    adapter[-len(head) :] = head
    return adapter


def _trainable(scorer: Scorer) -> BatchedScorer:
    if not isinstance(scorer, BatchedScorer):
        raise CertificateError("this session has no model that an adapter could be trained on")
    return scorer


def _features(scorer: BatchedScorer, examples: Examples) -> FloatArray:
    """Return what the head reads of each example, shape ``(n, h)``.

    A head whose row k is the unit vector of feature j makes that feature the logit of label k.
    """
    labels, width = scorer.model.space.head[0].shape
    heads = np.zeros((-(-width // labels), labels, width))
    places = np.arange(width)
    heads[places // labels, places % labels, places] = 1.0
    size = labels * width
    probes = np.zeros((len(heads), scorer.model.space.dimension))
    probes[:, -(size + labels) : -labels] = heads.reshape(len(heads), size)
    logits = torch.cat([part for _, part in scorer.logits(probes, examples.inputs)])
    flat = logits.double().numpy().transpose(1, 0, 2).reshape(len(examples), -1)
    return np.asarray(flat[:, :width])


def _regression(
    features: FloatArray, labels: npt.NDArray[np.int64], classes: int
) -> FloatArray:
    """Return weights ``(classes, h)``; the penalty has the lowest loss on held-out folds."""
    # Of n examples at most n directions matter.
    left, values, right = np.linalg.svd(features, full_matrices=False)
    rotated, wanted = left * values, np.eye(classes)[labels]
    folds = np.arange(len(features)) % min(_FOLDS, len(features))
    losses = [
        sum(
            _loss(_fit(rotated[folds != fold], wanted[folds != fold], penalty), rotated, wanted,
                  folds == fold)
            for fold in range(folds.max() + 1)
        )
        for penalty in _PENALTIES
    ]  # fmt: skip
    return np.asarray(_fit(rotated, wanted, _PENALTIES[int(np.argmin(losses))]) @ right)


def _loss(
    weights: FloatArray, features: FloatArray, wanted: FloatArray, rows: npt.NDArray[np.bool_]
) -> float:
    return float(-np.sum(wanted[rows] * log_softmax(features[rows] @ weights.T, axis=1)))


def _fit(features: FloatArray, wanted: FloatArray, penalty: float) -> FloatArray:
    """Minimize the mean cross-entropy plus ``penalty / 2`` times the squared norm.

    It is strictly convex, so that where it ends does not depend on the way there.
    """
    shape = (wanted.shape[1], features.shape[1])

    def objective(flat: FloatArray) -> tuple[float, FloatArray]:
        weights = flat.reshape(shape)
        logs = log_softmax(features @ weights.T, axis=1)
        value = -np.sum(wanted * logs) / max(1, len(features))
        slope = (np.exp(logs) - wanted).T @ features / max(1, len(features))
        return value + penalty / 2 * np.sum(flat**2), slope.ravel() + penalty * flat

    found = minimize(
        objective,
        np.zeros(prod(shape)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 2000, "ftol": 0.0, "gtol": 1e-8},
    )
    return np.asarray(found.x.reshape(shape))
