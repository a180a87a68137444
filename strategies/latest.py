"""The bundle of an earlier run, and whether it still serves: the rule for refitting."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from fedcert.bundles import Bundle
from fedcert.planning import Plan

__all__ = ["LatestBundle"]

_ROUNDING = 1e-9  # a tenth of 30 is 3, not a little more


@dataclass(frozen=True)
class LatestBundle:
    """What new clients get unless enough has changed.

    The rule reads who has an adapter, and nothing else; in particular no certificate. A refit
    that depended on what was certified would make the next prior depend on the examples
    behind it.

    Attributes
    ----------
    bundle : Bundle
        As it was published.
    clients : frozenset of str
        Whose adapters its prior was fitted to.
    refit_after : float
        New adapters after which the prior is refitted: a number from 1 on, or a share of
        `clients` below 1. Any one new adapter is enough at 0.
    outdated : bool (default: False)
        Whether the settings ask for another prior or other recipes by now.
    """

    bundle: Bundle
    clients: frozenset[str]
    refit_after: float
    outdated: bool = False

    def suffices(self, clients: Collection[str]) -> bool:
        """Whether it serves as it is when `clients` have adapters."""
        return not self.outdated and len(set(clients) - self.clients) < self._enough

    @property
    def plan(self) -> Plan | None:
        """Its plan, if there is one and the settings still ask for such a plan."""
        return None if self.outdated else self.bundle.plan

    @property
    def _enough(self) -> int:
        wanted = self.refit_after
        count = wanted if wanted >= 1 else wanted * len(self.clients)
        return max(1, math.ceil(count - _ROUNDING))
