"""The image processor that comes with a model: how pixels were normalized when it learned."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from fedcert.errors import ModelError

__all__ = ["PROCESSOR_FILE", "pixel_statistics", "read_image_processor"]

PROCESSOR_FILE = "preprocessor_config.json"
_OF_BYTES = 1 / 255


def read_image_processor(name: str, revision: str | None = None) -> dict[str, Any] | None:
    """Read the image processor of a folder or hub id; None where there is none.

    Raises
    ------
    ModelError
        If it is damaged.
    """
    path = _path(name, revision)
    if path is None:
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{name!r}: {PROCESSOR_FILE} is damaged ({error})") from error
    if not isinstance(content, dict):
        raise ModelError(f"{name!r}: {PROCESSOR_FILE} is damaged, not a JSON object")
    return content


def pixel_statistics(
    name: str, *, channels: int, revision: str | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and standard deviation by which pixels in [0, 1] are normalized.

    Parameters
    ----------
    name : str
        Folder or hub id.
    channels : int
        How many channels images have.
    revision : str, optional
        Hub revision.

    Returns
    -------
    tuple or None
        One number for each channel; None where the model comes with no image processor.

    Raises
    ------
    ModelError
        If the image processor is damaged, is for images with other channels, or does
        something else with pixels.
    """
    processor = read_image_processor(name, revision)
    if processor is None or ("image_mean" not in processor and "do_normalize" not in processor):
        return None  # a tokenizer's, say
    scale = processor.get("rescale_factor", _OF_BYTES)
    if not (processor.get("do_rescale", True) and math.isclose(scale, _OF_BYTES, rel_tol=1e-3)):
        raise ModelError(
            f"{name!r}: its image processor does not rescale pixels from [0, 255] to [0, 1], "
            f"as fedcert does; set do_rescale and rescale_factor in {PROCESSOR_FILE}"
        )
    if not processor.get("do_normalize", True):
        return (0.0,) * channels, (1.0,) * channels
    mean, deviation = (_each(name, processor, f"image_{key}") for key in ("mean", "std"))
    for numbers in (mean, deviation):
        if len(numbers) != channels:
            raise ModelError(
                f"{name!r}: its image processor is for {len(numbers)} channels, and the images "
                f"have {channels}; bring them into its channels first"
            )
    return mean, deviation


def _each(name: str, processor: dict[str, Any], key: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(number) for number in processor[key])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{name!r}: {PROCESSOR_FILE} has no usable {key}") from error
    if not all(map(math.isfinite, numbers)) or (key == "image_std" and min(numbers) <= 0):
        raise ModelError(f"{name!r}: {PROCESSOR_FILE} has no usable {key}")
    return numbers


def _path(name: str, revision: str | None) -> Path | None:
    if not name or Path(name).exists():
        path = Path(name) / PROCESSOR_FILE
        return path if name and path.is_file() else None
    from transformers.utils import cached_file

    try:
        found = cached_file(name, PROCESSOR_FILE, revision=revision)
    except OSError:  # there is no such file, or no such model: loading it will say
        return None
    return None if found is None else Path(found)
