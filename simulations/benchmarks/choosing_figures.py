"""What the page on recipes compares: certificates beside the plan's, on the same clients.

A method of a record has a *kind*, by which the page asks its questions: is the default adapter
alone enough, a fine-tune, training alone?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

__all__ = [
    "BEST_OF",
    "FIRM",
    "KINDS",
    "PLAN",
    "Difference",
    "Figure",
    "Mean",
    "Task",
    "compared",
    "mean_of",
]

PLAN = "plan"
KINDS = {
    "default": "the default adapter alone",
    "head": "a head that is trained from the default adapter",
    "finetune": "a fine-tune of the default adapter",
    "search": "the prior searched without a plan",
    "posterior": "a posterior split",
    "alone": "training or certifying alone",
    "federated": "another federated method",
}
"""What is compared with the plan, and how the page calls it."""

BEST_OF = ("alone", "federated")
"""Kinds of which the page takes the best at each n, with hindsight."""

FIRM = 3
"""So many seeds a difference takes before a sentence rests on it."""


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Attributes
    ----------
    value : float
        The mean of the seeds' means.
    se : float or None
        The larger of its standard errors over seeds and over clients, as far as they are known.
    seeds, clients : int
        How many there are, clients of all seeds together.
    """

    value: float
    se: float | None
    seeds: int
    clients: int

    @property
    def is_nothing(self) -> bool:
        """Whether it is 0 in every seed: what was compared is the same."""
        return self.value == 0 and not self.se

    @property
    def sign(self) -> int:
        """1 or -1 if it is more than two standard errors from 0, else 0."""
        if self.se is None or abs(self.value) <= 2 * self.se:
            return 0
        return 1 if self.value > 0 else -1


@dataclass(frozen=True)
class Figure:
    """What a method gives at one n, as a mean over one seed's new clients.

    Attributes
    ----------
    certificate : float
        The mean certificate.
    clients : int
        How many clients it was measured on.
    gap : float
        How much higher it is than the plan's on these clients.
    se, gap_se : float, optional
        Standard errors of both over clients.
    """

    certificate: float
    clients: int
    gap: float
    se: float | None = None
    gap_se: float | None = None


BySeed = dict[int, Figure]


@dataclass(frozen=True)
class Task:
    """One task of one record.

    Attributes
    ----------
    name : str
        How the page calls it.
    record : str
        Where its figures are from.
    kinds : dict
        The kind of each method: `PLAN`, or one of `KINDS`.
    figures : dict
        By method and n, and then by seed.
    limits : dict
        By n and seed; under one seed alone if all of them share it.
    planned : dict
        The recipes that were planned, by n, in the order of the seeds.
    """

    name: str
    record: str
    kinds: dict[str, str] = field(default_factory=dict)
    figures: dict[str, dict[int, BySeed]] = field(default_factory=dict)
    limits: dict[int, dict[int, float]] = field(default_factory=dict)
    planned: dict[int, list[str]] = field(default_factory=dict)

    @property
    def plan(self) -> dict[int, BySeed]:
        """Figures of the plan by n; empty without one."""
        for method, kind in self.kinds.items():
            if kind == PLAN:
                return self.figures[method]
        return {}

    @property
    def sizes(self) -> list[int]:
        """Values of n for which there is a plan."""
        return sorted(self.plan)

    def recipes(self, n: int) -> list[str]:
        """Return what was planned for n: a size without a plan takes the next smaller one's."""
        size = max((size for size in self.planned if size <= n), default=None)
        return [] if size is None else list(dict.fromkeys(self.planned[size]))

    @property
    def seeds(self) -> int:
        """How many seeds have a plan at any n."""
        return len({seed for found in self.plan.values() for seed in found})

    @property
    def clients(self) -> int:
        """New clients of all seeds together."""
        return max(
            (sum(one.clients for one in found.values()) for found in self.plan.values()),
            default=0,
        )

    def add(self, method: str, kind: str, n: int, seed: int, figure: Figure) -> None:
        """Add a figure.

        Parameters
        ----------
        method, kind : str
            Whose it is, and what that stands for beside the plan.
        n, seed : int
            Labels of a client, and the federation.
        figure : Figure
            What was measured.
        """
        self.kinds[method] = kind
        self.figures.setdefault(method, {}).setdefault(n, {})[seed] = figure

    def certificates(self, method: str) -> dict[int, Mean]:
        """Return a method's mean certificates by n, on the seeds that have a plan."""
        found = {}
        for n, by_seed in sorted(self.figures[method].items()):
            own = [one for seed, one in by_seed.items() if seed in self.plan.get(n, {})]
            if own:
                found[n] = mean_of([(one.certificate, one.se, one.clients) for one in own])
        return found

    def gaps(self, method: str, n: int) -> Mean | None:
        """Return how much higher than the plan a method is at n; None if nothing is shared."""
        shared = self.plan.get(n, {}).keys() & self.figures[method].get(n, {}).keys()
        own = [self.figures[method][n][seed] for seed in sorted(shared)]
        return mean_of([(one.gap, one.gap_se, one.clients) for one in own]) if own else None

    def methods(self, kind: str) -> list[str]:
        """Return the methods of a kind."""
        return [method for method, own in self.kinds.items() if own == kind]

    def rivals(self, kind: str, n: int) -> dict[str, Mean]:
        """Return how much higher each method of a kind is, of those on the most clients."""
        found = {method: self.gaps(method, n) for method in self.methods(kind)}
        known = {method: gap for method, gap in found.items() if gap is not None}
        most = max((gap.clients for gap in known.values()), default=0)
        return {method: gap for method, gap in known.items() if gap.clients == most}


@dataclass(frozen=True)
class Difference:
    """What a kind gives beside the plan, at one n of a task."""

    task: Task
    kind: str
    method: str
    n: int
    gap: Mean


def mean_of(values: Sequence[tuple[float, float | None, int]]) -> Mean:
    """Average over seeds.

    Parameters
    ----------
    values : sequence of tuple
        For each seed the mean, its standard error over clients, and the number of clients.
    """
    means, errors = [mean for mean, _, _ in values], [se for _, se, _ in values]
    known = [se for se in errors if se is not None]
    spreads = []
    if len(means) > 1:
        spreads.append(stdev(means) / len(means) ** 0.5)
    if len(known) == len(means):
        spreads.append(sum(se**2 for se in known) ** 0.5 / len(known))
    clients = sum(count for _, _, count in values)
    return Mean(fmean(means), max(spreads, default=None), len(means), clients)


def compared(task: Task, kind: str) -> list[Difference]:
    """Return a kind beside the plan at each n: the lowest of its methods, or the first.

    Only those of `BEST_OF` are chosen by their figures.
    """
    found = []
    for n in task.sizes:
        rivals = task.rivals(kind, n)
        if rivals:
            best = min(rivals, key=lambda name: rivals[name].value if kind in BEST_OF else 0)
            found.append(Difference(task, kind, best, n, rivals[best]))
    return found
