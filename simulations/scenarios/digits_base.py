"""The base model of scenario `digits`: a small ViT, pretrained once and cached by content."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from fedcert.atomic import replaced_folder
from fedcert.cache import cache_folder
from fedcert.canonical import digest_json, digest_tensors
from fedcert.data.inputs import ImageInputs
from fedcert.threads import torch_threads

__all__ = ["Pretraining", "pretrained_base"]


@dataclass(frozen=True)
class Pretraining:
    """Architecture and training of the base model; part of the cache's key."""

    hidden_size: int = 64
    layers: int = 3
    heads: int = 4
    intermediate_size: int = 128
    patch_size: int = 2
    epochs: int = 60
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    rotation: float = 0.15  # radians
    scaling: float = 0.1
    shift: float = 0.12  # of half the image
    noise: float = 0.15
    seed: int = 0
    version: int = 1


def pretrained_base(
    spec: ImageInputs,
    images: npt.NDArray[np.float32],
    classes: npt.NDArray[np.int64],
    *,
    labels: Sequence[str],
    on_step: Callable[[str], None],
    settings: Pretraining = Pretraining(),
) -> Path:
    """Return the folder of a ViT pretrained on `images`, with a fresh zero head.

    The folder's name is a digest of images, classes, labels and settings; a folder that is
    there is used as it is.

    Parameters
    ----------
    spec : ImageInputs
        Shape of the images.
    images : numpy.ndarray
        Pretraining images, shape ``(N, height, width)``.
    classes : numpy.ndarray
        Their classes, shape ``(N,)``.
    labels : sequence of str
        Names of the task's labels.
    on_step : callable
        Called with a line of progress.
    settings : Pretraining, optional
        Size of the model, and how it is trained.

    Returns
    -------
    Path
        The folder.
    """
    key = digest_json(
        {
            "settings": asdict(settings),
            "data": digest_tensors({"images": images, "classes": classes}),
            "labels": list(labels),
            "torch": torch.__version__,
        }
    )
    folder = cache_folder() / "base-models" / f"vit-{key[:16]}"
    if not (folder / "config.json").is_file():
        on_step("pretraining the base model")
        # One thread: the digest of the weights must not depend on the number of cores.
        with torch_threads(1), torch.random.fork_rng():
            model = _pretrain(spec, images, classes, settings)
        with replaced_folder(folder) as staging:
            _with_fresh_head(model, labels).save_pretrained(staging)
    return folder


def _vit(spec: ImageInputs, settings: Pretraining, **head: Any) -> Any:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(
        ViTConfig(
            image_size=spec.height,
            patch_size=settings.patch_size,
            num_channels=spec.channels,
            hidden_size=settings.hidden_size,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            intermediate_size=settings.intermediate_size,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            **head,
        )
    )


def _pretrain(
    spec: ImageInputs,
    images: npt.NDArray[np.float32],
    classes: npt.NDArray[np.int64],
    settings: Pretraining,
) -> Any:
    torch.manual_seed(settings.seed)
    model = _vit(spec, settings, num_labels=int(classes.max()) + 1).train()
    pixels, targets = spec.encode(images)["pixel_values"], torch.from_numpy(classes)
    per_epoch = len(pixels) // settings.batch_size
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        settings.learning_rate,
        total_steps=settings.epochs * per_epoch,
        pct_start=0.15,
    )
    for _ in range(settings.epochs):
        order = torch.randperm(len(pixels))
        for start in range(0, per_epoch * settings.batch_size, settings.batch_size):
            rows = order[start : start + settings.batch_size]
            logits = model(_augment(pixels[rows], settings)).logits
            loss = cross_entropy(
                logits, targets[rows], label_smoothing=settings.label_smoothing
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return model.eval()


def _augment(pixels: torch.Tensor, settings: Pretraining) -> torch.Tensor:
    """Rotate, scale, shift and blur each image a little; without it 8 x 8 images overfit."""

    def uniform(*shape: int) -> torch.Tensor:
        return 2 * torch.rand(*shape) - 1

    count = len(pixels)
    angle = settings.rotation * uniform(count)
    scale = 1 + settings.scaling * uniform(count)
    shift = settings.shift * uniform(count, 2)
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    rows = [
        torch.stack([cosine, -sine, shift[:, 0]], 1),
        torch.stack([sine, cosine, shift[:, 1]], 1),
    ]
    grid = affine_grid(torch.stack(rows, 1), list(pixels.shape), align_corners=False)
    moved = grid_sample(pixels, grid, align_corners=False, padding_mode="border")
    return moved + settings.noise * torch.randn_like(moved)


def _with_fresh_head(model: Any, labels: Sequence[str]) -> Any:
    """Return the model with a zero head for the task: the start that all clients share."""
    model.classifier = torch.nn.Linear(model.classifier.in_features, len(labels))
    torch.nn.init.zeros_(model.classifier.weight)
    torch.nn.init.zeros_(model.classifier.bias)
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {name: index for index, name in enumerate(labels)}
    model.num_labels = len(labels)
    return model
