"""The posterior split recipe: some examples refine candidates, the others certify them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from fedcert.certificates.bounds import uniform_weight
from fedcert.certificates.counts import Counts, Selection, lowest
from fedcert.certificates.recipes.base import (
    Choice,
    LedgerEntry,
    Recipe,
    Session,
    register,
    require_integer,
    require_number,
)
from fedcert.certificates.recipes.split import SplitRecipe
from fedcert.errors import CertificateError

__all__ = ["REFINEMENTS", "PosteriorSplitRecipe"]

REFINEMENTS = (
    "posterior_mean", "posterior_mode", "finetune", "local_head", "tuned_head", "learned",
)  # fmt: skip
"""Names of the algorithms that may make finalists from the choosing examples."""

_WORDS = {
    "posterior_mean": "the mean of the posterior given {candidates} candidates",
    "posterior_mode": "the mode of the posterior under a Gaussian like the prior",
    "finetune": "the center of the prior, fine-tuned",
    "local_head": "a head of its own on the frozen base model",
    "tuned_head": "the center of the prior, with its head alone trained",
    "learned": "what the rule of the bundle's method makes of them",
}


@register
@dataclass(frozen=True, kw_only=True)
class PosteriorSplitRecipe(SplitRecipe):
    """Make finalists from the first n1 examples; certify on the others, at delta/M' each.

    Given the first n1 examples the M' finalists are fixed, whatever made them: a search
    among M draws of the prior, or gradients. The finalist with the fewest errors on the
    other n - n1 examples is certified there, by the Occam's razor bound of Langford (JMLR
    6, 2005) with the weight 1/M'.

    Parameters
    ----------
    finalists : int
        M', from 1 to M (default: 1).
    refinement : str
        The algorithms that make the finalists: names of `REFINEMENTS` in that order, joined
        by "+" (default: ``"posterior_mean"``). ``"posterior_mode"`` trains from the prior's
        center along the prior's axes, pulled to the center as the prior's density falls.
        ``"finetune"`` trains all coordinates from there. ``"tuned_head"`` trains the center's
        head alone, pulled to what it is there, and ``"local_head"`` a head on the frozen base
        model in the same way; how strong the pull is they choose on the same examples.
        ``"learned"`` is the rule of the method that the bundle names. These make one finalist
        each. All others are means of the posterior, each over its own share of the chains;
        without these the method's rule makes all others.
    chains : int
        How many chains run side by side, at least as many as there are means (default: 32).
    steps : int
        Steps of each chain, 2 or more (default: 60).
    tuning_steps : int
        Steps of fine-tuning, and to the mode (default: 60).
    learning_rate : float
        Of fine-tuning, falling to zero (default: 0.03).
    pull : float
        Factor of half the squared distance to the center in the loss of fine-tuning (default:
        0.01).
    keep : float
        Share of the center in the fine-tuned finalist, below 1: more of it forgets less of what
        the federation knows (default: 0).
    """

    kind: ClassVar[str] = "posterior_split"
    refines: ClassVar[bool] = True
    unsaid: ClassVar[Mapping[str, Any]] = {
        **SplitRecipe.unsaid,
        "tuning_steps": 60,
        "learning_rate": 0.03,
        "pull": 0.01,
        "keep": 0.0,
    }

    finalists: int = 1
    refinement: str = "posterior_mean"
    chains: int = 32
    steps: int = 60
    tuning_steps: int = 60
    learning_rate: float = 0.03
    pull: float = 0.01
    keep: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("finalists", self.finalists, 1, self.candidates)
        self._check_refinement()
        require_integer("chains", self.chains, max(1, self._means), 10**6)
        require_integer("steps", self.steps, 2, 10**6)
        require_integer("tuning_steps", self.tuning_steps, 1, 10**6)
        for name in ("learning_rate", "pull"):
            require_number(name, value := getattr(self, name))
            if value < 0:
                raise CertificateError(f"{name} must not be negative, not {value}")
        require_number("keep", self.keep)
        if not 0 <= self.keep < 1:
            raise CertificateError(f"keep must be at least 0 and below 1, not {self.keep}")

    def _check_refinement(self) -> None:
        names = self.refinements
        if unknown := [name for name in names if name not in REFINEMENTS]:
            raise CertificateError(
                f"unknown refinement {unknown[0]!r}; this version knows "
                f"{', '.join(REFINEMENTS)}"
            )
        if names != tuple(name for name in REFINEMENTS if name in names):
            raise CertificateError(
                f"refinement must name each algorithm once, in the order "
                f"{'+'.join(REFINEMENTS)}, not {self.refinement!r}"
            )
        several, left = self._several in names, self.finalists - len(names)
        if left < 0 or (left > 0 and not several):
            raise CertificateError(
                f"{self.refinement!r} makes {len(names)} finalists{' or more' * several}, not "
                f"{self.finalists}"
            )

    @property
    def refinements(self) -> tuple[str, ...]:
        """The names of the algorithms."""
        if not isinstance(self.refinement, str):
            raise CertificateError(f"refinement must be a text, not {self.refinement!r}")
        return tuple(self.refinement.split("+"))

    @property
    def follows_method(self) -> bool:
        """Whether one of the algorithms is the method's."""
        return "learned" in self.refinements

    def beside(self, name: str) -> Self:
        """Return the recipe with a finalist more, which an algorithm makes, if it has none."""
        if name in self.refinements:
            return self
        count, names = self.finalists + 1, {*self.refinements, name}
        return replace(
            self,
            candidates=max(self.candidates, count),
            finalists=count,
            refinement="+".join(each for each in REFINEMENTS if each in names),
        )

    @property
    def _several(self) -> str:
        """The algorithm that makes as many finalists as the others leave."""
        return "posterior_mean" if "posterior_mean" in self.refinements else "learned"

    def _count(self, name: str) -> int:
        """Return how many finalists an algorithm of this recipe makes."""
        others = len(self.refinements) - 1
        return self.finalists - others if name == self._several else 1

    @property
    def _means(self) -> int:
        """How many of the finalists are means of the posterior."""
        return self._count("posterior_mean") if "posterior_mean" in self.refinements else 0

    @property
    def hypotheses(self) -> int:
        """Number of finalists, M'."""
        return self.finalists

    def refine(self, session: Session) -> npt.NDArray[np.float64]:
        """Return the finalists: the posterior's means, then what was trained.

        Beside a head that moves its labels' embeddings the others have zeros there.
        """
        made = [self._made(name, session) for name in self.refinements]
        longest = max(part.shape[1] for part in made)
        return np.concatenate(
            [np.pad(part, ((0, 0), (0, longest - part.shape[1]))) for part in made]
        )

    def _made(self, name: str, session: Session) -> npt.NDArray[np.float64]:
        if name == "local_head":
            return session.local_head()[None]
        if name == "tuned_head":
            return session.tuned_head()[None]
        if name == "learned":
            made = np.atleast_2d(session.learned())
            if len(made) != (wanted := self._count(name)):
                raise CertificateError(
                    f"the method's rule makes {len(made)} adapters, and the recipe pays for "
                    f"{wanted} of them"
                )
            return made
        if name == "posterior_mode":
            return session.posterior_mode(steps=self.tuning_steps)[None]
        if name == "finetune":
            tuned = session.finetuned(
                steps=self.tuning_steps, learning_rate=self.learning_rate, pull=self.pull
            )
            if self.keep:
                tuned = self.keep * session.center() + (1 - self.keep) * tuned
            return tuned[None]
        return session.posterior_means(
            candidates=self.candidates,
            chains=self.chains,
            steps=self.steps,
            count=self._means,
        )

    def refined_apart(self) -> tuple[Recipe, ...]:
        """Return a recipe for each algorithm."""
        return tuple(
            replace(self, refinement=name, finalists=self._count(name))
            for name in self.refinements
        )

    def refinement_config(self) -> dict[str, Any]:
        """Return all of the recipe that the finalists depend on, besides the examples."""
        if self.refinement in {"local_head", "tuned_head", "learned"}:
            return {"refinement": self.refinement}
        if self.refinement == "posterior_mode":
            return {"refinement": self.refinement, "tuning_steps": self.tuning_steps}
        tuned = {
            "tuning_steps": self.tuning_steps,
            "learning_rate": self.learning_rate,
            "pull": self.pull,
            **({"keep": self.keep} if self.keep else {}),
        }
        if self.refinement == "finetune":
            return {"refinement": self.refinement, **tuned}
        return {
            **(tuned if {"finetune", "posterior_mode"} & set(self.refinements) else {}),
            "refinement": self.refinement,
            "candidates": self.candidates,
            "finalists": self.finalists,
            "chains": self.chains,
            "steps": self.steps,
        }

    def weight(self, choice: Choice | None = None) -> int:
        """Return 1/M', rounded down."""
        return uniform_weight(self.finalists)

    def select(self, counts: Counts) -> Selection:
        """Certify the finalist with the fewest errors on the certifying examples."""
        return self._selected(lowest(counts.certifying, counts.certifying_losses), counts)

    def ledger(self, n: int) -> tuple[LedgerEntry, ...]:
        """Return two entries: refining is free, certifying takes all of delta."""
        choosing, certifying = self.choosing(n).size, self.certifying(n).size
        return (
            LedgerEntry(
                f"make {self._finalists} {self._source}on {choosing} examples that do not "
                f"certify",
                0.0,
            ),
            LedgerEntry(
                f"bound {self._finalists} at once on the other {certifying} examples, an "
                f"equal share for each",
                self.delta,
            ),
        )

    def statement(self, n: int) -> str:
        """Say how many examples refined and how many others certify."""
        return (
            f"{self.choosing(n).size} of the {n} examples {self._how}; the other "
            f"{self.certifying(n).size} certify the adapter, and every finalist is paid for "
            f"with an equal share of delta, by exact inversion of the binomial tail."
        )

    @property
    def _how(self) -> str:
        if self.refinement == "posterior_mean":
            return (
                f"chose among {self.candidates} candidates and refined them into "
                f"{self._finalists} by {self.refinement!r}"
            )
        made = [_WORDS[name].format(candidates=self.candidates) for name in self.refinements]
        return f"made {self._finalists} ({'; '.join(made)})"

    @property
    def _source(self) -> str:
        if "posterior_mean" in self.refinements:
            return f"from {self.candidates} candidates "
        return ""

    @property
    def _finalists(self) -> str:
        return "1 finalist" if self.finalists == 1 else f"{self.finalists} finalists"
