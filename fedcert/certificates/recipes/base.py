"""What a recipe is: how a support set is spent, fixed before the data is seen.

A recipe's arguments are its saved form (`to_config`). Certificates carry that form and
third parties recompute from it, so the meaning of an existing kind must not change; a
change is a new kind in a new file, with one `register` line. A recipe of one's own registers
in the same way, when whoever issues or verifies with it imports its module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fedcert.certificates.bounds import (
    binomial_upper_bounds,
)
from fedcert.certificates.counts import Counts, ErrorTable, Refined, Selection, lowest
from fedcert.certificates.recipes.parts import (
    Choice,
    FirstStage,
    LedgerEntry,
    Span,
    require_integer,
    require_number,
)
from fedcert.certificates.recipes.repeating import check_lowest
from fedcert.certificates.recipes.session import (
    Chosen,
    Session,
    TableSession,
    refined_counts,
)
from fedcert.certificates.recipes.terms import Subject, Terms
from fedcert.errors import CertificateError, UnknownKindError
from fedcert.extensions import Kinds

__all__ = [
    "RECIPES",
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


class UnknownRecipeError(UnknownKindError, CertificateError):
    """No recipe of this kind is registered."""


@dataclass(frozen=True, kw_only=True)
class Recipe(Terms):
    """How n labeled examples choose one of M candidates and certify it.

    The parameters are those of `Terms`.
    """

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

    @property
    def follows_method(self) -> bool:
        """Whether the rule of the bundle's method makes a finalist; most recipes need none."""
        return False

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

    def check_repeated(self, choice: Choice, session: Session) -> tuple[Chosen, ...]:
        """Check a choice of candidates against the examples that it was made on.

        A candidate that was chosen on the very examples that certify it was paid for with
        all others, whichever it is. Everything else is chosen again, up to rounding.

        Parameters
        ----------
        choice : Choice
            What a certificate says.
        session : Session
            The client's examples and the candidates.

        Returns
        -------
        tuple of Chosen
            What another rounding chooses, where that is not paid for: near-equal candidates,
            all of which have to earn the bound as well, or the same one with less weight.

        Raises
        ------
        CertificateError
            If the recipe cannot have made this choice on these examples.
        """
        n = session.n
        if self.pays_for_choosing(n):
            return ()
        if self.selects_from_counts() and self._chooses_the_lowest():
            span, tolerance = self.choosing(n), self.margin_tolerance
            return check_lowest(session, span, choice.index, tolerance)
        again = self.choose(session).choice
        if again != choice:
            raise CertificateError(
                f"the recipe chooses {again.index} from these examples, not {choice.index}"
            )
        return ()

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
        return RECIPES.made(config, CertificateError)


RECIPES: Kinds[Recipe] = Kinds("recipe", UnknownRecipeError, asked="recipe kind")
"""Every recipe that certificates may name."""

RecipeType = TypeVar("RecipeType", bound=type[Recipe])


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
    return RECIPES.register(cls)
