"""Which priors there are, by the kind that settings and bundles name.

The variants are entered in `fedcert.priors`; somebody's own enters with `register_prior`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy.typing as npt

from fedcert.errors import PriorError, UnknownKindError
from fedcert.extensions import Kinds
from fedcert.priors.base import Prior

__all__ = ["PRIORS", "prior_from_parts", "register_derived", "register_prior"]

PriorType = TypeVar("PriorType", bound=type[Prior])


class UnknownPriorError(UnknownKindError, PriorError):
    """No prior of this kind is registered."""


PRIORS: Kinds[Prior] = Kinds("prior", UnknownPriorError)
"""Priors that can be fitted to a pool, so that settings may name them."""

# All that bundles may name: some are made from another prior, so they are none to choose from.
_STORED: Kinds[Prior] = Kinds("prior", UnknownPriorError)


def register_prior(cls: PriorType) -> PriorType:
    """Let settings and bundles of this process name a prior by its kind; a class decorator.

    Raises
    ------
    ValueError
        If the class is not complete, or another one has its kind.
    """
    return PRIORS.register(_STORED.register(cls))


register_derived = _STORED.register
"""Lets bundles name a prior that is made from another one and fitted to no pool."""


def prior_from_parts(
    kind: str, config: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]
) -> Prior:
    """Rebuild a prior from its kind, settings and arrays.

    Parameters
    ----------
    kind : str
        The registered kind.
    config : Mapping
        Its settings, a JSON object (`Prior.config`).
    tensors : Mapping
        Its arrays by name (`Prior.tensors`).

    Returns
    -------
    Prior
        A prior with the same digest as the one that was saved.

    Raises
    ------
    PriorError
        If the kind is unknown, or settings and arrays do not make up such a prior.
    """
    cls = _STORED.named(kind)
    try:
        return cls.from_parts(config, tensors)
    except (KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise PriorError(f"the {kind} prior is damaged: {error}") from error
