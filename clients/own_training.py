"""A training loop of somebody's own, as an upstream client's ClientApp may bring one."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedcert.adapters import AdaptedModel, AdapterSpace, FinetuneSettings
from fedcert.data.examples import Examples
from fedcert.errors import AdapterError

__all__ = ["Training", "checked_vector", "name_of"]


class Training(Protocol):
    """A function that trains an adapter on a client's examples.

    It gets the base model in the federation's adapter space, whose `logits` are
    differentiable in the adapter's vector, the examples, a seed of this client's own, and the
    settings under which fedcert's loop would train; it returns the vector, shape ``(d,)``.
    """

    def __call__(
        self,
        model: AdaptedModel,
        examples: Examples,
        *,
        seed: int,
        settings: FinetuneSettings,
    ) -> npt.NDArray[np.floating]:
        """Train, and return the adapter's vector."""
        ...


def name_of(training: Training) -> str:
    """Return what a loop is called; a release under privacy goes by it."""
    kind = type(training)
    named = training if hasattr(training, "__qualname__") else kind
    return f"{getattr(named, '__module__', kind.__module__)}.{named.__qualname__}"


def checked_vector(vector: object, space: AdapterSpace) -> npt.NDArray[np.float32]:
    """Return what a loop made, as a float32 vector of the space.

    Raises
    ------
    AdapterError
        If it is none, or not finite.
    """
    array = np.asarray(vector)
    if array.shape != (space.dimension,) or array.dtype.kind != "f":
        raise AdapterError(
            f"the training loop returned {array.dtype} of shape {array.shape}; it must return "
            f"a vector of {space.dimension} floats, an adapter of the model's space"
        )
    if not np.isfinite(array).all():
        raise AdapterError(
            "the training loop returned numbers that are not finite; lower its learning rate"
        )
    return array.astype(np.float32)
