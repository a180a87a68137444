"""An upstream client's own adapter in the adapter space: trained there or projected into it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cross_entropy

from fedcert.adapters import (
    AdaptedModel,
    AdapterSpace,
    FinetuneSettings,
    LoraUpdate,
    finetune,
    project,
    read_peft_adapter,
)
from fedcert.adapters.head_training import finetune_head
from fedcert.adapters.plain_lora import finetune_lora
from fedcert.clients.node import Node
from fedcert.clients.own_training import checked_vector
from fedcert.data.examples import Examples
from fedcert.messages import AdapterRequest
from fedcert.randomness import small_seed

__all__ = ["OwnAdapter", "own_adapter"]

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class OwnAdapter:
    """A client's adapter and what it may tell about it.

    Attributes
    ----------
    vector : numpy.ndarray
        Float32, shape ``(d,)``.
    measured : dict
        ``num-examples``, the ``loss`` of this vector on them (nats), and ``seconds``; for an
        adapter from outside the space also ``residual``, the share of its squared norm that
        the space could not hold.
    """

    vector: Float32Array
    measured: dict[str, float]


def own_adapter(
    request: AdapterRequest, space: AdapterSpace, node: Node, *, purpose: str
) -> OwnAdapter:
    """Train as the node is set up to, or bring what it has; its examples are spent either way.

    Parameters
    ----------
    request : AdapterRequest
        The server's.
    space : AdapterSpace
        Where the adapter has to end up.
    node : Node
        Brings a PEFT folder, trains plain LoRA, or trains in the space, by a loop of its own
        if it has one.
    purpose : str
        What the examples are spent on, in plain words.

    Returns
    -------
    OwnAdapter
        The adapter in the space, with its counts and its loss.

    Raises
    ------
    AdapterError
        If what the node brings or its own loop returns is no adapter of the space.
    """
    examples = node.training_examples()
    # Before anything can depend on them: an upload spends its examples for good.
    node.state().spent.mark(examples, purpose)
    model = node.model_of(node.task(space))
    seed = small_seed("finetune", request.seed, node.client)
    settings = FinetuneSettings(**request.training)
    if node.adapter_path is not None:
        brought = read_peft_adapter(node.adapter_path, head_module=space.head_module)
        return _projected(model, brought, examples, seconds=0.0)
    if node.training is not None:
        started = time.perf_counter()
        vector = node.training(model, examples, seed=seed, settings=settings)
        seconds = time.perf_counter() - started
        return _measured(model, checked_vector(vector, space), examples, seconds=seconds)
    if node.lora_rank is not None:
        trained = finetune_lora(
            model, examples, rank=node.lora_rank, seed=seed, settings=settings
        )
        return _projected(model, trained.update, examples, seconds=trained.seconds)
    train = finetune_head if settings.head_only else finetune
    result = train(model, examples, seed=seed, settings=settings)
    measured = {
        "num-examples": result.examples,
        "loss": result.loss,
        "seconds": result.seconds,
    }
    return OwnAdapter(result.vector, measured)


def _projected(
    model: AdaptedModel,
    update: LoraUpdate,
    examples: Examples,
    *,
    seconds: float,
) -> OwnAdapter:
    projection = project(model.space, update)
    own = _measured(model, projection.vector.astype(np.float32), examples, seconds=seconds)
    own.measured["residual"] = projection.lost
    return own


def _measured(
    model: AdaptedModel, vector: Float32Array, examples: Examples, *, seconds: float
) -> OwnAdapter:
    """Measure what is uploaded, not what was trained."""
    prepared = model.prepare(model.task.encode(examples))
    with torch.no_grad():
        logits = model.logits(prepared, torch.from_numpy(vector)[None])[0].cpu()
    measured = {
        "num-examples": len(examples),
        "loss": float(cross_entropy(logits, torch.from_numpy(examples.labels))),
        "seconds": seconds,
    }
    return OwnAdapter(vector, measured)
