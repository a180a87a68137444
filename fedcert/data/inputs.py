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

from fedcert.data.cells import shape_of, stack_numbers
from fedcert.data.examples import ALWAYS_WRONG, Examples
from fedcert.data.identity import raw_form
from fedcert.errors import DataError, RowError

if TYPE_CHECKING:
    from fedcert.models.base import BaseModel

__all__ = ["CHANNELS", "ImageInputs", "InputSpec"]

CHANNELS = (1, 3, 4)
"""How many channels images have: gray, red-green-blue, and that with transparency."""
# Images in [0, 1] where [0, 16] or [0, 255] was declared fill less of the range.
_SMALL_PART = 0.1


class InputSpec(ABC):
    """How raw inputs become model inputs."""

    kind: ClassVar[str]

    @abstractmethod
    def normalize(self, raw: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Check raw inputs and bring them into the shape that `Examples` keeps.

        Raises
        ------
        DataError
            If an input does not fit; the message names the first one that does not
            (`RowError`).
        """

    def remarks(self, raw: npt.NDArray[Any], inputs: npt.NDArray[Any]) -> tuple[str, ...]:
        """Say what looks wrong about raw inputs, and what `normalize` made of them.

        Of what is accepted and yet may be a mistake; by default nothing is.
        """
        del raw, inputs
        return ()

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
                raise _of_format(error, int(len(good) - good.sum()), len(good)) from error
        # One by one: what can be read alone may not look like the others.
        alone = [self.normalize(raw[row : row + 1]) for row in np.flatnonzero(good)]
        inputs = np.concatenate(alone)[np.where(good, np.cumsum(good) - 1, 0)]
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
        """Bring images into shape ``(n, channels, height, width)``, float32.

        They may come in this shape, flat, without channels if there is one, or as
        ``(n, height, width, channels)`` if that can be nothing else.
        """
        values = self._arranged(stack_numbers(np.asarray(raw)))
        self._check_values(values.reshape(len(values), prod(self._shape)))
        return values.astype(np.float32)

    def remarks(self, raw: npt.NDArray[Any], inputs: npt.NDArray[Any]) -> tuple[str, ...]:
        """Say if channels stood last, or if values fill a small part of their range."""
        found = []
        if any(self._has_channels_last(shape_of(image)) for image in raw):
            found.append(
                "the images have their channels last, as "
                f"{(self.height, self.width, self.channels)}, and were transposed to "
                f"{self._shape}"
            )
        low, high = float(inputs.min(initial=self.high)), float(inputs.max(initial=self.low))
        if high - low <= _SMALL_PART * (self.high - self.low) < self.high - self.low:
            found.append(
                f"all values of the images lie between {low:g} and {high:g}, a small part of "
                f"the range from {self.low:g} to {self.high:g}; rescale them, unless they are "
                "meant to be so alike"
            )
        return tuple(found)

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

    def _has_channels_last(self, shape: tuple[int, ...]) -> bool:
        return (
            shape == (self.height, self.width, self.channels)
            and shape != self._shape
            and self.channels in CHANNELS
        )

    def _arranged(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        shape, size = values.shape[1:], prod(self._shape)
        if prod(shape) != size:
            raise DataError(
                f"an image has {prod(shape)} values, but this model takes {self.channels} x "
                f"{self.height} x {self.width} = {size}; resize the images first"
            )
        if self._has_channels_last(shape):
            return np.moveaxis(values, -1, 1)
        if len(shape) < 2 or shape[-3:] == self._shape[-len(shape) :]:
            return values.reshape(len(values), *self._shape)
        raise DataError(
            f"the images have the shape {shape}, and this model takes {self._shape}: channels, "
            "height, width; transpose them first"
        )

    def _check_values(self, flat: npt.NDArray[np.float64]) -> None:
        finite = np.isfinite(flat).all(axis=1)
        if not finite.all():
            raise RowError(int(np.argmin(finite)), "holds NaN or an infinity", noun="image")
        inside = ((flat >= self.low) & (flat <= self.high)).all(axis=1)
        if not inside.all():
            raise RowError(
                int(np.argmin(inside)),
                f"has values outside [{self.low:g}, {self.high:g}]; rescale the images to that "
                "range",
                noun="image",
            )

    def encode(self, inputs: npt.NDArray[Any]) -> dict[str, torch.Tensor]:
        """Map raw values onto [-1, 1]."""
        scaled = (inputs - self.low) * (2.0 / (self.high - self.low)) - 1.0
        return {"pixel_values": torch.from_numpy(np.ascontiguousarray(scaled, np.float32))}

    def to_config(self) -> dict[str, Any]:
        """Return the constructor arguments with ``kind``."""
        return {"kind": self.kind, **asdict(self)}


def _of_format(error: DataError, unread: int, count: int) -> DataError:
    """Say that so many inputs cannot be read that the format must be the mistake."""
    if count < 2:
        return error
    told = f"{unread} of {count} inputs cannot be read, so this is a mistake of format"
    if isinstance(error, RowError):
        return RowError(error.row, f"{error.reason}; {told}")
    return DataError(f"{told}: {error}")
