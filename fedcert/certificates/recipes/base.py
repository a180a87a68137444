"""What a recipe is: how a support set is spent, fixed before the data is seen.

A recipe's arguments are its saved form (`to_config`). Certificates carry that form and
third parties recompute from it, so the meaning of an existing kind must not change; a
change is a new kind in a new file, with one `register` line.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, ClassVar, NamedTuple, TypeVar

from fedcert.certificates.bounds import binomial_upper_bound, budget_of
from fedcert.errors import CertificateError

__all__ = ["LedgerEntry", "Recipe", "Span", "register"]

# Few-shot support sets are far smaller; a search that gets here will not end well.
_LARGEST_N = 2**20


class Span(NamedTuple):
    """Positions ``start <= i < stop`` in the permuted support set."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of examples in the span."""
        return self.stop - self.start

    def as_slice(self) -> slice:
        """Return the span as something to index an array with."""
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class LedgerEntry:
    """One use of delta.

    Parameters
    ----------
    purpose : str
        What it bought, in plain words.
    delta : float
        How much of the recipe's delta it took; 0 for what comes free.
    """

    purpose: str
    delta: float


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """How n labeled examples choose one of M candidates and certify it.

    Parameters
    ----------
    candidates : int
        M, the size of the finite hypothesis set, from 1 to 2**53 - 1.
    delta : float
        Probability, over the draw of support set and seed, that the certificate is false.
    margin_tolerance : float
        A prediction whose margin over the runner-up logit is not above this counts as an
        error, so that rounding on another machine cannot turn a success into an error
        (default: 1e-4).
    """

    kind: ClassVar[str]

    candidates: int
    delta: float
    margin_tolerance: float = 1e-4

    def __post_init__(self) -> None:
        _require_integer("candidates", self.candidates, 1, 2**53 - 1)
        _require_number("delta", self.delta)
        _require_number("margin_tolerance", self.margin_tolerance)
        if not 0 < self.delta < 1:
            raise CertificateError(f"delta must lie between 0 and 1, not {self.delta}")
        if self.margin_tolerance < 0:
            raise CertificateError(
                f"margin_tolerance must not be negative, not {self.margin_tolerance}"
            )

    @abstractmethod
    def choosing(self, n: int) -> Span:
        """Return which of the n permuted examples may choose the candidate."""

    @abstractmethod
    def certifying(self, n: int) -> Span:
        """Return which of the n permuted examples the errors are counted on."""

    @abstractmethod
    def weight(self) -> int:
        """Return the chosen candidate's weight as an integer over 2**53."""

    @abstractmethod
    def ledger(self, n: int) -> tuple[LedgerEntry, ...]:
        """Return where delta goes; the entries add up to at most delta."""

    @abstractmethod
    def statement(self, n: int) -> str:
        """Say in a sentence or two how n examples are spent."""

    def bound(self, errors: int, trials: int) -> float:
        """Return the risk bound for the chosen candidate.

        Parameters
        ----------
        errors : int
            Its errors on the certifying examples.
        trials : int
            Number of certifying examples, ``certifying(n).size``.

        Returns
        -------
        float
            A multiple of 1e-6 in (0, 1], rounded up; by default the exact binomial bound
            with the budget ``delta * weight / 2**53``.

        Raises
        ------
        CertificateError
            If the counts are impossible.
        """
        return binomial_upper_bound(errors, trials, self.budget)

    @property
    def budget(self) -> float:
        """The chosen candidate's share of delta, rounded down."""
        return budget_of(self.delta, self.weight())

    def smallest_n(self, chance: float) -> int:
        """Return the smallest n at which zero errors give a bound below `chance`.

        With fewer examples no outcome says more than guessing does.

        Parameters
        ----------
        chance : float
            The risk to beat, in (0, 1); guessing among K labels has 1 - 1/K.

        Raises
        ------
        CertificateError
            If `chance` is out of range, or even about a million examples are too few.
        """
        if not 0 < chance < 1:
            raise CertificateError(f"chance must lie between 0 and 1, not {chance}")

        def says_something(n: int) -> bool:
            return self.bound(0, self.certifying(n).size) < chance

        # Sound because more examples never raise a zero-error bound.
        n = 1 + bisect_left(range(1, _LARGEST_N), True, key=says_something)
        if n == _LARGEST_N:
            raise CertificateError(
                f"no support set of fewer than {_LARGEST_N} examples can bring a bound of "
                f"the recipe {self.to_config()} below {chance}"
            )
        return n

    def to_config(self) -> dict[str, Any]:
        """Return the JSON object from which `from_config` makes an equal recipe."""
        return {"kind": self.kind, **asdict(self)}

    @staticmethod
    def from_config(config: object) -> Recipe:
        """Make a recipe of any registered kind from its JSON object.

        Raises
        ------
        CertificateError
            If the kind is unknown, a key is unknown or missing, or a value is wrong.
        """
        if not isinstance(config, Mapping):
            raise CertificateError(f"a recipe must be an object, not {config!r}")
        arguments = dict(config)
        cls = _class_of(arguments.pop("kind", None))
        known = {field.name for field in fields(cls)}
        needed = {field.name for field in fields(cls) if field.default is MISSING}
        if unknown := sorted(str(key) for key in arguments if key not in known):
            raise CertificateError(
                f"a recipe of kind {cls.kind!r} has no {', '.join(unknown)}; "
                f"it has {', '.join(sorted(known))}"
            )
        if missing := sorted(needed - set(arguments)):
            raise CertificateError(
                f"a recipe of kind {cls.kind!r} also needs {', '.join(missing)}"
            )
        return cls(**arguments)


_REGISTRY: dict[str, type[Recipe]] = {}

RecipeType = TypeVar("RecipeType", bound=type[Recipe])


def register(cls: RecipeType) -> RecipeType:
    """Let `Recipe.from_config` find a class by its `kind`."""
    if cls.kind in _REGISTRY:
        raise ValueError(f"two recipes call themselves {cls.kind!r}")
    _REGISTRY[cls.kind] = cls
    return cls


def _class_of(kind: object) -> type[Recipe]:
    if not isinstance(kind, str) or kind not in _REGISTRY:
        raise CertificateError(
            f"unknown recipe kind {kind!r}; this version knows {', '.join(sorted(_REGISTRY))}"
        )
    return _REGISTRY[kind]


def _require_integer(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise CertificateError(f"{name} must be an integer, not {value!r}")
    if not low <= value <= high:
        raise CertificateError(f"{name} must be from {low} to {high}, not {value}")


def _require_number(name: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise CertificateError(f"{name} must be a number, not {value!r}")
    if not abs(value) < 2**53:  # written so that NaN fails
        raise CertificateError(f"{name} must be finite and below 2**53, not {value}")
