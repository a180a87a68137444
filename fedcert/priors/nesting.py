"""Saving a prior inside another one, as a prior that is made from another has to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from fedcert.priors.base import Prior
from fedcert.priors.registry import prior_from_parts

__all__ = ["nested_config", "nested_prior", "nested_tensors"]

_PREFIX = "rest."


def nested_config(prior: Prior) -> dict[str, Any]:
    """Return kind and settings of the inner prior, under the key ``rest``."""
    return {"rest": {"kind": prior.kind, "config": prior.config()}}


def nested_tensors(prior: Prior) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of the inner prior, under names that no other array has."""
    return {f"{_PREFIX}{name}": array for name, array in prior.tensors().items()}


def nested_prior(config: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]) -> Prior:
    """Rebuild the inner prior from the outer one's `config` and `tensors`.

    Raises
    ------
    PriorError
        If its kind is unknown, or settings and arrays do not make up such a prior.
    """
    inner = {
        name.removeprefix(_PREFIX): array
        for name, array in tensors.items()
        if name.startswith(_PREFIX)
    }
    return prior_from_parts(config["rest"]["kind"], config["rest"]["config"], inner)
