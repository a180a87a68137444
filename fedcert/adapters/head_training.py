"""Fine-tuning the head alone: the layers run once, and every step is a small product."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from fedcert.adapters.finetune import FinetuneResult, FinetuneSettings, take_steps
from fedcert.adapters.forward import AdaptedModel
from fedcert.adapters.shared_layers import embeddings, head_logits, head_size
from fedcert.data.examples import Examples
from fedcert.errors import DataError
from fedcert.randomness import keyed_generator

__all__ = ["embedded_by", "finetune_head"]


def embedded_by(model: AdaptedModel, examples: Examples) -> torch.Tensor:
    """Return what a head reads of examples on the frozen base model, shape ``(n, width)``."""
    prepared = model.prepare(model.task.encode(examples))
    frozen = torch.zeros(model.space.dimension, device=model.device)
    return embeddings(model, prepared, frozen)


def finetune_head(
    model: AdaptedModel,
    examples: Examples,
    *,
    seed: int,
    settings: FinetuneSettings,
    embedded: torch.Tensor | None = None,
) -> FinetuneResult:
    """Train the head from zero on the frozen base model; the layers' part stays zero.

    Parameters
    ----------
    model : AdaptedModel
        A model with a head on embeddings (`fedcert.adapters.shared_layers.head_size`).
    examples : Examples
        The training examples.
    seed : int
        Draws the batches.
    settings : FinetuneSettings
        Steps, batch size, learning rate, and weight decay.
    embedded : torch.Tensor, optional
        `embedded_by` of the model and all of these examples, if it is known.

    Returns
    -------
    FinetuneResult
        The adapter, with its training loss (nats) and error.

    Raises
    ------
    DataError
        If there are no examples, or the model has no such head.
    """
    size = head_size(model.base)
    if embedded is None:
        examples = examples.usable
    if not size:
        raise DataError("this base model has no head on embeddings that could be trained alone")
    if len(np.unique(examples.labels)) < 2:
        raise DataError(
            f"the {len(examples)} training examples have fewer than two labels; a head needs "
            "at least two to learn from"
        )
    started = time.perf_counter()
    layers = torch.zeros(1, model.space.dimension - size, device=model.device)
    head = torch.zeros(1, size, device=model.device, requires_grad=True)
    labels = torch.from_numpy(examples.labels).to(model.device)
    read = embedded_by(model, examples) if embedded is None else embedded

    def loss(batch: torch.Tensor | None) -> torch.Tensor:
        rows = slice(None) if batch is None else batch.to(labels.device)
        logits = head_logits(model, read[rows], torch.cat([layers, head], dim=1))
        return cross_entropy(logits[0], labels[rows])

    generator = keyed_generator("finetune head", seed)
    take_steps([head], loss, len(labels), settings=settings, generator=generator)
    vector = torch.cat([layers, head], dim=1).detach()
    with torch.no_grad():
        wrong = head_logits(model, read, vector)[0].argmax(dim=-1) != labels
        return FinetuneResult(
            vector=vector[0].cpu().numpy(),
            loss=float(loss(None)),
            error=float(wrong.float().mean()),
            examples=len(examples),
            seconds=time.perf_counter() - started,
        )
