"""What a recipe is: how a support set is spent, fixed before the data is seen.

A recipe's arguments are its saved form (`to_config`). Certificates carry that form and
third parties recompute from it, so the meaning of an existing kind must not change; a
change is a new kind in a new file, with one `register` line. A recipe of one's own registers
in the same way, when whoever issues or verifies with it imports its module.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt

from fedcert.certificates.bounds import binomial_upper_bound, budget_of
from fedcert.certificates.counts import Counts, ErrorTable, Refined, Selection, lowest
from fedcert.certificates.recipes.parts import Choice, FirstStage, LedgerEntry, Span
from fedcert.errors import CertificateError, UnknownKindError
from fedcert.extensions import enter, unknown_kind

__all__ = [
    "Choice",
    "FirstStage",
    "LedgerEntry",
    "Recipe",
    "Span",
    "Subject",
    "register",
    "require_integer",
    "require_number",
]

Subject = Literal["adapter", "randomized predictor", "majority vote", "reference"]
"""What a recipe's bound is about. Only an adapter can be exported with a certificate."""

# Few-shot support sets are far smaller; a search that gets here will not end well.
_LARGEST_N = 2**20


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
    certifies: ClassVar[Subject] = "adapter"
    refines: ClassVar[bool] = False
    """Whether the certified hypotheses are made with the help of the choosing examples."""

    candidates: int
    delta: float
    margin_tolerance: float = 1e-4

    def __post_init__(self) -> None:
        require_integer("candidates", self.candidates, 1, 2**53 - 1)
        require_number("delta", self.delta)
        require_number("margin_tolerance", self.margin_tolerance)
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
    def ledger(self, n: int) -> tuple[LedgerEntry, ...]:
        """Return where delta goes; the entries add up to at most delta."""

    @abstractmethod
    def statement(self, n: int) -> str:
        """Say in a sentence or two how n examples are spent."""

    def require_exportable(self) -> None:
        """Raise `CertificateError` unless the bound is about one adapter to hand out."""
        if self.certifies != "adapter":
            raise CertificateError(
                f"a recipe of kind {self.kind!r} certifies {_SUBJECTS[self.certifies]}; it "
                f"can be replayed for comparison, but no certificate of this kind is issued"
            )

    @property
    def hypotheses(self) -> int:
        """Number of hypotheses that the bound holds for at once, by default M."""
        return self.candidates

    @property
    def constant_predictors(self) -> int:
        """How many candidates, the first ones, are no draws but predict one label each."""
        return 0

    @abstractmethod
    def weight(self, choice: Choice | None = None) -> int:
        """Return the chosen hypothesis's weight as an integer over 2**53.

        Parameters
        ----------
        choice : Choice or None
            What was chosen; recipes that weight all hypotheses equally need none.

        Raises
        ------
        CertificateError
            If the weight depends on a choice that is missing or impossible.
        """

    def budget(self, choice: Choice | None = None) -> float:
        """Return the chosen hypothesis's share of delta, rounded down."""
        return budget_of(self.delta, self.weight(choice))

    def bound(self, errors: int, trials: int, choice: Choice | None = None) -> float:
        """Return the risk bound for the chosen hypothesis.

        Parameters
        ----------
        errors : int
            Its errors on the certifying examples.
        trials : int
            Number of certifying examples, ``certifying(n).size``.
        choice : Choice or None
            As in `weight`.

        Returns
        -------
        float
            A multiple of 1e-6 in (0, 1], rounded up; by default the exact binomial bound
            with the budget ``delta * weight / 2**53``.

        Raises
        ------
        CertificateError
            If the counts are impossible, or as in `weight`.
        """
        return binomial_upper_bound(errors, trials, self.budget(choice))

    def lowest_bound(self, n: int) -> float:
        """Return a value that no bound from n examples is below, reached or approached."""
        return self.bound(0, self.certifying(n).size)

    def check_choice(self, choice: Choice, n: int) -> None:
        """Raise `CertificateError` if the recipe cannot have made this choice on n examples."""
        if not 0 <= choice.index < self.hypotheses:
            raise CertificateError(
                f"there is no candidate {choice.index} among {self.hypotheses}"
            )
        if choice.first_stage is not None:
            raise CertificateError(
                f"the weights of a recipe of kind {self.kind!r} do not depend on a first stage"
            )

    def tabulated(
        self, table: ErrorTable, n: int, refined: Refined | None
    ) -> tuple[Counts, npt.NDArray[np.float64]]:
        """Return the hypotheses' counts on the first n examples, one episode, and their risks.

        Raises
        ------
        CertificateError
            If the table is too small, or `refined` is missing, not needed, or ill-shaped.
        """
        if self.refines:
            return self._tabulated_refined(n, refined)
        if refined is not None:
            raise CertificateError(
                f"a recipe of kind {self.kind!r} certifies the candidates themselves; it "
                f"takes no refined ones"
            )
        if len(table.wrong) < self.candidates:
            raise CertificateError(
                f"the recipe has {self.candidates} candidates, and the table only "
                f"{len(table.wrong)}"
            )
        rows = slice(0, self.candidates)
        choosing, certifying = self.choosing(n), self.certifying(n)
        counts = Counts(
            choosing=table.wrong[rows, choosing.as_slice()].sum(axis=1)[None],
            certifying=table.wrong[rows, certifying.as_slice()].sum(axis=1)[None],
            losses=table.losses[rows, choosing.as_slice()].sum(axis=1)[None],
            chosen_on=choosing.size,
            certified_on=certifying.size,
        )
        return counts, table.test_risk[rows]

    def _tabulated_refined(
        self, n: int, refined: Refined | None
    ) -> tuple[Counts, npt.NDArray[np.float64]]:
        if refined is None:
            raise CertificateError(
                f"a recipe of kind {self.kind!r} certifies what is made from the choosing "
                f"examples; pass it as refined"
            )
        expected = (self.hypotheses, self.certifying(n).size)
        if refined.wrong.shape != expected:
            raise CertificateError(
                f"the refined hypotheses' wrong must have shape {expected}, not "
                f"{refined.wrong.shape}"
            )
        certifying = refined.wrong.sum(axis=1)[None]
        counts = Counts(
            choosing=np.zeros_like(certifying),
            certifying=certifying,
            losses=np.zeros(certifying.shape),
            chosen_on=self.choosing(n).size,
            certified_on=expected[1],
        )
        return counts, refined.test_risk

    def select(self, counts: Counts) -> Selection:
        """Choose and certify in every episode; by default the lowest (k, loss, index)."""
        return self._selected(lowest(counts.choosing, counts.losses), counts)

    def _selected(self, index: npt.NDArray[np.int64], counts: Counts) -> Selection:
        errors = counts.certifying[np.arange(len(index)), index]
        bounds = np.zeros(len(errors))
        for value in np.unique(errors):
            bounds[errors == value] = self.bound(int(value), counts.certified_on)
        return Selection(bounds=bounds, errors=errors.astype(np.float64), index=index)

    def risk_of(
        self, selection: Selection, table: ErrorTable, risks: npt.NDArray[np.float64]
    ) -> float:
        """Return the risk of what was selected in one episode; NaN if the table cannot tell."""
        return float(selection.averaged(risks)[0])

    def with_delta(self, delta: float) -> Self:
        """Return the same recipe with another delta, as for a later attempt.

        Raises
        ------
        CertificateError
            If `delta` does not lie between 0 and 1.
        """
        return replace(self, delta=delta)

    def smallest_n(self, chance: float) -> int:
        """Return the smallest n at which an outcome gives a bound below `chance`.

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
            return self.lowest_bound(n) < chance

        # Sound because more examples never raise the lowest bound.
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


_SUBJECTS: dict[Subject, str] = {
    "adapter": "an adapter",
    "randomized predictor": "a randomized predictor, which no single exported adapter is",
    "majority vote": "a majority vote, which no single exported adapter is",
    "reference": "nothing that this pipeline hands out",
}

_REGISTRY: dict[str, type[Recipe]] = {}

RecipeType = TypeVar("RecipeType", bound=type[Recipe])


class UnknownRecipeError(UnknownKindError, CertificateError):
    """No recipe of this kind is registered."""


def register(cls: RecipeType) -> RecipeType:
    """Let `Recipe.from_config` find a class by its `kind`; a class decorator.

    Raises
    ------
    ValueError
        If the class is not complete, or another one has its kind.
    """
    # Without a decorator of its own its new fields would not be part of its saved form.
    if "__dataclass_params__" not in vars(cls):
        raise ValueError(
            f"the recipe {cls.__name__} must be a frozen dataclass: write "
            "@dataclass(frozen=True, kw_only=True) between @register and class"
        )
    enter(_REGISTRY, cls, what="recipe")
    return cls


def _class_of(kind: object) -> type[Recipe]:
    if not isinstance(kind, str) or kind not in _REGISTRY:
        raise UnknownRecipeError(unknown_kind("recipe kind", kind, sorted(_REGISTRY)))
    return _REGISTRY[kind]


def require_integer(name: str, value: object, low: int, high: int) -> None:
    """Raise `CertificateError` unless `value` is an integer from `low` to `high`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise CertificateError(f"{name} must be an integer, not {value!r}")
    if not low <= value <= high:
        raise CertificateError(f"{name} must be from {low} to {high}, not {value}")


def require_number(name: str, value: object) -> None:
    """Raise `CertificateError` unless `value` is a finite number that JSON keeps."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise CertificateError(f"{name} must be a number, not {value!r}")
    if not abs(value) < 2**53:  # written so that NaN fails
        raise CertificateError(f"{name} must be finite and below 2**53, not {value}")
