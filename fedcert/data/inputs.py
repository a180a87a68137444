"""Input specifications: from raw inputs to the tensors that a base model takes.

A specification travels in the bundle, so a device prepares its examples exactly as the
upstream clients did. Its constructor arguments are its saved form.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch

from fedcert.data.examples import ALWAYS_WRONG, Examples
from fedcert.data.identity import raw_form
from fedcert.errors import DataError

if TYPE_CHECKING:
    from fedcert.models.base import BaseModel

__all__ = ["ImageInputs", "InputSpec"]


class InputSpec(ABC):
    """How raw inputs become model inputs."""

    kind: ClassVar[str]

    @abstractmethod
    def normalize(self, raw: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Check raw inputs and bring them into the shape that `Examples` keeps.

        Raises
        ------
        DataError
            If an input does not fit; the message names the first one that does not.
        """

    def examples(
        self, raw: npt.NDArray[Any], labels: Sequence[int] | npt.NDArray[np.int64]
    ) -> Examples:
        """Normalize raw inputs; those that cannot be read stay, and count as errors.

        Raises
        ------
        DataError
            If half of them or more cannot be read: then the format is the mistake. The
            message says what `normalize` says.
        """
        classes = np.array(labels, dtype=np.int64)
        try:
            return Examples(self.normalize(raw), classes)
        except DataError as error:
            rows = range(len(raw) if np.ndim(raw) and len(raw) == len(classes) else 0)
            good = np.array([self._can_read(raw[row : row + 1]) for row in rows], dtype=bool)
            if 2 * good.sum() <= len(good):
                many = (
                    f"{len(good) - good.sum()} of {len(good)} inputs cannot be read, so this "
                )
                told = f"{many}is a mistake of format: {error}" if len(good) > 1 else str(error)
                raise DataError(told) from error
        inputs = self.normalize(raw[good])[np.where(good, np.cumsum(good) - 1, 0)]
        forms = np.empty(len(raw), dtype=object)
        forms[~good] = [raw_form(value) for value in raw[~good]]
        return Examples(inputs, np.where(good, classes, ALWAYS_WRONG), forms)

    def _can_read(self, raw: npt.NDArray[Any]) -> bool:
        try:
            self.normalize(raw)
        except DataError:
            return False
        return True

    @abstractmethod
    def encode(self, inputs: npt.NDArray[Any]) -> dict[str, torch.Tensor]:
        """Turn normalized inputs into keyword arguments of the model's ``forward``."""

    def bound_to(self, base: BaseModel) -> Self:
        """Return the specification with what it needs of a base model, such as a tokenizer.

        Raises
        ------
        ModelError
            If the base model does not fit.
        """
        return self

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """Return the constructor arguments with ``kind``."""


@dataclass(frozen=True)
class ImageInputs(InputSpec):
    """Images of one fixed size, given as numbers.

    Parameters
    ----------
    channels, height, width : int
        The size of an image.
    low, high : float
        The range of raw values; it is mapped linearly onto [-1, 1].
    """

    channels: int
    height: int
    width: int
    low: float
    high: float

    kind: ClassVar[str] = "image"

    def normalize(self, raw: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Bring images into shape ``(n, channels, height, width)``, float32."""
        try:
            # Rows of unequal length come as objects, one by one.
            rows = list(raw) if raw.dtype == object and raw.ndim == 1 else raw
            values = np.asarray(rows, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"the images are not numbers: {error}") from error
        size = self.channels * self.height * self.width
        got = prod(values.shape[1:])
        if got != size:
            raise DataError(
                f"an image has {got} values, but this model takes {self.channels} x "
                f"{self.height} x {self.width} = {size}; resize the images first"
            )
        flat = values.reshape(len(values), size)
        self._check_values(flat)
        shape = (len(values), self.channels, self.height, self.width)
        return flat.reshape(shape).astype(np.float32)

    def _check_values(self, flat: npt.NDArray[np.float64]) -> None:
        finite = np.isfinite(flat).all(axis=1)
        if not finite.all():
            raise DataError(f"image {int(np.argmin(finite)) + 1} holds NaN or an infinity")
        inside = ((flat >= self.low) & (flat <= self.high)).all(axis=1)
        if not inside.all():
            raise DataError(
                f"image {int(np.argmin(inside)) + 1} has values outside "
                f"[{self.low:g}, {self.high:g}]; rescale the images to that range"
            )

    def encode(self, inputs: npt.NDArray[Any]) -> dict[str, torch.Tensor]:
        """Map raw values onto [-1, 1]."""
        scaled = (inputs - self.low) * (2.0 / (self.high - self.low)) - 1.0
        return {"pixel_values": torch.from_numpy(np.ascontiguousarray(scaled, np.float32))}

    def to_config(self) -> dict[str, Any]:
        """Return the constructor arguments with ``kind``."""
        return {"kind": self.kind, **asdict(self)}
