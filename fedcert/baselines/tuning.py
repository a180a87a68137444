"""Choosing hyper-parameters on clients that are held out for it, for every method alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedcert.errors import SettingsError
from fedcert.planning import cautious_mean, enough_to_choose

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
    """Return the variant with the lowest `cautious_mean` of its certificates, by n.

    The planner's rule (`fedcert.planning.Plan`), for any method. Only variants that were
    tried on all clients at that n take part; of equal ones the first wins. A size that no
    tuning client reaches, or too few (`fedcert.planning.enough_to_choose`), takes the choice
    of the next smaller one.

    Raises
    ------
    SettingsError
        If there is nothing to choose from at the smallest size.
    """
    found: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for trial in trials:
        found[trial.n][trial.variant].append(trial.certificate)
    chosen: dict[int, int] = {}
    last: int | None = None
    before = 0
    for n in sorted(sizes):
        clients = max(map(len, found[n].values()), default=0)
        if clients and enough_to_choose(clients, before):
            last, before = _best(found[n]), clients
        if last is None:
            raise SettingsError(
                f"no tuning client has {n} examples; use smaller support sets, or tuning "
                "clients with more"
            )
        chosen[n] = last
    return chosen


def _best(certificates: Mapping[int, Sequence[float]]) -> int:
    most = max(len(values) for values in certificates.values())
    rank: Callable[[int], tuple[float, int]] = lambda variant: (  # noqa: E731
        round(cautious_mean(certificates[variant]), 6),
        variant,
    )
    return min((v for v, values in certificates.items() if len(values) == most), key=rank)
