"""What travels in federated averaging: the shared tensors of an adapter, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.adapters.codec import encode
from fedcert.adapters.space import AdapterSpace
from fedcert.errors import AdapterError
from fedcert.methods.federated import FederatedSettings

__all__ = ["BASIS", "WORDS", "shared_tensors", "with_zero_head"]

BASIS = "basis"
"""Key of the record with the adapter space's basis."""

WORDS = "json"
"""Key in the configuration under which settings and space stand, as JSON."""


def shared_tensors(
    space: AdapterSpace, vector: npt.NDArray[Any], federated: FederatedSettings
) -> dict[str, npt.NDArray[np.float32]]:
    """Return the named tensors of an adapter that clients share: not the head in FedRep.

    Parameters
    ----------
    space : AdapterSpace
        The adapter's coordinates.
    vector : numpy.ndarray
        The adapter, shape ``(d,)``.
    federated : FederatedSettings
        Says whether heads are shared.

    Returns
    -------
    dict
        Float32 arrays by name.
    """
    head = set() if federated.averages_head else {tensor.name for tensor in space.head}
    return {name: part for name, part in encode(space, vector).items() if name not in head}


def with_zero_head(
    space: AdapterSpace, tensors: Mapping[str, npt.NDArray[Any]], federated: FederatedSettings
) -> dict[str, npt.NDArray[Any]]:
    """Return tensors from `shared_tensors` with a head of zeros, if heads are not shared.

    Parameters
    ----------
    space : AdapterSpace
        The adapter's coordinates.
    tensors : Mapping
        Named arrays, as a client sent them.
    federated : FederatedSettings
        Says whether heads are shared.

    Returns
    -------
    dict
        All tensors of the space, by name.

    Raises
    ------
    AdapterError
        If there is a head that should have stayed home.
    """
    if federated.averages_head:
        return dict(tensors)
    zeros = {t.name: np.zeros(t.shape, dtype=np.float32) for t in space.head}
    if extra := sorted(zeros.keys() & tensors.keys()):
        raise AdapterError(f"it sent {extra[0]!r}, but heads stay with their clients")
    return dict(tensors) | zeros
