"""A federation that runs in seconds: images of 4 x 4 pixels on a tiny random ViT.

It is loaded as ``tiny_scenario:Tiny``, a module of its own, as a user's scenario would be:
Ray's workers and other processes find it by PYTHONPATH.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fedcert.atomic import replaced_folder
from fedcert.data import Examples, ImageInputs
from fedcert.randomness import keyed_generator
from fedcert.scenarios import Scenario
from fedcert.simulations.scenarios.digits_base import cache_folder

__all__ = ["Tiny"]


class Tiny(Scenario):
    """Which half of the image is brighter? Every client has its own idea of "half".

    Parameters
    ----------
    upstream, new : int
        Clients of each part.
    seed : int
        Of each client's idea and examples.
    broken : str
        Upstream clients, separated by commas, that have lost their examples.
    reference : int
        Examples of the reference sample, which are a client's of its own; 0 for none.
    """

    name = "tiny"
    description = "Bright or dark on one side? (random images of 4 x 4 pixels)"
    labels = ("dark", "bright")
    inputs = ImageInputs(channels=1, height=4, width=4, low=0.0, high=1.0)

    def __init__(
        self,
        *,
        upstream: int = 14,
        new: int = 2,
        seed: int = 0,
        broken: str = "",
        reference: int = 0,
    ) -> None:
        self._reference = reference
        ids = [f"tiny-{index:02d}" for index in range(upstream + new)]
        self._upstream, self._new = tuple(ids[:upstream]), tuple(ids[upstream:])
        self._seed, self._broken = seed, broken.split(",")

    @property
    def upstream_clients(self) -> tuple[str, ...]:
        return self._upstream

    @property
    def new_clients(self) -> tuple[str, ...]:
        return self._new

    def base_model(self, *, on_step: Callable[[str], None] = lambda _: None) -> Path:
        folder = cache_folder() / "base-models" / "tiny"
        if not (folder / "config.json").is_file():
            on_step("drawing a base model")
            with replaced_folder(folder) as staging:
                save_tiny_base(staging, seed=0)
        return folder

    def training_examples(self, client: str) -> Examples:
        if client in self._broken:
            raise RuntimeError(f"the disk of {client} is gone")
        return self._draw("training", client, 48)

    def support_examples(self, client: str, size: int) -> Examples:
        return self._draw("support", client, 64).take(slice(size))

    def test_examples(self, client: str) -> Examples:
        return self._draw("test", client, 100)

    def reference_examples(self) -> Examples | None:
        return self._draw("reference", "all", self._reference) if self._reference else None

    def _draw(self, part: str, client: str, count: int) -> Examples:
        angle = keyed_generator("tiny/idea", self._seed, client).uniform(-0.6, 0.6)
        rows, columns = np.meshgrid(np.linspace(-1, 1, 4), np.linspace(-1, 1, 4))
        pattern = np.cos(angle) * rows + np.sin(angle) * columns
        generator = keyed_generator("tiny/examples", part, self._seed, client)
        labels = generator.integers(0, 2, count)
        signs = (2.0 * labels - 1.0)[:, None, None, None]
        images = 0.5 + 0.25 * signs * pattern + generator.uniform(-0.3, 0.3, (count, 1, 4, 4))
        return Examples(np.clip(images, 0, 1).astype(np.float32), labels.astype(np.int64))


def save_tiny_base(folder: Path, *, seed: int) -> None:
    """Save a ViT of two layers with random weights and a zero head."""
    from transformers import ViTConfig, ViTForImageClassification

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        # The default range of .02 would make a tiny model blind to its inputs.
        config = ViTConfig(
            image_size=4,
            patch_size=2,
            num_channels=1,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            initializer_range=0.2,
            num_labels=2,
        )
        model = ViTForImageClassification(config)
    for parameter in model.classifier.parameters():
        torch.nn.init.zeros_(parameter)
    model.save_pretrained(folder)
