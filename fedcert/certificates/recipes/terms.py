"""The terms of a recipe: what it spends, what it bounds, and how it is written down."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal, Self

from fedcert.certificates.attempts import UNSAID_FIRST_SHARE
from fedcert.certificates.bounds import (
    WEIGHT_DENOMINATOR,
    binomial_upper_bound,
    budget_of,
    uniform_weight,
)
from fedcert.certificates.promises import Ground, Promise, promises_from, share_of, together
from fedcert.certificates.randomized import LEAST, number_of
from fedcert.certificates.recipes.parts import (
    Choice,
    LedgerEntry,
    Span,
    require_integer,
    require_number,
)
from fedcert.errors import CertificateError

__all__ = ["Subject", "Terms"]

Subject = Literal["adapter", "randomized predictor", "majority vote", "reference"]
"""What a recipe's bound is about. Only an adapter can be exported with a certificate."""

# Few-shot support sets are far smaller; a search that gets here will not end well.
_LARGEST_N = 2**20


@dataclass(frozen=True, kw_only=True)
class Terms(ABC):
    """What is fixed about a recipe before any example is seen.

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
    first_share : float
        Share of delta that a client's first attempt has; later ones divide the rest (default:
        0.9, as in recipes that were written down before there was this argument).
    randomized : bool
        Whether the bound takes a number from the seed, which makes it fail with exactly its
        budget; for certificates whose seed a server issued (default: False).
    promises : tuple of Promise
        What its certificates say beside the bound; each takes a share of delta of its own
        (default: none).
    """

    kind: ClassVar[str]
    certifies: ClassVar[Subject] = "adapter"
    refines: ClassVar[bool] = False
    """Whether the certified hypotheses are made with the help of the choosing examples."""
    centered: ClassVar[bool] = False
    """Whether its first candidate is the prior's center, and no draw."""
    randomizes: ClassVar[bool] = False
    """Whether its bounds are exact binomial ones, all of which a number may randomize."""

    unsaid: ClassVar[Mapping[str, Any]] = {
        "first_share": UNSAID_FIRST_SHARE,
        "randomized": False,
        "promises": (),
    }
    """Arguments that came later. Where they say what was so before they are left out of the
    saved form, so that digests stay what they were."""

    candidates: int
    delta: float
    margin_tolerance: float = 1e-4
    first_share: float = UNSAID_FIRST_SHARE
    randomized: bool = False
    promises: tuple[Promise[Any], ...] = ()

    def __post_init__(self) -> None:
        # The saved form is an array of objects.
        object.__setattr__(self, "promises", promises_from(self.promises))
        require_integer("candidates", self.candidates, 1, 2**53 - 1)
        require_number("delta", self.delta)
        require_number("margin_tolerance", self.margin_tolerance)
        require_number("first_share", self.first_share)
        for name in ("delta", "first_share"):
            if not 0 < (value := getattr(self, name)) < 1:
                raise CertificateError(f"{name} must lie between 0 and 1, not {value}")
        if self.margin_tolerance < 0:
            raise CertificateError(
                f"margin_tolerance must not be negative, not {self.margin_tolerance}"
            )
        if not isinstance(self.randomized, bool):
            raise CertificateError(f"randomized must be true or false, not {self.randomized!r}")
        if self.randomized and not self.randomizes:
            raise CertificateError(
                f"the bound of a recipe of kind {self.kind!r} cannot be randomized"
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
    def universe(self) -> int:
        """How many predictors its rule could end with, by default M."""
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
        number = 1.0 if choice is None or not self.randomized else choice.number
        return binomial_upper_bound(errors, trials, self.budget(choice), number)

    def number_of(self, seed: str) -> float:
        """Return what its bounds take from a seed: 1 unless they are randomized."""
        return number_of(seed) if self.randomized else 1.0

    @property
    def total_delta(self) -> float:
        """The recipe's delta and its promises' shares together."""
        return together(self.promises, self.delta)

    def ground(self, promise: Promise[Any], choice: Choice, n: int) -> Ground:
        """Return what a promise about the chosen hypothesis stands on.

        Whatever other hypotheses were compared on the certifying examples is paid for by the
        same weight as in the bound.

        Parameters
        ----------
        promise : Promise
            One of `promises`.
        choice : Choice
            What was chosen.
        n : int
            Size of the support set.

        Returns
        -------
        Ground
            Its budget, and the sizes of the two parts.
        """
        part = share_of(promise, self.delta)
        trials = self.certifies_on(choice, n).size
        drawn = WEIGHT_DENOMINATOR if self.refines else uniform_weight(self.candidates)
        return Ground(
            budget=budget_of(part, self.weight(choice)) if part else 0.0,
            trials=trials,
            chosen_on=n - trials,
            public_budget=budget_of(part, drawn) if part else 0.0,
            refined=self.refines,
        )

    def unwitnessed(self) -> Self:
        """Return the recipe for a seed that no server issued.

        Such a seed may be chosen, and nobody counts who has one.
        """
        promises = tuple(each for each in self.promises if not each.takes_server)
        return replace(self, randomized=False, promises=promises)

    def lowest_bound(self, n: int) -> float:
        """Return a value that no bound from n examples is below, reached or approached."""
        return self.bound(0, self.certifying(n).size, self.luckiest())

    def luckiest(self, index: int = 0) -> Choice:
        """Return the choice of a hypothesis with the number that gives its lowest bound."""
        return Choice(index=index, number=LEAST if self.randomized else 1.0)

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

    def certifies_on(self, choice: Choice, n: int) -> Span:
        """Return which examples certify what was chosen, by default ``certifying(n)``."""
        return self.certifying(n)

    @property
    def has_first_stage(self) -> bool:
        """Whether a candidate's weight follows from the choosing examples."""
        return False

    def pays_for_choosing(self, n: int) -> bool:
        """Return whether the choice is paid for: the same examples choose and certify."""
        return self.choosing(n) == self.certifying(n)

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

        Examples
        --------
        >>> from fedcert.certificates import SplitRecipe
        >>> SplitRecipe(candidates=1000, delta=0.05).smallest_n(0.5)
        9
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
        config = {"kind": self.kind, **asdict(self)}
        for name, unsaid in self.unsaid.items():
            if config[name] == unsaid:
                del config[name]
        if self.promises:
            config["promises"] = [promise.to_config() for promise in self.promises]
        return config


_SUBJECTS: dict[Subject, str] = {
    "adapter": "an adapter",
    "randomized predictor": "a randomized predictor, which no single exported adapter is",
    "majority vote": "a majority vote, which no single exported adapter is",
    "reference": "nothing that this pipeline hands out",
}
