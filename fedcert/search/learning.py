"""Adapters that are trained on a client's choosing examples, as finalists of a split.

All repeat themselves up to rounding: all examples in each step, and no random number.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from fedcert.adapters.finetune import FinetuneSettings, descend
from fedcert.adapters.space import AdapterSpace
from fedcert.arrays import FloatArray
from fedcert.data.examples import Examples
from fedcert.data.identity import exact_form
from fedcert.errors import CertificateError
from fedcert.methods import method_from_config
from fedcert.priors import PointPrior, Prior
from fedcert.search.batched import BatchedScorer
from fedcert.search.linear_head import LinearHead
from fedcert.search.regression import fitted, losses
from fedcert.search.scores import Scorer
from fedcert.threads import torch_threads

__all__ = [
    "finetuned",
    "has_linear_head",
    "learned",
    "local_head",
    "posterior_mode",
    "reads_inputs",
    "tuned_head",
]

# Part of what "local_head" and "tuned_head" mean: certificates are repeated by it.
_FOLDS = 4
# Of "posterior_mode", in standard deviations of the prior.
_MODE_RATE = 0.3


def finetuned(
    scorer: Scorer,
    examples: Examples,
    start: FloatArray,
    *,
    steps: int,
    learning_rate: float,
    pull: float,
    axes: FloatArray | None = None,
) -> FloatArray:
    """Train an adapter from a start on examples; from one label alone nothing is learned.

    Parameters
    ----------
    scorer : Scorer
        Its model is trained on.
    examples : Examples
        The choosing examples; none that certifies may be among them.
    start : numpy.ndarray
        Where training begins, shape ``(d,)``.
    steps : int
        Steps of Adam, on all examples each.
    learning_rate : float
        Falls linearly to zero.
    pull : float
        Factor of half the squared distance to the start in the loss, in steps along the axes.
    axes : numpy.ndarray, optional
        What one step along each axis adds, shape ``(k, d)``: training finds how far to go
        along each. By default they are those of the coordinates.

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
    if (axes is not None and len(axes) == 0) or len(np.unique(usable.labels)) < 2:
        return start
    device = batched.model.device
    first = torch.from_numpy(start).float().to(device)
    along = None if axes is None else torch.from_numpy(axes).float().to(device)
    count = len(start) if axes is None else len(axes)
    moves = torch.zeros((1, count), device=device, requires_grad=True)
    with torch_threads(1):
        descend(
            batched.model,
            usable,
            [moves],
            lambda: first + (moves if along is None else moves @ along),
            seed=0,
            settings=FinetuneSettings(
                steps=steps,
                batch_size=len(usable),
                learning_rate=learning_rate,
                weight_decay=pull,
            ),
        )
    moved = moves.detach()[0].cpu().double().numpy()
    return np.asarray(start + (moved if axes is None else moved @ axes), dtype=np.float64)


def posterior_mode(
    scorer: Scorer, examples: Examples, prior: Prior, *, steps: int
) -> FloatArray:
    """Return the likeliest adapter given examples, under a Gaussian like the prior.

    An adapter is the center and a standard normal number of steps along each of the prior's
    axes, which gradients search for the least of loss and half the squared number of steps:
    the Laplace approximation's mode (MacKay, Neural Computation 4, 1992). A hundred steps are
    enough, where a posterior mean scores thousands of candidates. From one label alone nothing
    is learned.

    Parameters
    ----------
    scorer : Scorer
        Its model is trained on.
    examples : Examples
        The choosing examples; none that certifies may be among them.
    prior : Prior
        Says the center, and the axes around it.
    steps : int
        Steps of Adam, on all examples each.

    Returns
    -------
    numpy.ndarray
        Float64, shape ``(d,)``.

    Raises
    ------
    CertificateError
        If the scorer has no model that could be trained.
    """
    return finetuned(
        scorer,
        examples,
        prior.center(),
        axes=prior.axes(),
        steps=steps,
        learning_rate=_MODE_RATE,
        # The loss is a mean over examples, and the prior counts as one of them.
        pull=1 / max(1, len(examples.usable)),
    )


def reads_inputs(prior: Prior) -> bool:
    """Return whether the rule of a prior's method can use inputs without labels."""
    method = prior.method if isinstance(prior, PointPrior) else None
    return method is not None and method_from_config(method).reads_inputs


def learned(
    scorer: Scorer, examples: Examples, prior: Prior, unlabeled: Examples | None = None
) -> FloatArray:
    """Return the adapter that the rule of a prior's method makes of examples.

    Parameters
    ----------
    scorer : Scorer
        Its model is the client's.
    examples : Examples
        The choosing examples; none that certifies may be among them.
    prior : Prior
        What a method published, with its settings.
    unlabeled : Examples, optional
        Inputs without labels that the rule may read; in whatever order, they give the same.

    Returns
    -------
    numpy.ndarray
        Float64, shape ``(d,)``, or ``(P, d)`` of a rule that makes P adapters.

    Raises
    ------
    CertificateError
        If the scorer has no model, or no method made the prior.
    """
    batched = _trainable(scorer)
    if not isinstance(prior, PointPrior) or prior.method is None:
        raise CertificateError(
            "the bundle names no method by whose rule an adapter could be learned"
        )
    with torch_threads(1):
        rule, usable = method_from_config(prior.method), examples.usable
        if unlabeled is None:
            return rule.learned(prior, batched.model, usable)
        order = np.argsort(unlabeled.input_digests("", exact_form))
        beside = unlabeled.take(order)
        return rule.learned_beside(prior, batched.model, usable, beside)


def has_linear_head(space: AdapterSpace) -> bool:
    """Return whether a model's logits are one linear map of its features.

    It is trained in full, or starts at the embeddings of the labels' names.
    """
    shapes = [tensor.shape for tensor in space.head]
    trained = len(shapes) == 2 and len(shapes[0]) == 2 and shapes[1] == shapes[0][:1]
    return trained or space.names_head


def local_head(scorer: Scorer, examples: Examples) -> FloatArray:
    """Train a head on the features of the frozen base model, with nothing of a prior in it.

    It is `tuned_head` of the adapter that changes nothing: where the head is trained a logistic
    regression, and where it is made from names, one that starts at these.

    Parameters
    ----------
    scorer : Scorer
        Its model's features are taken.
    examples : Examples
        The choosing examples; none that certifies may be among them.

    Returns
    -------
    numpy.ndarray
        Float64, as of `tuned_head`.

    Raises
    ------
    CertificateError
        If the scorer has no such model, or the model no such head.
    """
    space = _trainable(scorer).model.space
    return tuned_head(scorer, examples, np.zeros(space.dimension))


def tuned_head(scorer: Scorer, examples: Examples, start: FloatArray) -> FloatArray:
    """Train an adapter's head alone, pulled to what it is at the start.

    The loss is that of a logistic regression with half the squared distance to the start's
    head, times a penalty that has the lowest loss on held-out folds of the same examples. So
    few examples leave the head near its start, and with many it is the regression's. Where the
    head is made from names it is pulled to the means of the examples' embeddings, among which
    each name counts as one (`LinearHead.gathered`).

    Parameters
    ----------
    scorer : Scorer
        Its model's features are taken.
    examples : Examples
        The choosing examples; none that certifies may be among them.
    start : numpy.ndarray
        The adapter, shape ``(d,)``. It says how features are made, too.

    Returns
    -------
    numpy.ndarray
        Float64, shape ``(d,)``; where the head is made from names longer, as
        `AdapterSpace.holding` says.

    Raises
    ------
    CertificateError
        If the scorer has no such model, or the model no such head.
    """
    batched, usable = _trainable(scorer), examples.usable
    if not has_linear_head(batched.model.space):
        raise CertificateError(
            "a head of its own needs a base model whose head is one linear layer, with a bias, "
            "or made from the labels' names; this one has another head"
        )
    head = LinearHead.of(batched.model, start)
    if len(usable) == 0:
        return head.start
    [(_, logits)] = batched.logits(start[None], usable.inputs)
    features = head.features(batched, usable)
    scale = 1.0
    if head.trained:
        scale = float(np.sqrt(np.mean(np.sum(features**2, axis=1)))) or 1.0
        features = np.column_stack([features / scale, np.ones(len(features))])
    with torch_threads(1), torch.inference_mode():
        moves = _regression(features, usable.labels, logits[0].double().numpy(), head)
    moves[:, : head.width] /= scale
    return head.moved(moves)


def _trainable(scorer: Scorer) -> BatchedScorer:
    if not isinstance(scorer, BatchedScorer):
        raise CertificateError("this session has no model that an adapter could be trained on")
    return scorer


def _regression(
    features: FloatArray,
    labels: npt.NDArray[np.int64],
    offsets: FloatArray,
    head: LinearHead,
) -> FloatArray:
    """Return weights ``(classes, h)``; the penalty has the lowest loss on held-out folds.

    Logits are ``offsets + features @ weights.T``, the offsets of shape ``(n, classes)``.
    """
    # Of n examples at most n directions matter.
    left, values, right = np.linalg.svd(features, full_matrices=False)
    rotated, wanted = torch.from_numpy(left * values), torch.from_numpy(labels)
    folds = np.arange(len(features)) % min(_FOLDS, len(features))
    apart = folds == np.arange(folds.max() + 1)[:, None]  # (folds, n): held out in which
    starts = [head.gathered(features[~rows], labels[~rows]) for rows in apart]
    known = np.stack([(offsets + features @ start.T).T for start in starts])
    held_out, penalties = torch.from_numpy(apart), torch.tensor(head.penalties).double()
    lost = _held_out_losses(rotated, wanted, torch.from_numpy(known), held_out, penalties)
    best = int(lost.argmin())
    start = head.gathered(features, labels)
    [moved] = fitted(
        rotated,
        wanted,
        torch.from_numpy((offsets + features @ start.T).T[None]),
        shares=torch.full((1, len(features)), 1 / len(features)).double(),
        penalties=penalties[best : best + 1],
    )
    return np.asarray(start + moved.numpy() @ right)


def _held_out_losses(
    features: torch.Tensor,
    labels: torch.Tensor,
    offsets: torch.Tensor,
    held_out: torch.Tensor,
    penalties: torch.Tensor,
) -> torch.Tensor:
    """Return, for each penalty, the loss on every fold of weights fitted to the others.

    Offsets are ``(folds, classes, n)``, and what is held out bool of ``(folds, n)``.
    """
    count, learned = len(penalties), (~held_out).double()
    # From one example alone nothing is held out for, and nothing learned.
    shares = learned / learned.sum(dim=1, keepdim=True).clamp(min=1)
    known = offsets.repeat(count, 1, 1)
    weights = fitted(
        features,
        labels,
        known,
        shares=shares.repeat(count, 1),
        penalties=penalties.repeat_interleave(len(held_out)),
    )
    lost = losses(weights, features, labels, known) * held_out.repeat(count, 1)
    return lost.sum(dim=1).view(count, -1).sum(dim=1)
