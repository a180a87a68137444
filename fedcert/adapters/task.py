"""A task: base model, adapter space, inputs, and labels, which only mean something together."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from fedcert.adapters.forward import AdaptedModel
from fedcert.adapters.peft_format import write_peft_adapter
from fedcert.adapters.prefix_cache import PrefixCache
from fedcert.adapters.space import AdapterSpace
from fedcert.arrays import FloatArray
from fedcert.data.examples import Examples
from fedcert.data.inputs import InputSpec
from fedcert.errors import AdapterError
from fedcert.models.base import BaseModel

if TYPE_CHECKING:
    from fedcert.label_set import LabelSet

__all__ = ["Task"]


@dataclass(frozen=True)
class Task:
    """What adapters are for: a base model, the space they live in, inputs, and labels.

    A task that exists fits together: the space is the base model's, and the inputs are bound
    to it.

    Parameters
    ----------
    base : BaseModel
        The frozen model.
    space : AdapterSpace
        The coordinates of the adapters.
    inputs : InputSpec
        How inputs are encoded.
    labels : tuple of str, optional
        Names of the classes by index; by default the base model's own. Empty where the labels
        are the client's own and none were given yet.

    Raises
    ------
    AdapterError
        If the space belongs to another base model.
    ModelError
        If the inputs do not fit the base model.
    """

    base: BaseModel
    space: AdapterSpace
    inputs: InputSpec
    labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.base.goes_by(self.space.base_digest):
            raise AdapterError(
                f"the adapter space belongs to another base model "
                f"({self.space.base_digest[:12]} instead of {self.base.digest[:12]})"
            )
        object.__setattr__(self, "inputs", self.inputs.bound_to(self.base))
        if self.labels is None:
            object.__setattr__(self, "labels", self.base.label_names)

    @property
    def label_set(self) -> LabelSet | None:
        """The client's own labels; None if the labels are the base model's, or none yet."""
        own: LabelSet | None = getattr(self.base.model, "labels", None)
        return own

    def model(
        self, *, prefix_cache: PrefixCache | None = None, reduce_top: bool = True
    ) -> AdaptedModel:
        """Return the base model that runs with adapters of this task; see `AdaptedModel`."""
        return AdaptedModel(self, prefix_cache=prefix_cache, reduce_top=reduce_top)

    def encode(self, examples: Examples) -> dict[str, torch.Tensor]:
        """Turn the inputs of examples into keyword arguments of the model's ``forward``."""
        return self.inputs.encode(examples.inputs)

    @contextmanager
    def exported(self, vector: FloatArray) -> Iterator[Path]:
        """Export an adapter for as long as the context lasts.

        Parameters
        ----------
        vector : numpy.ndarray
            The adapter, shape ``(d,)``, or as `AdapterSpace.holding` says.

        Yields
        ------
        Path
            Its folder.
        """
        with tempfile.TemporaryDirectory() as folder:
            path, base = Path(folder), self.base
            write_peft_adapter(self.space, vector, path, base_name=base.name, base=base)
            yield path

    def with_labels(
        self,
        labels: LabelSet | Sequence[str],
        *,
        descriptions: Mapping[str, str] | None = None,
    ) -> Task:
        """Return the task for a client's labels; see `BaseModel.with_labels`."""
        base = self.base.with_labels(labels, descriptions=descriptions)
        return replace(self, base=base, labels=base.label_names)
