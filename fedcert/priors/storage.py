"""Saving and loading priors: JSON for the settings, safetensors for the arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedcert.atomic import write_atomically
from fedcert.canonical import canonical_json
from fedcert.errors import PriorError, UnknownKindError
from fedcert.extensions import enter, unknown_kind
from fedcert.priors.base import Prior
from fedcert.priors.conditioning import ConditionalPrior
from fedcert.priors.diffusion import DiffusionPrior
from fedcert.priors.gaussian import GaussianPrior
from fedcert.priors.interpolated import InterpolatedPrior
from fedcert.priors.resampling import JitterPrior, ResamplingPrior

__all__ = ["PRIORS", "load_prior", "prior_from_parts", "register_prior", "save_prior"]

# One line registers a variant.
PRIORS: dict[str, type[Prior]] = {
    prior.kind: prior for prior in (DiffusionPrior, GaussianPrior, JitterPrior, ResamplingPrior)
}

# They cannot be fitted to a pool alone, so they are none of the priors to choose from.
_ALSO: dict[str, type[Prior]] = {
    prior.kind: prior for prior in (ConditionalPrior, InterpolatedPrior)
}

PriorType = TypeVar("PriorType", bound=type[Prior])


class UnknownPriorError(UnknownKindError, PriorError):
    """No prior of this kind is registered."""


def register_prior(cls: PriorType) -> PriorType:
    """Let settings and bundles of this process name a prior by its kind; a class decorator.

    Raises
    ------
    ValueError
        If the class is not complete, or another one has its kind.
    """
    known = PRIORS | _ALSO
    enter(known, cls, what="prior")
    PRIORS[cls.kind] = cls
    return cls


def prior_from_parts(
    kind: str, config: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]
) -> Prior:
    """Rebuild a prior from its kind, settings and arrays.

    Raises
    ------
    PriorError
        If the kind is unknown, or settings and arrays do not make up such a prior.
    """
    variants = PRIORS | _ALSO
    if kind not in variants:
        raise UnknownPriorError(unknown_kind("prior", kind, PRIORS))
    try:
        return variants[kind].from_parts(config, tensors)
    except (KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise PriorError(f"the {kind} prior is damaged: {error}") from error


def save_prior(prior: Prior, folder: Path) -> None:
    """Write ``prior.json`` and ``prior.safetensors`` into a folder."""
    # safetensors writes the memory behind an array, whatever its order.
    tensors = {name: np.ascontiguousarray(a) for name, a in prior.tensors().items()}
    write_atomically(folder / "prior.safetensors", save(tensors))
    head = {"kind": prior.kind, "config": prior.config(), "digest": prior.digest}
    write_atomically(folder / "prior.json", canonical_json(head))


def load_prior(folder: Path) -> Prior:
    """Read what `save_prior` wrote, and check its digest.

    Raises
    ------
    PriorError
        If a file is missing or damaged, or the digest does not match.
    """
    try:
        head = json.loads((folder / "prior.json").read_text(encoding="utf-8"))
        tensors = load((folder / "prior.safetensors").read_bytes())
        prior = prior_from_parts(head["kind"], head["config"], tensors)
        expected = head["digest"]
    except FileNotFoundError as error:
        raise PriorError(
            f"{folder}: no {Path(error.filename).name}; not a saved prior"
        ) from error
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise PriorError(f"{folder}: the prior is damaged ({error})") from error
    if prior.digest != expected:
        raise PriorError(f"{folder}: the prior is damaged (its digest does not match)")
    return prior
