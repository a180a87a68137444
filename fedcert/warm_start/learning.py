"""A client's part in a round of the warm start: personal steps, then joint ones.

The objective is that of Block et al., "Provable Meta-Learning with Low-Rank Adaptations"
(NeurIPS 2025): the mean over clients of the best loss that is in reach of a *personal* adapter.
So the trunk need not hold what only one client wants. Each round the personal part starts from
zero, as a new client will, and is thrown away at the end: it never leaves, nothing has to be
kept between rounds, and a round can be repeated.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, cast

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from fedcert.adapters.finetune import FinetuneSettings, descend
from fedcert.adapters.forward import AdaptedModel
from fedcert.adapters.grouping import hidden_numbers
from fedcert.adapters.patching import checkpointed
from fedcert.adapters.task import Task
from fedcert.data.examples import Examples
from fedcert.devices import exact_float32, moved, spare_bytes
from fedcert.errors import DataError, SettingsError
from fedcert.models.encoder import EncoderClassifier
from fedcert.models.heads import NamesHead
from fedcert.models.label_names import label_tokens
from fedcert.randomness import keyed_generator
from fedcert.warm_start.trunk import Trunk, TrunkTensors

__all__ = ["LocalRound", "TrunkTraining", "local_round", "trunk_part"]

# Of the rate in the beginning: where the cosine ends.
_FLOOR = 0.1
# What the personal part's rate is in joint steps, as a share of that in its own steps, which
# falls to zero: it is near its place, and follows the trunk.
_FOLLOWING = 0.1
_LARGEST_GRADIENT = 1.0
# What a layer keeps for gradients, in multiples of its input, and bytes that are too many.
_KEPT_BY_LAYERS, _MOST_KEPT = 16, 2**30


@dataclass(frozen=True, kw_only=True)
class TrunkTraining:
    """How clients train the trunk.

    Parameters
    ----------
    personal : FinetuneSettings
        The steps of the personal part alone, and its rate and weight decay.
    parts : str (default: "adapter")
        What is personal: the whole ``"adapter"``, or the ``"head"`` alone, which is standard
        retraining.
    steps : int (default: 12)
        Joint steps of a client in a round.
    batch_size : int (default: 32)
        Examples of a joint step.
    learning_rate : float (default: 1e-2)
        Of the trunk's AdamW at the beginning.
    total : int (default: 120)
        Joint steps of a client that takes part in all rounds: where the cosine ends.
    held_out : float (default: 0)
        Share of the trunk's examples that the personal steps do not see, other ones in each
        round. Joint steps then take these alone.
    """

    personal: FinetuneSettings
    parts: Literal["adapter", "head"] = "adapter"
    steps: int = 12
    batch_size: int = 32
    learning_rate: float = 1e-2
    total: int = 120
    held_out: float = 0.0

    def rate(self, step: int) -> float:
        """Return the trunk's rate after so many joint steps, those of earlier rounds included.

        A rate that fell to zero in every round would never get anywhere, and one that does not
        fall ends in noise (Photon, MLSys 2025).
        """
        angle = math.pi * min(step / self.total, 1.0)
        return self.learning_rate * (_FLOOR + (1 - _FLOOR) * (1 + math.cos(angle)) / 2)

    def to_config(self) -> dict[str, Any]:
        """Return the settings as a JSON object."""
        words = asdict(self) | {"personal": self.personal.to_config()}
        if not self.held_out:  # as rounds were before there was such a share
            del words["held_out"]
        return words

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Rebuild settings from `to_config`.

        Raises
        ------
        SettingsError
            If a key is unknown or missing.
        """
        try:
            return cls(**{**config, "personal": FinetuneSettings(**config["personal"])})
        except (KeyError, TypeError) as error:
            raise SettingsError(f"these are no settings of a warm start: {error}") from None


@dataclass(frozen=True)
class LocalRound:
    """What a client did in a round.

    Attributes
    ----------
    delta : TrunkTensors
        How far every B moved.
    loss : float
        Mean cross-entropy (nats) after the personal steps, before the joint ones: what the
        trunk that was sent is worth to this client. On the examples of the joint steps.
    examples : int
        How many took part.
    seconds : float
        Wall time.
    """

    delta: TrunkTensors
    loss: float
    examples: int
    seconds: float


def trunk_part(examples: Examples, share: float, *, client: str) -> tuple[Examples, Examples]:
    """Split a client's examples: those that train the trunk, and those that train its adapter.

    An adapter that was trained on what its base model has seen before would be surer than a new
    client's can be. The order follows from the inputs, so that nearly all examples stay on
    their side when others join them; equal inputs stay together.

    Parameters
    ----------
    examples : Examples
        All that the client trains with.
    share : float
        Of the trunk's part.
    client : str
        Its id, so that clients do not split common inputs alike.

    Returns
    -------
    tuple of Examples
        The trunk's part, and the adapter's; both keep the order of the examples.
    """
    digests = examples.input_digests(f"warm start/{client}")
    order = np.argsort(np.array(digests, dtype=str), kind="stable")
    count = _between(sorted(digests), round(share * len(examples)))
    return examples.take(np.sort(order[:count])), examples.take(np.sort(order[count:]))


def _between(digests: list[str], count: int) -> int:
    """Return the place nearest to a count that stands between two different digests."""
    if not 0 < count < len(digests):
        return count
    places = (at for at in range(1, len(digests)) if digests[at - 1] != digests[at])
    return min(places, key=lambda place: (abs(place - count), place), default=count)


@exact_float32()
def local_round(
    task: Task,
    trunk: Trunk,
    received: TrunkTensors,
    examples: Examples,
    *,
    training: TrunkTraining,
    done: int,
    seed: int,
) -> LocalRound:
    """Do one client's part of a round.

    Parameters
    ----------
    task : Task
        The client's, with its labels, on the base model as it was before the warm start.
    trunk : Trunk
        Of that base model.
    received : TrunkTensors
        The server's.
    examples : Examples
        What trains the trunk.
    training : TrunkTraining
        Steps and rates.
    done : int
        Joint steps of the rounds before.
    seed : int
        Draws the batches.

    Returns
    -------
    LocalRound
        How far the trunk moved, and the loss after the personal steps.

    Raises
    ------
    DataError
        If there is too little to learn from.
    """
    started, examples = time.perf_counter(), examples.usable
    if len(examples) == 0:
        raise DataError("there are no examples to train the trunk with")
    first, second = _parted(examples, training.held_out, seed=seed)
    # All layers are run: what is reduced reads the weights and would pass the trunk by.
    model = task.model(reduce_top=False)
    tensors = {
        name: torch.from_numpy(np.array(array)).to(model.device).requires_grad_()
        for name, array in received.items()
    }
    head = sum(math.prod(tensor.shape) for tensor in task.space.head)
    alone = training.parts == "head"
    size = (1, head if alone else task.space.dimension)
    own = torch.zeros(size, device=model.device, requires_grad=True)
    fixed = torch.zeros(1, task.space.dimension - size[1], device=model.device)

    def vector() -> torch.Tensor:
        return torch.cat([fixed, own], dim=1)

    with trunk.installed(task.base, tensors), _embedding_labels(task) as embed_labels:
        with torch.no_grad():
            embed_labels()
        before = descend(model, first, [own], vector, seed=seed, settings=training.personal)
        loss = (
            before.fit()[0]
            if second is first
            else _loss(model, second, vector(), training.batch_size)
        )
        _joint_steps(
            model, second, tensors, own, vector, embed_labels,
            training=training, done=done, seed=seed,
        )  # fmt: skip
    delta = {
        name: tensor.detach().cpu().numpy() - received[name] for name, tensor in tensors.items()
    }
    return LocalRound(delta, loss, len(examples), time.perf_counter() - started)


def _parted(examples: Examples, held_out: float, *, seed: int) -> tuple[Examples, Examples]:
    """Return what the personal steps take, and the joint ones: of too few, all for both.

    A personal part that knows its examples by heart leaves a loss near zero on them, and the
    trunk nothing to learn from; as in meta-learning, what it has not seen says what is left.
    """
    count = round(held_out * len(examples))
    if count == 0:
        return examples, examples
    order = keyed_generator("warm start held out", seed).permutation(len(examples))
    first, second = (examples.take(np.sort(rows)) for rows in (order[count:], order[:count]))
    return (first, second) if len(np.unique(first.labels)) > 1 else (examples, examples)


@torch.no_grad()
def _loss(model: AdaptedModel, examples: Examples, vector: torch.Tensor, count: int) -> float:
    """Return the mean cross-entropy (nats) on examples, so many at once, with this trunk."""
    total = 0.0
    for start in range(0, len(examples), count):
        part = examples.take(slice(start, start + count))
        with model.adapted(vector) as run:
            logits = run(moved(model.task.encode(part), model.device))[0]
        wanted = torch.from_numpy(part.labels).to(logits.device)
        total += float(cross_entropy(logits, wanted, reduction="sum"))
    return total / len(examples)


def _joint_steps(
    model: AdaptedModel,
    examples: Examples,
    tensors: Mapping[str, torch.Tensor],
    own: torch.Tensor,
    vector: Callable[[], torch.Tensor],
    embed_labels: Callable[[], None],
    *,
    training: TrunkTraining,
    done: int,
    seed: int,
) -> None:
    """Move trunk and personal part together."""
    generator = keyed_generator("warm start batches", seed)
    labels = torch.from_numpy(examples.labels).to(model.device)
    personal = training.personal
    optimizer = torch.optim.AdamW(
        [
            {"params": list(tensors.values()), "lr": training.learning_rate},
            {"params": [own], "lr": _FOLLOWING * personal.learning_rate},
        ],
        weight_decay=0.0,
    )
    for step in range(training.steps):
        optimizer.param_groups[0]["lr"] = training.rate(done + step)
        count = min(training.batch_size, len(examples))
        rows = generator.choice(len(examples), count, replace=False)
        inputs = moved(model.task.encode(examples.take(rows)), model.device)
        embed_labels()
        wanted = labels[torch.from_numpy(rows).to(labels.device)]
        optimizer.zero_grad()
        with model.adapted(vector()) as run:
            with _within_memory(model, inputs):
                logits = run(inputs)[0]
            pull = personal.weight_decay / 2 * own.square().sum()
            loss = cross_entropy(logits, wanted) + pull
            loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(list(tensors.values()), _LARGEST_GRADIENT)
        optimizer.step()


def _within_memory(
    model: AdaptedModel, inputs: dict[str, torch.Tensor]
) -> AbstractContextManager[None]:
    """Let layers run twice if what they would keep for gradients is more than a process has."""
    layers = cast(nn.ModuleList, model.base.model.get_submodule(model.base.layout.layers))
    kept = 4 * _KEPT_BY_LAYERS * model.base.layout.count
    kept *= hidden_numbers(inputs, width=model.width)
    most = spare_bytes(model.device) or _MOST_KEPT
    return checkpointed(layers) if kept > most else nullcontext()


@contextmanager
def _embedding_labels(task: Task) -> Iterator[Callable[[], None]]:
    """Yield a function that embeds the labels' names with the trunk as it is by then.

    Where logits are cosines with embeddings of names, the trunk moves both sides. What stood
    there before is put back in the end. Elsewhere the function does nothing.
    """
    model, labels = task.base.model, task.label_set
    named = isinstance(model, EncoderClassifier) and isinstance(model.task_head, NamesHead)
    # A text tower of its own is no part of what the trunk changes.
    if not named or labels is None or model.text_tower is not None:
        yield lambda: None
        return
    assert isinstance(model, EncoderClassifier)
    head, before = model.task_head, model.task_head.label_embeddings
    pairs = zip(labels.names, labels.texts, strict=True)
    named_texts = [(name, text) for name, own in pairs for text in own]
    names, texts = zip(*named_texts, strict=True)
    source = task.base.name, None if task.base.revision == "local" else task.base.revision
    tokens = label_tokens(model, texts, labels=names, source=source)
    inputs = moved(tokens, task.base.device)
    counts = [len(own) for own in labels.texts]

    def embed() -> None:
        units = normalize(model.embed(**inputs).float(), dim=-1)
        means = torch.stack([part.mean(dim=0) for part in units.split(counts)])
        head.label_embeddings = normalize(means, dim=-1)

    try:
        yield embed
    finally:
        head.label_embeddings = before
