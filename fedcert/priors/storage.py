"""Saving and loading priors: JSON for the settings, safetensors for the arrays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedcert.atomic import write_atomically
from fedcert.canonical import canonical_json
from fedcert.errors import PriorError
from fedcert.priors.base import Prior
from fedcert.priors.registry import prior_from_parts

__all__ = ["load_prior", "save_prior"]


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
