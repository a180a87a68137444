"""A plan: the certificate to expect from each recipe at each n, and what follows from it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, Literal, Self

import numpy as np

from fedcert.certificates import Recipe, RecipeTable
from fedcert.certificates.recipes.base import require_integer, require_number
from fedcert.errors import BundleError, CertificateError, RefusalError

__all__ = [
    "Objective",
    "Plan",
    "PlanRow",
    "Replayed",
    "best_by_size",
    "cautious_mean",
    "tail_values",
]

Objective = Literal["mean", "tail"]
"""What recipes are chosen by: the mean over clients, or that over the worst quarter of them."""

# Clients with whom a standard error says something.
_FEWEST = 3
# Share of the clients that are the tail. Of 20 planning clients a tenth would be two.
_TAIL = 0.25


def cautious_mean(bounds: Sequence[float]) -> float:
    """Return the mean of bounds plus its standard error: what choices are made by.

    Among several means of a few clients the lowest is often one that was lucky. Bounds of
    recipes that learn from few examples vary most between clients, so luck favors them, and
    the standard error is what luck is worth. With one client there is no telling.
    """
    if len(bounds) < 2:
        return float(np.mean(bounds))
    return float(np.mean(bounds) + np.std(bounds, ddof=1) / len(bounds) ** 0.5)


def tail_values(bounds: Sequence[float]) -> list[float]:
    """Return values whose mean is that of the worst quarter of bounds.

    With v the bound above which a quarter lies, each bound b becomes v + 4 max(b - v, 0): the
    mean of these is the conditional value at risk (Rockafellar and Uryasev, "Optimization of
    conditional value-at-risk", 2000), also where a quarter is no whole number of clients, and
    their standard error is its own. Of fewer than four clients the worst stands for a quarter.

    Examples
    --------
    >>> np.mean(tail_values([0.1, 0.2, 0.3, 0.4, 0.1, 0.2, 0.3, 0.5])).round(3)
    np.float64(0.45)
    """
    ordered = sorted(bounds)
    start = ordered[math.ceil((1 - _TAIL) * len(ordered)) - 1]
    return [start + max(bound - start, 0.0) / _TAIL for bound in bounds]


def best_by_size(
    bounds: Mapping[int, Mapping[int, Sequence[float]]], *, objective: Objective = "mean"
) -> dict[int, int]:
    """Return what has the lowest `cautious_mean` at each size, by number.

    Only what was tried on all clients of a size takes part there; of equal ones the first
    wins. Few clients have many examples, and the standard error of two means is worth nothing:
    a size that fewer than three clients reach, where more have chosen before, keeps the choice
    of the next smaller one.

    Parameters
    ----------
    bounds : Mapping
        By size, and by number of what was tried: a bound for each client.
    objective : str (default: "mean")
        ``"tail"``: the mean, and its standard error, are those of the worst quarter.
    """
    values_of = tail_values if objective == "tail" else list
    chosen: dict[int, int] = {}
    best, before = 0, 0
    for n, by_number in sorted(bounds.items()):
        # A client that failed at one recipe must not make that recipe look good.
        clients = max(map(len, by_number.values()))
        if clients >= min(_FEWEST, before):
            _, best = min(
                (_rounded(cautious_mean(values_of(values))), number)
                for number, values in by_number.items()
                if len(values) == clients
            )
            before = clients
        chosen[n] = best
    return chosen


@dataclass(frozen=True)
class Replayed:
    """One planning client's outcome of one recipe at one n.

    Attributes
    ----------
    recipe : int
        Number of the recipe in the list that was replayed.
    n : int
        Size of the support set.
    bound : float
        What it would have certified on the first n examples.
    mean : float
        The mean of what it would have certified on disjoint parts of all examples.
    promised : Mapping or None
        What it would have promised beside the bound on the first n examples, by
        `Outcome.planned`; None if the recipe promises nothing (default: None).
    """

    recipe: int
    n: int
    bound: float
    mean: float
    promised: Mapping[str, float] | None = None


# Members of a row that plans of earlier versions do not have.
_OPTIONAL = frozenset({"tail", "promised"})


@dataclass(frozen=True)
class PlanRow:
    """What to expect of the planned recipe at one n.

    Attributes
    ----------
    n : int
        Size of the support set.
    recipe : Recipe
        The one with the lowest `cautious_mean` over the planning clients' means, or over
        their `tail_values`.
    mean : float
        Mean of the planning clients' means.
    low, high : float
        10% and 90% quantiles over the planning clients of a single bound.
    clients : int
        Planning clients that had n examples.
    tail : float or None
        Mean of the worst quarter of the planning clients' means, by which the recipe was
        chosen; None, and absent from a bundle, where it was chosen by the mean.
    promised : Mapping or None
        Means of what it promises beside the bound; None, and absent from the JSON form, if it
        promises nothing (default: None).
    """

    n: int
    recipe: Recipe
    mean: float
    low: float
    high: float
    clients: int
    tail: float | None = None
    promised: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        require_integer("n", self.n, 1, 2**53 - 1)
        require_integer("clients", self.clients, 1, 2**53 - 1)
        self.recipe.require_exportable()
        for name in ("mean", "low", "high", *(["tail"] if self.tail is not None else [])):
            value = getattr(self, name)
            require_number(name, value)
            if not 0 < value <= 1:
                raise CertificateError(f"{name} must lie in (0, 1], not {value}")
        if self.low > self.high:
            raise CertificateError(f"low must not exceed high, as {self.low} does {self.high}")
        if self.aim < self.mean:
            raise CertificateError(
                f"the mean, {self.mean}, must not exceed the tail's {self.aim}"
            )
        check_promised(self.recipe, self.promised)

    @property
    def aim(self) -> float:
        """The number that the recipe was chosen for: the tail's mean, or that of all."""
        return self.mean if self.tail is None else self.tail

    def to_config(self) -> dict[str, Any]:
        """Return the row as a JSON object, in which what does not apply is left out."""
        row = asdict(self) | {"recipe": self.recipe.to_config()}
        return {key: row[key] for key in row if key not in _OPTIONAL or row[key] is not None}


@dataclass(frozen=True)
class Plan:
    """The planned recipe by n, as published in a bundle.

    Parameters
    ----------
    rows : tuple of PlanRow
        By rising n; at least one.
    """

    rows: tuple[PlanRow, ...]

    def __post_init__(self) -> None:
        if not self.rows:
            raise CertificateError("a plan needs at least one row")
        if any(one.n >= other.n for one, other in pairwise(self.rows)):
            raise CertificateError(
                f"a plan's sizes must increase, not {[row.n for row in self.rows]}"
            )
        if len({row.tail is None for row in self.rows}) > 1:
            raise CertificateError("a plan is for the mean or for the tail, at all sizes alike")

    @classmethod
    def of(
        cls,
        recipes: Sequence[Recipe],
        replays: Iterable[Sequence[Replayed]],
        *,
        objective: Objective = "mean",
    ) -> Self:
        """Choose for each n the recipe that is best of clients' means (`best_by_size`).

        Parameters
        ----------
        recipes : sequence of Recipe
            What was replayed; of equally good ones the first wins.
        replays : iterable of sequences of Replayed
            One sequence per planning client.
        objective : str (default: "mean")
            ``"tail"``: the recipe is the best for the worst quarter of the clients, which
            may be others with each recipe.

        Returns
        -------
        Plan
            A row for each size that planning clients have.

        Raises
        ------
        CertificateError
            If there is nothing to plan from.
        """
        found: dict[int, dict[int, list[Replayed]]] = defaultdict(lambda: defaultdict(list))
        for client in replays:
            for row in client:
                found[row.n][row.recipe].append(row)
        if not found:
            raise CertificateError("there are no replays to plan from")
        means = {
            n: {index: [row.mean for row in rows] for index, rows in by_recipe.items()}
            for n, by_recipe in found.items()
        }
        planned = []
        for n, best in best_by_size(means, objective=objective).items():
            most = max(map(len, found[n].values()))
            replayed = found[n][best]
            if len(replayed) < most:
                continue  # a choice that stays was not tried there: nothing can be said of it
            low, high = map(_rounded, np.quantile([row.bound for row in replayed], (0.1, 0.9)))
            mean = _rounded(np.mean(means[n][best]))
            tail = None
            if objective == "tail":
                # Rounding must not put the tail's mean below that of all.
                tail = max(mean, _rounded(np.mean(tail_values(means[n][best]))))
            promised = _promised(recipes[best], replayed)
            planned.append(PlanRow(n, recipes[best], mean, low, high, most, tail, promised))
        return cls(tuple(planned))

    def table(self) -> RecipeTable:
        """Return the recipes by n; sizes in between take that of the next smaller one."""
        rows: list[tuple[int, Recipe]] = []
        for row in self.rows:
            if not rows or rows[-1][1] != row.recipe:
                rows.append((row.n if rows else 1, row.recipe))
        return RecipeTable(tuple(rows))

    def expected(self, n: int) -> PlanRow:
        """Return what n examples lead one to expect: the row of the largest size up to n.

        Raises
        ------
        RefusalError
            If n is below the smallest size that was planned.
        """
        known = [row for row in self.rows if row.n <= n]
        if not known:
            raise RefusalError(
                f"nothing was planned for {n} examples; the smallest size is {self.rows[0].n}"
            )
        return known[-1]

    def needed(self, target: float) -> PlanRow:
        """Return the smallest size whose mean bound is at most `target`.

        In a plan for the tail it is the mean of the worst quarter.

        Raises
        ------
        RefusalError
            If no size that was planned reaches it.
        """
        for row in self.rows:
            if row.aim <= target:
                return row
        best = min(self.rows, key=lambda row: row.aim)
        whose = "" if best.tail is None else " of the worst quarter"
        raise RefusalError(
            f"no planned size reaches {target:g}: the best mean{whose} is {best.aim:g}, with "
            f"{best.n} labels"
        )

    def to_config(self) -> list[dict[str, Any]]:
        """Return the plan as a JSON array."""
        return [row.to_config() for row in self.rows]

    @classmethod
    def from_config(cls, config: object) -> Self:
        """Rebuild a plan from `to_config`.

        Raises
        ------
        BundleError
            If it is damaged.
        """
        if not isinstance(config, Sequence) or isinstance(config, str | bytes):
            raise BundleError("the plan in the bundle is damaged: it is not a list of rows")
        try:
            return cls(tuple(_row(entry) for entry in config))
        except CertificateError as error:
            raise BundleError(f"the plan in the bundle is damaged: {error}") from error


def check_promised(recipe: Recipe, promised: Mapping[str, float] | None) -> None:
    """Raise `CertificateError` unless these can be figures of the recipe's promises."""
    names = [
        f"{promise.kind}.{name}"
        for promise in recipe.promises
        for name in promise.outcome.figures
    ]
    if promised is None:
        return
    if not isinstance(promised, Mapping) or sorted(promised) != sorted(names):
        raise CertificateError("promised holds other figures than those of the recipe")
    for name, value in promised.items():
        require_number(name, value)
        if not -1 <= value <= 1:
            raise CertificateError(f"{name} must lie in [-1, 1], not {value}")


def _promised(recipe: Recipe, replayed: Sequence[Replayed]) -> dict[str, float] | None:
    """Average what planning clients would have been promised, if all of them say it."""
    told = [row.promised for row in replayed if row.promised is not None]
    if not told or len(told) < len(replayed):
        return None
    check_promised(recipe, told[0])
    return {name: _rounded(np.mean([each[name] for each in told])) for name in sorted(told[0])}


def _rounded(value: float | np.floating[Any]) -> float:
    # As fine as bounds are: so equal recipes tie whatever the order of the clients.
    return round(float(value), 6)


def _row(entry: object) -> PlanRow:
    names = {field.name for field in fields(PlanRow)} - _OPTIONAL
    if not isinstance(entry, Mapping) or set(entry) - _OPTIONAL != names:
        raise CertificateError(f"a row must hold {', '.join(sorted(names))} alone")
    for name in _OPTIONAL & set(entry):
        if entry[name] is None:
            raise CertificateError(f"{name} is left out where there is none")
    return PlanRow(**{**entry, "recipe": Recipe.from_config(entry["recipe"])})
