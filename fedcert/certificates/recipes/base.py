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
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

from fedcert.certificates.attempts import UNSAID_FIRST_SHARE
from fedcert.certificates.bounds import (
    binomial_upper_bound,
    binomial_upper_bounds,
    budget_of,
)
from fedcert.certificates.counts import Counts, ErrorTable, Refined, Selection, lowest
from fedcert.certificates.randomized import LEAST, number_of
from fedcert.certificates.recipes.parts import (
    Choice,
    FirstStage,
    LedgerEntry,
    Span,
    require_integer,
    require_number,
)
from fedcert.certificates.recipes.registry import recipe_from, register
from fedcert.certificates.recipes.repeating import check_lowest
from fedcert.certificates.recipes.session import (
    Chosen,
    Session,
    TableSession,
    refined_counts,
)
from fedcert.errors import CertificateError

__all__ = [
    "Choice",
    "Chosen",
    "FirstStage",
    "LedgerEntry",
    "Recipe",
    "Session",
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
    first_share : float
        Share of delta that a client's first attempt has; later ones divide the rest (default:
        0.9, as in recipes that were written down before there was this argument).
    randomized : bool
        Whether the bound takes a number from the seed, which makes it fail with exactly its
        budget; for certificates whose seed a server issued (default: False).
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
    }
    """Arguments that came later. Where they say what was so before they are left out of the
    saved form, so that digests stay what they were."""

    candidates: int
    delta: float
    margin_tolerance: float = 1e-4
    first_share: float = UNSAID_FIRST_SHARE
    randomized: bool = False

    def __post_init__(self) -> None:
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

    def unwitnessed(self) -> Self:
        """Return the recipe for a seed that no server issued: such a seed may be chosen."""
        return replace(self, randomized=False)

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

    def choose(self, session: Session) -> Chosen:
        """Choose the hypothesis to certify, for one client.

        This is the rule that serves clients, that plans and coverage tests replay, and that
        verification repeats. By default all candidates (or what `refine` makes, if the recipe
        refines) are counted and handed to `select`.

        Parameters
        ----------
        session : Session
            The client's examples and the candidates. A recipe that looks at certifying
            examples pays for all that it compares there.
        """
        n = session.n
        choosing, certifying = self.choosing(n), self.certifying(n)
        if self.refines:
            made = self.refine(session.only(choosing))
            wrong, losses = session.score(made, certifying)
            unknown = np.full(len(made), np.nan)
            refined = Refined(wrong=wrong, losses=losses, test_risk=unknown)
            counts = self._refined_counts(refined, n)
            choice = self.choice(counts, self.select(counts))
            return Chosen(choice, made[choice.index])
        if self._chooses_the_lowest():
            # The same rule: the session may drop candidates that cannot win any more.
            return session.best(choosing)
        counts = session.count(choosing, certifying)
        choice = self.choice(counts, self.select(counts))
        return Chosen(choice, session.candidate(self.candidate_of(choice)).vector)

    def refine(self, session: Session) -> npt.NDArray[np.float64]:
        """Return what a recipe that refines certifies, shape ``(hypotheses, d)``.

        Parameters
        ----------
        session : Session
            It has the choosing examples alone.
        """
        raise CertificateError(
            f"a recipe of kind {self.kind!r} says that it refines; it has to override refine"
        )

    def refinement_config(self) -> dict[str, Any]:
        """Return all of the recipe that `refine` depends on, besides the examples."""
        return self.to_config()

    def refined_apart(self) -> tuple[Recipe, ...]:
        """Return recipes that make its finalists one kind at a time, in their order."""
        return (self,)

    def choice(self, counts: Counts, selection: Selection) -> Choice:
        """Return what was selected in one episode, with all that its weight follows from."""
        if selection.index is None:
            raise CertificateError(f"a recipe of kind {self.kind!r} chooses no single adapter")
        return Choice(index=int(selection.index[0]))

    def candidate_of(self, choice: Choice) -> int:
        """Return the number of the candidate that was chosen, by default the choice's own.

        A recipe that certifies a candidate in several ways has more hypotheses than
        candidates, and says here which is which.
        """
        return choice.index

    def hypothesis_risks(self, risks: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the hypotheses' risks from the candidates', by default the same."""
        return risks

    def certifies_on(self, choice: Choice, n: int) -> Span:
        """Return which examples certify what was chosen, by default ``certifying(n)``."""
        return self.certifying(n)

    def check_repeated(self, choice: Choice, session: Session) -> None:
        """Check a choice of candidates against the examples that it was made on.

        A candidate that was chosen on the very examples that certify it was paid for with
        all others, whichever it is. Everything else is chosen again, up to rounding.

        Parameters
        ----------
        choice : Choice
            What a certificate says.
        session : Session
            The client's examples and the candidates.

        Raises
        ------
        CertificateError
            If the recipe cannot have made this choice on these examples.
        """
        n = session.n
        if self.pays_for_choosing(n):
            return
        if self.selects_from_counts() and self._chooses_the_lowest():
            check_lowest(session, self.choosing(n), choice.index, self.margin_tolerance)
            return
        again = self.choose(session).choice
        if again != choice:
            raise CertificateError(
                f"the recipe chooses {again.index} from these examples, not {choice.index}"
            )

    @property
    def has_first_stage(self) -> bool:
        """Whether a candidate's weight follows from the choosing examples."""
        return False

    def pays_for_choosing(self, n: int) -> bool:
        """Return whether the choice is paid for: the same examples choose and certify."""
        return self.choosing(n) == self.certifying(n)

    def selects_from_counts(self) -> bool:
        """Return whether counts are all that it chooses by: `choose` is not its own."""
        return type(self).choose is Recipe.choose

    def reaching(
        self, counts: Counts, risks: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.int64] | None:
        """Return which hypotheses get as far as the certifying examples, for coverage tests.

        Parameters
        ----------
        counts : Counts
            Counts of E episodes and all predictors of the `universe`.
        risks : numpy.ndarray
            Their true risks.

        Returns
        -------
        numpy.ndarray or None
            Int, shape (E, H); None for all. A recipe that refines is played at its greediest:
            with whatever fits the choosing examples best.
        """
        if not self.refines:
            return None
        order = counts.choosing.argsort(axis=1, kind="stable")
        return order[:, : self.hypotheses]

    def _chooses_the_lowest(self) -> bool:
        rule = type(self)
        return rule.select is Recipe.select and rule.choice is Recipe.choice

    def counts_and_risks(
        self, table: ErrorTable, n: int, refined: Refined | None
    ) -> tuple[Counts, npt.NDArray[np.float64]]:
        """Return the hypotheses' counts on the first n examples, one episode, and their risks.

        Parameters
        ----------
        table : ErrorTable
            What the candidates get wrong, with their risks.
        n : int
            Size of the support set.
        refined : Refined or None
            What was made from the choosing examples; needed exactly if the recipe refines.

        Returns
        -------
        tuple
            Counts of shape ``(1, H)``, and risks of shape ``(H,)``.

        Raises
        ------
        CertificateError
            If the table is too small, or `refined` is missing, not needed, or ill-shaped.
        """
        if self.refines:
            if refined is None:
                raise CertificateError(
                    f"a recipe of kind {self.kind!r} certifies what is made from the choosing "
                    f"examples; pass it as refined"
                )
            return self._refined_counts(refined, n), refined.test_risk
        if refined is not None:
            raise CertificateError(
                f"a recipe of kind {self.kind!r} certifies the candidates themselves; it "
                f"takes no refined ones"
            )
        session = TableSession(table, candidates=self.candidates, n=n)
        counts = session.count(self.choosing(n), self.certifying(n))
        return counts, self.hypothesis_risks(table.test_risk[: self.candidates])

    def _refined_counts(self, refined: Refined, n: int) -> Counts:
        expected = (self.hypotheses, self.certifying(n).size)
        if refined.wrong.shape != expected:
            raise CertificateError(
                f"the refined hypotheses' wrong must have shape {expected}, not "
                f"{refined.wrong.shape}"
            )
        return refined_counts(refined, self.choosing(n).size)

    def select(self, counts: Counts) -> Selection:
        """Choose and certify in every episode; by default the lowest (k, loss, index)."""
        return self._selected(lowest(counts.choosing, counts.losses), counts)

    def _selected(self, index: npt.NDArray[np.int64], counts: Counts) -> Selection:
        errors = counts.certifying[np.arange(len(index)), index]
        bounds = np.zeros(len(errors))
        if counts.numbers is not None:
            budgets = np.full(len(errors), self.budget())
            bounds = binomial_upper_bounds(errors, counts.certified_on, budgets, counts.numbers)
            return Selection(bounds=bounds, errors=errors.astype(np.float64), index=index)
        for value in np.unique(errors):
            bounds[errors == value] = self.bound(int(value), counts.certified_on)
        return Selection(bounds=bounds, errors=errors.astype(np.float64), index=index)

    def risk_of(
        self, selection: Selection, table: ErrorTable, risks: npt.NDArray[np.float64]
    ) -> float:
        """Return the risk of what was selected in one episode; NaN if the table cannot tell.

        Parameters
        ----------
        selection : Selection
            What was selected, one episode.
        table : ErrorTable
            The table that it was selected from.
        risks : numpy.ndarray
            The hypotheses' risks, shape ``(H,)``.

        Returns
        -------
        float
            A probability, or NaN.
        """
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
        return config

    @staticmethod
    def from_config(config: object) -> Recipe:
        """Make a recipe of any registered kind from its JSON object; see `recipe_from`."""
        return recipe_from(config)


_SUBJECTS: dict[Subject, str] = {
    "adapter": "an adapter",
    "randomized predictor": "a randomized predictor, which no single exported adapter is",
    "majority vote": "a majority vote, which no single exported adapter is",
    "reference": "nothing that this pipeline hands out",
}
