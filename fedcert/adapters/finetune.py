"""Local fine-tuning of one adapter on one client's examples."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cross_entropy

from fedcert.adapters.forward import AdaptedModel
from fedcert.adapters.grouping import length_groups
from fedcert.adapters.prepared import PreparedInputs
from fedcert.data.examples import Examples
from fedcert.errors import DataError
from fedcert.randomness import keyed_generator

__all__ = [
    "Beside",
    "Descent",
    "FinetuneResult",
    "FinetuneSettings",
    "descend",
    "finetune",
    "take_steps",
]


# Examples by their row numbers, which are None where all of them stand in one group.
_Groups = list[tuple[torch.Tensor | None, PreparedInputs]]

# Small groups run slower for each text than large ones, which have more padding.
_LENGTH_STEP = 4


@dataclass(frozen=True)
class FinetuneSettings:
    """How a client trains.

    Parameters
    ----------
    steps : int (default: 60)
        Optimizer steps.
    batch_size : int (default: 128)
        Examples per step; a client with fewer uses all of them each time.
    learning_rate : float (default: 0.03)
        Learning rate of Adam, falling linearly to zero.
    weight_decay : float (default: 0.01)
        Factor of the squared norm in the loss (times one half). It gives the adapter of a
        separable task a finite size, so that adapters of one task agree.
    head_only : bool (default: False)
        Train the head, and leave the layers as they are.
    """

    steps: int = 60
    batch_size: int = 128
    learning_rate: float = 0.03
    weight_decay: float = 0.01
    head_only: bool = False

    def to_config(self) -> dict[str, Any]:
        """Return a JSON object, which does not say what an earlier version did not know."""
        said = asdict(self)
        return said if self.head_only else {k: v for k, v in said.items() if k != "head_only"}


@dataclass(frozen=True)
class Beside:
    """A tensor that plain gradient descent trains, beside what Adam does.

    Adam moves every number by about its rate, whatever it is good for; where the sizes of
    numbers are to be compared, they must move as far as the loss is steep.

    Parameters
    ----------
    tensor : torch.Tensor
        A leaf that requires its gradient.
    rate : float
        The learning rate, which falls to zero in a line.
    """

    tensor: torch.Tensor
    rate: float

    def move(self, share: float) -> None:
        """Take a step at a share of the rate, and forget the gradient."""
        if self.tensor.grad is not None:
            with torch.no_grad():
                self.tensor.sub_(share * self.rate * self.tensor.grad)
        self.tensor.grad = None


@dataclass(frozen=True)
class FinetuneResult:
    """An adapter and how it came about.

    Attributes
    ----------
    vector : numpy.ndarray
        Float32, shape ``(d,)``.
    loss : float
        Mean cross-entropy on the training examples at the end, nats.
    error : float
        Share of wrong labels on the training examples.
    examples : int
        How many examples there were.
    seconds : float
        Wall time.
    """

    vector: npt.NDArray[np.float32]
    loss: float
    error: float
    examples: int
    seconds: float


def finetune(
    model: AdaptedModel,
    examples: Examples,
    *,
    seed: int,
    settings: FinetuneSettings,
) -> FinetuneResult:
    """Train an adapter from zero, the start that all clients share.

    Parameters
    ----------
    model : AdaptedModel
        The base model in the adapter's space.
    examples : Examples
        The training examples.
    seed : int
        Draws the batches.
    settings : FinetuneSettings
        Steps, batch size, learning rate, and weight decay.

    Returns
    -------
    FinetuneResult
        The adapter, with its training loss (nats) and error.

    Raises
    ------
    DataError
        If there are no examples, or they are all of one class.
    """
    size = (1, model.space.dimension)
    vector = torch.zeros(size, device=model.device, requires_grad=True)
    outcome = descend(model, examples, [vector], lambda: vector, seed=seed, settings=settings)
    loss, error = outcome.fit()
    return FinetuneResult(
        vector=vector.detach()[0].cpu().numpy(),
        loss=loss,
        error=error,
        examples=len(examples),
        seconds=outcome.seconds,
    )


@dataclass(frozen=True)
class Descent:
    """A training that is over.

    Attributes
    ----------
    logits : callable
        Returns the trained model's logits on the training examples, shape ``(n, K)``.
    labels : torch.Tensor
        Their labels, shape ``(n,)``.
    seconds : float
        Wall time.
    """

    logits: Callable[[], torch.Tensor]
    labels: torch.Tensor
    seconds: float

    def fit(self) -> tuple[float, float]:
        """Return loss (nats) and share of wrong labels on the training examples."""
        with torch.no_grad():
            logits = self.logits()
        wrong = (logits.argmax(-1) != self.labels).float().mean()
        return float(cross_entropy(logits, self.labels)), float(wrong)


def descend(
    model: AdaptedModel,
    examples: Examples,
    parameters: Sequence[torch.Tensor],
    vector: Callable[[], torch.Tensor],
    *,
    seed: int,
    settings: FinetuneSettings,
    prepared: PreparedInputs | None = None,
    penalty: Callable[[], torch.Tensor] | None = None,
    beside: Beside | None = None,
) -> Descent:
    """Train parameters in place.

    Parameters
    ----------
    model : AdaptedModel
        The base model in the adapter's space.
    examples : Examples
        The training examples.
    parameters : sequence of torch.Tensor
        The trained tensors, on which weight decay acts.
    vector : callable
        Makes the adapter of shape ``(1, d)`` from the parameters, differentiably.
    seed : int
        Draws the batches.
    settings : FinetuneSettings
        Steps, batch size, learning rate, and weight decay.
    prepared : PreparedInputs, optional
        `model.prepare` of the encoded examples, if it is known.
    penalty : callable, optional
        What of the parameters is added to the loss, besides weight decay (default: nothing).
    beside : Beside, optional
        A tensor that is trained with them in another way (default: none).

    Returns
    -------
    Descent
        The trained model's logits, and how long it took.

    Raises
    ------
    DataError
        If there are no examples, or they are all of one class.
    """
    if prepared is None:
        examples = examples.usable
    if len(examples) == 0:
        raise DataError("there are no examples to train on")
    # Where the labels' names define the task, one class says something too.
    if len(np.unique(examples.labels)) < 2 and not model.base.takes_labels:
        raise DataError(
            f"all {len(examples)} training examples have the same label; "
            "an adapter needs at least two classes to learn from"
        )
    started = time.perf_counter()
    labels = torch.from_numpy(examples.labels).to(model.device)
    groups: _Groups = [(None, prepared)] if prepared is not None else _prepared(model, examples)

    def loss(batch: torch.Tensor | None) -> torch.Tensor:
        wanted = labels if batch is None else labels[batch.to(labels.device)]
        fit = cross_entropy(_logits(model, groups, vector(), batch), wanted)
        return fit if penalty is None else fit + penalty()

    generator = keyed_generator("finetune", seed)
    take_steps(
        parameters,
        loss,
        len(examples),
        settings=settings,
        generator=generator,
        beside=beside,
    )
    seconds = time.perf_counter() - started
    return Descent(lambda: _logits(model, groups, vector(), None), labels, seconds)


def take_steps(
    parameters: Sequence[torch.Tensor],
    loss: Callable[[torch.Tensor | None], torch.Tensor],
    examples: int,
    *,
    settings: FinetuneSettings,
    generator: np.random.Generator,
    beside: Beside | None = None,
) -> None:
    """Minimize a loss with weight decay by Adam, whose rate falls to zero in a line.

    Parameters
    ----------
    parameters : sequence of torch.Tensor
        The trained tensors, which change.
    loss : callable
        The mean loss (nats) over a batch of row numbers; None stands for all rows.
    examples : int
        How many rows there are.
    settings : FinetuneSettings
        Steps, batch size, learning rate, and weight decay.
    generator : numpy.random.Generator
        Draws the batches.
    beside : Beside, optional
        As in `descend`.
    """
    optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: 1 - s / settings.steps)
    for step in range(settings.steps):
        current = loss(_draw_batch(examples, settings.batch_size, generator))
        optimizer.zero_grad()
        squares = torch.stack([parameter.square().sum() for parameter in parameters]).sum()
        total = current + settings.weight_decay / 2 * squares
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        decay.step()
        if beside is not None:
            beside.move(1 - step / settings.steps)


def _prepared(model: AdaptedModel, examples: Examples) -> _Groups:
    """Run the frozen layers once; where all tokens are read, texts of a length together.

    Otherwise each step would compute the padding of the longest text in it.
    """
    encoded = model.task.encode(examples)
    if model.top_only:
        return [(None, model.prepare(encoded))]
    grouped = length_groups(encoded, step=_LENGTH_STEP)
    return [(rows, model.prepare(part)) for rows, part in grouped]


def _logits(
    model: AdaptedModel, groups: _Groups, vector: torch.Tensor, batch: torch.Tensor | None
) -> torch.Tensor:
    """Return the logits of a batch, or of all examples, ``(n, K)``."""
    rows, whole = groups[0]
    if rows is None:
        return model.logits(whole if batch is None else whole.take(batch), vector)[0]
    if batch is None:
        batch = torch.arange(sum(len(prepared) for _, prepared in groups))
    place = torch.full((int(batch.max()) + 1,), -1)
    place[batch] = torch.arange(len(batch))
    found, order = [], []
    for rows, prepared in groups:
        assert rows is not None
        known = torch.nonzero(rows < len(place))[:, 0]
        inside = known[place[rows[known]] >= 0]
        if len(inside):
            found.append(model.logits(prepared.take(inside), vector)[0])
            order.append(place[rows[inside]])
    return torch.cat(found)[torch.cat(order).argsort().to(found[0].device)]


def _draw_batch(
    examples: int, size: int, generator: np.random.Generator
) -> torch.Tensor | None:
    """Draw a batch without replacement, or None for all examples."""
    if examples <= size:
        return None
    return torch.from_numpy(generator.choice(examples, size, replace=False))
