"""Input specifications: from raw inputs to the tensors that a base model takes.

A specification travels in the bundle, so a device prepares its examples exactly as the
upstream clients did. Its constructor arguments are its saved form.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch

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
            values = np.asarray(raw, dtype=np.float64)
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
            raise DataError(
                f"image {int(np.argmin(finite)) + 1} holds NaN or an infinity; remove it"
            )
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
