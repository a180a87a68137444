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
from fedcert.errors import DataError, ModelError, RowError

if TYPE_CHECKING:
    from fedcert.models.base import BaseModel

__all__ = ["CHANNELS", "LAYOUTS", "ImageInputs", "InputSpec"]

LAYOUTS = ("CHW", "HWC")
"""How the axes of an image may stand: channels, height, and width."""
CHANNELS = (1, 3, 4)
"""How many channels images have: gray, red-green-blue, and that with transparency."""
# Families whose position embeddings are for images of one size.
_ONE_SIZE = {"clip_vision_model", "deit", "siglip_vision_model", "vit"}
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
        return ()

    def stand_in(self) -> npt.NDArray[Any] | None:
        """Return what stands for an input that cannot be read, shape ``(1, ...)``, or None.

        By default, None, that is the first input that can be read.
        """
        return None

    def examples(
        self,
        raw: npt.NDArray[Any],
        labels: Sequence[int] | npt.NDArray[np.int64],
        *,
        strict: bool = True,
    ) -> Examples:
        """Normalize raw inputs; those that cannot be read stay, and count as errors.

        Parameters
        ----------
        raw : numpy.ndarray
            The inputs.
        labels : sequence of int
            Class indices, one for each.
        strict : bool (default: True)
            Whether to take it for a mistake of format if half of them or more cannot be read.

        Returns
        -------
        fedcert.data.Examples
            As many as there are inputs, in their order.

        Raises
        ------
        DataError
            If it is a mistake of format. The message says what `normalize` says.
        """
        classes = np.array(labels, dtype=np.int64)
        try:
            return Examples(self.normalize(raw), classes)
        except DataError as error:
            # None of the examples, if it can be had: whether a threshold is chosen by this one
            # is then no matter of which example certifies, or of their order in a file.
            fill = self.stand_in()
            rows = range(len(raw) if np.ndim(raw) and len(raw) == len(classes) else 0)
            good = np.array([self._can_read(raw[row : row + 1]) for row in rows], dtype=bool)
            nothing = not len(good) or (fill is None and not good.any())
            if nothing or (strict and 2 * good.sum() <= len(good)):
                raise _of_format(error, int(len(good) - good.sum()), len(good)) from error
        # One by one: what can be read alone may not look like the others.
        alone = [self.normalize(raw[row : row + 1]) for row in np.flatnonzero(good)]
        known = [alone[0] if fill is None else fill, *alone]
        inputs = np.concatenate(known)[np.where(good, np.cumsum(good), 0)]
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
        The range of raw values; it is mapped linearly onto [-1, 1], or onto [0, 1] and then
        normalized.
    mean, std : tuple of float, optional
        What is subtracted from each channel of [0, 1], and what it is divided by then.
    layout : str, optional
        How raw images come: ``"CHW"`` (channels, height, width) or ``"HWC"``, and nothing
        else is taken. By default it is seen from their shapes.
    """

    channels: int
    height: int
    width: int
    low: float
    high: float
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    layout: str | None = None

    kind: ClassVar[str] = "image"

    def __post_init__(self) -> None:
        if self.layout not in {None, *LAYOUTS}:
            raise DataError(
                f"there is no layout {self.layout!r}; choose {' or '.join(LAYOUTS)}"
            )
        for name in ("mean", "std"):
            numbers = getattr(self, name)
            if numbers is None:
                continue
            if len(numbers) != self.channels:
                raise DataError(
                    f"{name} has {len(numbers)} numbers for {self.channels} channels"
                )
            numbers = tuple(map(float, numbers))
            if not np.isfinite(numbers).all() or (name == "std" and min(numbers) <= 0):
                raise DataError(f"{name} of images must be finite, and std positive: {numbers}")
            object.__setattr__(self, name, numbers)
        if (self.mean is None) != (self.std is None):
            raise DataError("mean and std of images are given together, or neither")

    @classmethod
    def of(
        cls,
        name: str,
        *,
        channels: int,
        height: int,
        width: int,
        low: float = 0.0,
        high: float = 255.0,
        layout: str | None = None,
        revision: str | None = None,
    ) -> Self:
        """Describe images for a model, normalized as its image processor does.

        Parameters
        ----------
        name : str
            Folder or hub id of the model. Without ``preprocessor_config.json`` pixels are
            mapped onto [-1, 1].
        channels, height, width, low, high, layout
            As in the constructor.
        revision : str, optional
            Hub revision.

        Returns
        -------
        ImageInputs
            The description, with mean and deviation of the image processor.

        Raises
        ------
        ModelError
            If the image processor does not fit the images.
        """
        from fedcert.models.image_processor import pixel_statistics

        found = pixel_statistics(name, channels=channels, revision=revision)
        if found == ((0.5,) * channels, (0.5,) * channels):
            found = None  # this is [-1, 1], which needs no words
        mean, std = found or (None, None)
        return cls(channels, height, width, low, high, mean, std, layout)

    def normalize(self, raw: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Bring images into shape ``(n, channels, height, width)``, float32.

        They may come in this shape, flat, without channels if there is one, or as
        ``(n, height, width, channels)`` if that can be nothing else.
        """
        values = self._arranged(stack_numbers(np.asarray(raw)))
        self._check_values(values.reshape(len(values), prod(self._shape)))
        return values.astype(np.float32)

    def stand_in(self) -> npt.NDArray[np.float32]:
        """Return an image that is `low` everywhere."""
        return np.full((1, *self._shape), self.low, dtype=np.float32)

    def remarks(self, raw: npt.NDArray[Any], inputs: npt.NDArray[Any]) -> tuple[str, ...]:
        """Say if channels stood last, or if values fill a small part of their range."""
        found = []
        shapes = [shape_of(image) for image in raw] if self.layout is None else []
        if self.channels > 1 and any(len(shape) == 1 for shape in shapes):
            found.append(
                "the images are rows of numbers, which were read in the order channels, "
                "height, width; state the layout"
            )
        if any(map(self._has_channels_last, shapes)):
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
            advice = "resize the images first"
            if len(shape) == 1:  # every column but the label's was taken for a pixel
                advice += ", or leave out columns that are no pixels"
            raise DataError(
                f"an image has {prod(shape)} values, but this model takes {self.channels} x "
                f"{self.height} x {self.width} = {size}; {advice}"
            )
        if self.layout is not None:
            return self._as_stated(values)
        if self._has_channels_last(shape):
            return np.moveaxis(values, -1, 1)
        if len(shape) < 2 or shape[-3:] == self._shape[-len(shape) :]:
            return values.reshape(len(values), *self._shape)
        raise DataError(
            f"the images have the shape {shape}, and this model takes {self._shape}: channels, "
            "height, width; transpose them first"
        )

    def _as_stated(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return images of the stated layout, whole, as rows of numbers, or gray."""
        last = self.layout == "HWC"
        size = (self.height, self.width)
        stated = (*size, self.channels) if last else (self.channels, *size)
        gray = [size] if self.channels == 1 else []
        if values.shape[1:] not in [stated, (prod(stated),), *gray]:
            raise DataError(
                f"the images have the shape {values.shape[1:]}, and {stated} was stated "
                f"({self.layout}); transpose them, or state the layout that they have"
            )
        images = values.reshape(len(values), *stated)
        return np.moveaxis(images, -1, 1) if last else images

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

    def bound_to(self, base: BaseModel) -> Self:
        """Make sure that images are of the base model's size, where it takes one size alone."""
        config: Any = base.model.config
        side = getattr(config, "image_size", None)
        size = (side, side) if isinstance(side, int) else tuple(side or ())
        channels = getattr(config, "num_channels", None)
        if config.model_type in _ONE_SIZE and len(size) == 2:
            wanted = (channels or self.channels, *size)
            if self._shape != wanted:
                own, theirs = (" x ".join(map(str, shape)) for shape in (self._shape, wanted))
                raise ModelError(
                    f"images of {own} (channels x height x width) do not fit the base model "
                    f"{base.name!r}, which takes {theirs}; resize the images first"
                )
        return self

    def encode(self, inputs: npt.NDArray[Any]) -> dict[str, torch.Tensor]:
        """Map raw values onto [-1, 1], or normalize them with mean and deviation."""
        if self.mean is None or self.std is None:
            scaled = (inputs - self.low) * (2.0 / (self.high - self.low)) - 1.0
        else:
            unit = (inputs - self.low) / (self.high - self.low)
            mean, std = (np.reshape(each, (-1, 1, 1)) for each in (self.mean, self.std))
            scaled = (unit - mean) / std
        return {"pixel_values": torch.from_numpy(np.ascontiguousarray(scaled, np.float32))}

    def to_config(self) -> dict[str, Any]:
        """Return the constructor arguments with ``kind``."""
        stated = {name: value for name, value in asdict(self).items() if value is not None}
        lists = {n: list(stated[n]) for n in ("mean", "std") if n in stated}
        return {"kind": self.kind} | stated | lists


def _of_format(error: DataError, unread: int, count: int) -> DataError:
    """Say that so many inputs cannot be read that the format must be the mistake."""
    if count < 2:
        return error
    told = f"{unread} of {count} inputs cannot be read, so this is a mistake of format"
    if isinstance(error, RowError):
        return RowError(error.row, f"{error.reason}; {told}")
    return DataError(f"{told}: {error}")
