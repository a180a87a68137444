"""Scenario `digits`: everyone has their own idea of which digits are "mine".

The data are scikit-learn's 1,797 handwritten digits. Each client has a private set of 5 of
the 10 digits that it labels "mine" (252 possible tasks). Upstream clients hold some of the
sets; every new client has a set that no upstream client has.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

from fedcert.data.examples import Examples
from fedcert.data.inputs import ImageInputs
from fedcert.errors import SettingsError
from fedcert.randomness import keyed_generator
from fedcert.simulations.personal_sets import PersonalScenario, PersonalSets
from fedcert.simulations.scenarios.digits_base import pretrained_base

__all__ = ["Digits"]

# How the 1,797 images are spent. Pretraining on 500 gives an 89.7% base, 700 above 94%.
PRETRAINING, TRAINING, SUPPORT = 700, 400, 300


class Digits(PersonalScenario):
    """The embedded default: real images, no download.

    Parameters
    ----------
    upstream : int (default: 128)
        Upstream clients; each has a set of its own while the 252 sets last.
    new : int (default: 20)
        New clients; their sets are unseen upstream.
    training_size : int (default: 100)
        Images that an upstream client trains on, drawn from the training split.
    known : int (default: 10)
        Digits that the base model was pretrained on, from 0 on.
    base : str (default: "")
        Folder of a base model that takes the place of the pretrained one.
    seed : int (default: 0)
        Draws the split, the sets, and each client's examples.
    planners : int (default: 0)
        The last so many upstream clients are those to plan first, if anybody plans. They share
        a quarter of the images for training, from which no other client draws.
    """

    name = "digits"
    description = "Which 5 of the 10 handwritten digits are mine? (scikit-learn digits)"
    labels = ("other", "mine")
    inputs = ImageInputs(channels=1, height=8, width=8, low=0.0, high=16.0)

    def __init__(
        self,
        *,
        upstream: int = 128,
        new: int = 20,
        training_size: int = 100,
        known: int = 10,
        base: str = "",
        seed: int = 0,
        planners: int = 0,
    ) -> None:
        if not 2 <= known <= 10:
            raise SettingsError("digits: known must be 2 to 10")
        self._known, self._base = known, base
        sets = PersonalSets.draw("digits", upstream=upstream, new=new, seed=seed)
        if not 2 <= training_size <= TRAINING:
            raise SettingsError(f"digits: training_size must be 2 to {TRAINING}")
        super().__init__(sets, training_size=training_size, seed=seed, planners=planners)

    def mine(self, client: str) -> tuple[int, ...]:
        """Return the five digits that a client calls its own."""
        return self._sets.of(client)

    def base_model(self, *, on_step: Callable[[str], None] = lambda _: None) -> Path:
        """Return the small ViT pretrained ten ways on images that nothing else uses."""
        if self._base:
            return Path(self._base)
        images, digits = self._images
        part = self._splits["pretraining"]
        part = part[digits[part] < self._known]
        return pretrained_base(
            self.inputs, images[part], digits[part], labels=self.labels, on_step=on_step
        )

    def test_examples(self, client: str) -> Examples:
        """Return the test split under the client's labels."""
        return self._labeled(client, self._splits["test"])

    def _labeled(self, client: str, rows: npt.NDArray[np.int64]) -> Examples:
        images, digits = self._images
        return Examples(images[rows], np.isin(digits[rows], self.mine(client)).astype(np.int64))

    @cached_property
    def _images(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        data = load_digits()
        return self.inputs.normalize(data.images), data.target.astype(np.int64)

    @cached_property
    def _splits(self) -> dict[str, npt.NDArray[np.int64]]:
        order = keyed_generator("digits/split", self._seed).permutation(len(self._images[1]))
        ends = np.cumsum([PRETRAINING, TRAINING, SUPPORT])
        names = ("pretraining", "training", "support", "test")
        return dict(zip(names, np.split(order, ends), strict=True))
