"""Choosing hyper-parameters on clients that are held out for it, for every method alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedcert.errors import SettingsError
from fedcert.planning import best_by_size

__all__ = ["Trial", "tuned"]


@dataclass(frozen=True)
class Trial:
    """What one variant certified for one tuning client.

    Attributes
    ----------
    variant : int
        Its number among the method's variants.
    n : int
        Size of the support set.
    certificate : float
        The bound.
    """

    variant: int
    n: int
    certificate: float


def tuned(trials: Iterable[Trial], sizes: Sequence[int]) -> Mapping[int, int]:
    """Return the variant with the best certificates, by n.

    The planner's rule (`fedcert.planning.best_by_size`), for any method. A size that no
    tuning client reaches takes the choice of the next smaller one.

    Raises
    ------
    SettingsError
        If there is nothing to choose from at the smallest size.
    """
    found: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for trial in trials:
        found[trial.n][trial.variant].append(trial.certificate)
    best = best_by_size(found)
    chosen: dict[int, int] = {}
    last: int | None = None
    for n in sorted(sizes):
        last = best.get(n, last)
        if last is None:
            raise SettingsError(
                f"no tuning client has {n} examples; use smaller support sets, or tuning "
                "clients with more"
            )
        chosen[n] = last
    return chosen
