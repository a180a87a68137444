"""What a method transfers: bytes that follow from its settings and the adapter space."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from fedcert.adapters.space import AdapterSpace
from fedcert.methods.base import AveragingMethod, Method, State

__all__ = ["Traffic", "traffic_of"]

_FLOAT32 = 4


@dataclass(frozen=True)
class Traffic:
    """Bytes of arrays, beside the base model and the basis of the space, which all take.

    Attributes
    ----------
    up, down : float
        Of an upstream client in the mean, in all its rounds.
    new : int or None
        What a new client receives; None where a fit decides it.
    """

    up: float
    down: float
    new: int | None


def traffic_of(method: Method, space: AdapterSpace, *, upstream: int) -> Traffic:
    """Return what a method transfers in a federation.

    Parameters
    ----------
    method : Method
        With its settings.
    space : AdapterSpace
        The coordinates of adapters.
    upstream : int
        How many upstream clients there are, which share the rounds.

    Returns
    -------
    Traffic
        In bytes.
    """
    if isinstance(method, AveragingMethod):
        state = method.start(space, seed=0)
        drawn = min(method.federated.clients_per_round or upstream, upstream)
        share = method.rounds * drawn / max(1, upstream)
        rounds = [method.expects(space, state, n + 1) for n in range(method.rounds)]
        shapes = [shape for expected in rounds for shape in expected.values()]
        up = sum(prod(shape) * _FLOAT32 for shape in shapes) / method.rounds
        return Traffic(up * share, _size(state) * share, _published(method, space, state))
    if method.asks == "adapters":
        new = None if method.kind == "prior" else _published(method, space, {})
        return Traffic(space.dimension * _FLOAT32, 0.0, new)
    return Traffic(0.0, 0.0, 0)


def _size(state: State) -> int:
    return sum(array.nbytes for array in state.values())


def _published(method: Method, space: AdapterSpace, state: State) -> int:
    return sum(array.nbytes for array in method.published(space, state).tensors().values())
