"""Training an ordinary LoRA adapter of any rank, as a client outside the space would.

Delta W = (alpha / rank) B A of each target is trained freely, then `project` brings it into the
adapter space. The forward pass is the space's own, in coordinates that hold every matrix: with
identities for a basis the "core" of a target is Delta W itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad

from fedcert.adapters.finetune import FinetuneSettings, descend
from fedcert.adapters.forward import AdaptedModel
from fedcert.adapters.projection import LoraUpdate
from fedcert.adapters.space import AdapterSpace
from fedcert.data.examples import Examples
from fedcert.errors import AdapterError
from fedcert.randomness import keyed_generator

__all__ = ["ALPHA", "LoraResult", "finetune_lora"]

ALPHA = 8.0
"""PEFT's default of ``lora_alpha``: the update's size does not grow with the rank."""


@dataclass(frozen=True)
class LoraResult:
    """An ordinary LoRA adapter and how it came about.

    Attributes
    ----------
    update : LoraUpdate
        Float32 factors and head.
    loss : float
        Mean cross-entropy of the adapter, not of its projection, on the training examples,
        nats.
    error : float
        Share of wrong labels on the training examples.
    seconds : float
        Wall time.
    """

    update: LoraUpdate
    loss: float
    error: float
    seconds: float


def finetune_lora(
    model: AdaptedModel,
    examples: Examples,
    *,
    rank: int,
    seed: int,
    settings: FinetuneSettings,
) -> LoraResult:
    """Train LoRA on the targets of the model's space, and the head in full.

    As in PEFT, A starts random (each seed has its own) and B at zero.

    Parameters
    ----------
    model : AdaptedModel
        The base model in the adapter's space.
    examples : Examples
        The training examples.
    rank : int
        The rank of the LoRA matrices, at most the smaller side of every target.
    seed : int
        Draws A and the batches.
    settings : FinetuneSettings
        Steps, batch size, learning rate, and weight decay.

    Returns
    -------
    LoraResult
        The LoRA matrices by target and the head, with training loss (nats) and error.

    Raises
    ------
    AdapterError
        If the rank does not fit a target.
    DataError
        If there are no examples, or they are all of one class.
    """
    space, scaling = model.space, ALPHA / rank
    factors = _factors(space, rank, seed, model.device)
    place: dict[str, Any] = {"device": model.device, "requires_grad": True}
    head = [torch.zeros(tensor.shape, **place) for tensor in space.head]
    everything = _everything(space)

    def vector() -> torch.Tensor:
        parts = [
            pad(
                scaling * (up @ down),
                (0, everything.rank - down.shape[1], 0, everything.rank - up.shape[0]),
            )
            for down, up in factors.values()
        ]
        return torch.cat([part.flatten() for part in (*parts, *head)])[None]

    outcome = descend(
        replace(model.task, space=everything).model(prefix_cache=model.prefix_cache),
        examples,
        [*(factor for pair in factors.values() for factor in pair), *head],
        vector,
        seed=seed,
        settings=settings,
    )
    update = LoraUpdate(
        {
            name: (down.detach().cpu().numpy(), up.detach().cpu().numpy(), scaling)
            for name, (down, up) in factors.items()
        },
        {
            t.name: values.detach().cpu().numpy()
            for t, values in zip(space.head, head, strict=True)
        },
    )
    return LoraResult(update, *outcome.fit(), outcome.seconds)


def _factors(
    space: AdapterSpace, rank: int, seed: int, device: torch.device
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return A and B by target, ready to be trained."""
    generator = keyed_generator("plain lora", seed)
    factors = {}
    for target in space.targets:
        if not 1 <= rank <= min(target.in_features, target.out_features):
            raise AdapterError(
                f"LoRA rank {rank} does not fit {target.name}, a "
                f"{target.out_features} x {target.in_features} matrix"
            )
        width = target.in_features**-0.5
        start = generator.uniform(-width, width, (rank, target.in_features))
        down = torch.from_numpy(start.astype(np.float32)).to(device).requires_grad_()
        factors[target.name] = (
            down,
            torch.zeros(target.out_features, rank, device=device, requires_grad=True),
        )
    return factors


def _everything(space: AdapterSpace) -> AdapterSpace:
    """Return coordinates in which each target's core is Delta W itself, padded to a square."""
    side = max(max(t.in_features, t.out_features) for t in space.targets)
    basis = {}
    for target in space.targets:
        basis[f"{target.name}.up"] = np.eye(target.out_features, side, dtype=np.float32)
        basis[f"{target.name}.down"] = np.eye(side, target.in_features, dtype=np.float32)
    return replace(space, rank=side, basis=basis, tied=0)
