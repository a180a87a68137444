"""The server's part in a round of the warm start: what is averaged, how, with which weights.

Flower's `FedAvgM` and `FedAdam` keep every reply until they average, take the number of
examples on trust, and know no Nesterov step; so this is done here, on arrays, one reply at a
time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fedcert.warm_start.trunk import Trunk, TrunkTensors

__all__ = [
    "MOST_SHARE",
    "RoundMean",
    "ServerOptimizer",
    "capped_simplex",
    "norm_of",
    "round_weights",
    "shortened",
    "tail_weights",
]

MOST_SHARE = 3.0
"""Most weight of a client, in multiples of that of a mean client: beyond it whoever reports
many examples, or a high loss, would steer everybody's trunk."""
_LARGEST_NORM = 3.0  # in multiples of the round's median


def norm_of(delta: TrunkTensors) -> float:
    """Return the length of a delta, all modules together."""
    squares = [np.square(array, dtype=np.float64).sum() for array in delta.values()]
    return float(np.sqrt(np.sum(squares)))


def shortened(delta: TrunkTensors, norm: float, median: float) -> TrunkTensors:
    """Shorten a delta that is much longer than the others of its round.

    Parameters
    ----------
    delta : TrunkTensors
        Of one client.
    norm, median : float
        Its length, and the median length of the round.

    Returns
    -------
    TrunkTensors
        The delta, no longer than three medians.
    """
    limit = _LARGEST_NORM * median
    if norm <= limit:
        return delta
    return {name: array * np.float32(limit / norm) for name, array in delta.items()}


def capped_simplex(values: npt.NDArray[np.float64], cap: float) -> npt.NDArray[np.float64]:
    """Project onto the weights between 0 and a cap that sum to 1.

    Parameters
    ----------
    values : numpy.ndarray
        Shape ``(n,)``.
    cap : float
        At least 1/n.

    Returns
    -------
    numpy.ndarray
        The nearest such weights: ``clip(values - t, 0, cap)`` with t by bisection.
    """
    cap = max(cap, 1 / len(values))
    low, high = float(values.min()) - cap, float(values.max())
    for _ in range(200):
        middle = (low + high) / 2
        if np.clip(values - middle, 0.0, cap).sum() > 1:
            low = middle
        else:
            high = middle
    weights = np.clip(values - high, 0.0, cap)
    return np.asarray(weights / weights.sum())


def round_weights(
    examples: Sequence[int], tail: Sequence[float] | None = None
) -> npt.NDArray[np.float64]:
    """Return the weights of a round's clients, which sum to 1, each at most three in n.

    Parameters
    ----------
    examples : sequence of int
        What each client says it has.
    tail : sequence of float, optional
        Their weights by `tail_weights`, which take the place of the numbers of examples.

    Returns
    -------
    numpy.ndarray
        Shape ``(n,)``.
    """
    raw = np.asarray(examples if tail is None else tail, dtype=np.float64)
    return capped_simplex(raw / raw.sum(), MOST_SHARE / len(raw))


def tail_weights(
    weights: Mapping[str, float], losses: Mapping[str, float], *, rate: float
) -> dict[str, float]:
    """Move weight to clients with a high loss: one step of ascent on the simplex.

    The game of Collins et al., "Task-Robust Model-Agnostic Meta-Learning" (NeurIPS 2020), with
    a cap on every weight: a client that reports an infinite loss must not take over.

    Parameters
    ----------
    weights : Mapping[str, float]
        Of all clients, which sum to 1.
    losses : Mapping[str, float]
        After adaptation (nats), of those that took part in the round.
    rate : float
        Of the ascent, in multiples of a mean client's weight per nat.

    Returns
    -------
    dict
        The new weights.
    """
    names, count = sorted(weights), len(weights)
    values = np.array([weights[name] for name in names])
    # A loss that says less than any guess among many labels does is no loss of a client.
    steps = np.array([np.clip(losses.get(name, 0.0), 0.0, 10.0) for name in names])
    moved = capped_simplex(values + rate / count * steps, MOST_SHARE / count)
    return dict(zip(names, moved.tolist(), strict=True))


class RoundMean:
    """A weighted mean that is made while deltas come, with one model in memory.

    `total` is the mean once the weights that were added sum to 1.
    """

    def __init__(self, trunk: Trunk) -> None:
        self.total = {
            name: np.zeros(shape, dtype=np.float64) for name, shape in trunk.shapes().items()
        }

    def add(self, delta: TrunkTensors, weight: float) -> None:
        """Add a client's delta with its weight."""
        for name, array in delta.items():
            self.total[name] += weight * array


@dataclass
class ServerOptimizer:
    """Moves the trunk along the mean of the clients' deltas.

    With the defaults it is plain averaging. DiLoCo (Douillard et al., arXiv 2311.08105) has a
    rate of .7, a momentum of .9, and Nesterov's step.

    Parameters
    ----------
    rate : float (default: 1)
        eta: x <- x + eta * d.
    momentum : float (default: 0)
        mu: m <- mu * m + delta, and d is m; with `nesterov` d is delta + mu * m.
    nesterov : bool (default: False)
        Look ahead.
    moments : dict
        m of every module; empty before the first step.
    """

    rate: float = 1.0
    momentum: float = 0.0
    nesterov: bool = False
    moments: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)

    def step(
        self, trunk: TrunkTensors, mean: Mapping[str, npt.NDArray[np.float64]]
    ) -> TrunkTensors:
        """Return the trunk after a round.

        Parameters
        ----------
        trunk : TrunkTensors
            Before it.
        mean : Mapping[str, numpy.ndarray]
            The mean of the deltas.

        Returns
        -------
        TrunkTensors
            After it.
        """
        after = {}
        for name, delta in mean.items():
            if self.momentum:
                moment = self.momentum * self.moments.get(name, 0.0) + delta
                self.moments[name] = moment
                delta = delta + self.momentum * moment if self.nesterov else moment  # noqa: PLW2901
            after[name] = (trunk[name] + self.rate * delta).astype(np.float32)
        return after
