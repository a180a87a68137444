"""Recipes as methods: candidates drawn from the prior, chosen or refined.

The bound of each is computed by the code that replays recipes for a plan, so a planned
method is fedcert's planner: the recipe of the menu that does best on the tuning clients, by the
planner's rule, at each n.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from fedcert.arrays import FloatArray
from fedcert.certificates import Choice, Recipe
from fedcert.certificates.replay import ErrorTable, ReplayedBound, replay
from fedcert.data.examples import Examples
from fedcert.methods.traffic import Traffic
from fedcert.planning import ClientReplay, menu, recipe_name, worth_trying
from fedcert.priors.base import Prior
from fedcert.randomness import derive_seed
from fedcert.search.drawing import fixed_candidates
from fedcert.search.learning import has_linear_head
from fedcert.search.scores import Scores
from fedcert.search.session import SupportSession
from fedcert.simulations.benchmarks.comparison.method import Method, Personalized
from fedcert.simulations.benchmarks.comparison.upstream import Upstream

__all__ = ["Planned", "PosteriorSplit", "RecipeMethod", "Searching", "Steel", "Union"]

_POSTERIOR = ("posterior_split 0.25", "posterior_split 0.375", "posterior_split 0.5")
# Of the menu, by name, what is compared with other methods.
_COMPARED = (
    "union", "default", "mixed_union 0.5", "finetune 0.5", "local_head 0.5", *_POSTERIOR,
)  # fmt: skip

# Support sets whose scores are kept: the sizes of one client.
_KEPT_SCORES = 8


@dataclass(frozen=True, kw_only=True)
class RecipeMethod(Method):
    """Spends the examples as a recipe says, by the code that serves clients.

    Parameters
    ----------
    recipe : Recipe
        One that certifies an adapter.
    """

    recipe: Recipe

    @property
    @abstractmethod
    def prior(self) -> Prior:
        """What the server publishes."""

    @property
    def seed(self) -> str:
        """One for all clients: each certificate is valid by itself."""
        return derive_seed("bench methods", self.upstream.seed)

    def tries(self, n: int) -> bool:
        """Return whether a planner would try the recipe with n examples."""
        return worth_trying(self.recipe, n)

    def personalize(self, examples: Examples) -> Personalized:
        """Let the recipe choose as it does for a client."""
        session = self.session(examples)
        chosen = self.recipe.choose(session)
        span = self.recipe.certifies_on(chosen.choice, len(examples))
        adapters = chosen.vector[None]
        errors = int(session.score(adapters, span)[0].sum())
        bound = self.recipe.bound(errors, span.size, chosen.choice)
        return Personalized(adapters=adapters, certificate=bound)

    def trial(self, examples: Examples, n: int) -> float:
        """Replay as planners do."""
        upstream, count = self.upstream, self._looked_at
        replays = upstream.during_trials(
            examples,
            ("replay", count, self.prior.digest),
            lambda: ClientReplay(
                self.prior,
                upstream.scorer,
                examples,
                seed=self.seed,
                candidates=count,
                constants=upstream.constants,
            ),
        )
        return replays.mean_bound(self.recipe, n)

    def session(self, examples: Examples) -> SupportSession:
        """Return what a recipe needs of a client."""
        return SupportSession(
            self.recipe,
            self.prior,
            self.upstream.scorer,
            examples,
            seed=self.seed,
            constants=self.upstream.constants,
        )

    @property
    def _looked_at(self) -> int:
        """How many candidates a replay draws."""
        return self.recipe.candidates


@dataclass(frozen=True, kw_only=True)
class Searching(RecipeMethod):
    """Spends the examples on candidates of the prior that is fitted to the pool."""

    @classmethod
    def variants(cls, upstream: Upstream) -> Sequence[Self]:
        """Try the recipes of this kind that a planner tries."""
        recipes = menu(
            candidates=upstream.candidates,
            delta=upstream.delta,
            constants=len(upstream.constants),
            local_head=has_linear_head(upstream.model.space),
            training=upstream.training,
        )
        return [cls(upstream=upstream, recipe=each) for each in recipes if cls.takes(each)]

    @classmethod
    def takes(cls, recipe: Recipe) -> bool:
        """Return whether a recipe of the menu is one of this method's."""
        raise NotImplementedError

    @property
    def prior(self) -> Prior:
        """The one that is fitted to the pool."""
        return self.upstream.prior

    def config(self) -> dict[str, Any]:
        """Return the recipe, and the prior; a recipe is the same under every name."""
        return {
            "method": "recipe",
            "recipe": self.recipe.to_config(),
            "prior": self.prior.digest,
        }

    def prepare(self) -> None:
        """Draw the candidates that clients share; each answers for the seconds it took."""
        if not self.recipe.refines:
            self._candidates()

    def personalize(self, examples: Examples) -> Personalized:
        """Draw, choose or refine, and bound."""
        if self.recipe.refines or not self.recipe.selects_from_counts():
            return super().personalize(examples)
        vectors, drawing = self._candidates()
        scores, scoring = self._scores(vectors, examples)
        upstream = self.upstream
        fixed = fixed_candidates(self.recipe, upstream.prior, upstream.constants)
        if len(fixed):
            vectors = np.concatenate([fixed, vectors[len(fixed) :]])
            scores = scores.led_by(self.score(fixed, examples))
        table = ErrorTable(
            wrong=scores.wrong, losses=scores.losses, test_risk=np.full(len(vectors), np.nan)
        )
        outcome = replay(self.recipe, table, len(examples))
        return _handed_out(self.recipe, outcome, vectors, drawing + scoring)

    def traffic(self) -> Traffic:
        """Count an adapter of each upstream client, and the prior for a new one."""
        prior = sum(array.nbytes for array in self.prior.tensors().values())
        return Traffic(self.upstream.adapter_bytes, 0, prior)

    @property
    def _looked_at(self) -> int:
        # Recipes of fewer candidates look at the first of the same ones.
        return max(self.upstream.candidates, self.recipe.candidates)

    def _candidates(self) -> tuple[FloatArray, float]:
        """Return the candidates, and the seconds that drawing them takes."""
        known = self.upstream.drawn
        if self.recipe.candidates not in known:
            started = time.perf_counter()
            vectors = self.prior.sample(self.seed, count=self.recipe.candidates)
            known[self.recipe.candidates] = vectors, time.perf_counter() - started
        return known[self.recipe.candidates]

    def _scores(self, vectors: FloatArray, examples: Examples) -> tuple[Scores, float]:
        """Return the candidates' scores, and the seconds that they took if known before."""
        known, key = self.upstream.scored, (len(vectors), id(examples))
        if key in known:
            return known[key][1:]
        started = time.perf_counter()
        scores = self.score(vectors, examples)
        if len(known) >= _KEPT_SCORES:
            known.pop(next(iter(known)))
        # The examples are kept along, so that their id stays their own.
        known[key] = examples, scores, time.perf_counter() - started
        return scores, 0.0


@dataclass(frozen=True, kw_only=True)
class Planned(Searching):
    """The planner's menu, as much of it as a method may try.

    Methods are compared at eight variants each. What is left out differs little from what is
    there: other shares, unions of fewer candidates, hybrids, and swaps.
    """

    name: ClassVar[str] = "fedcert planned"

    @classmethod
    def takes(cls, recipe: Recipe) -> bool:
        """Take each kind of recipe once, and the posterior split with every share."""
        return recipe_name(recipe) in _COMPARED


@dataclass(frozen=True, kw_only=True)
class Union(Searching):
    """All n examples choose among M candidates, and certify."""

    name: ClassVar[str] = "fedcert union"

    @classmethod
    def takes(cls, recipe: Recipe) -> bool:
        """Take the union of all candidates."""
        return recipe_name(recipe) == "union"


@dataclass(frozen=True, kw_only=True)
class PosteriorSplit(Searching):
    """Some examples refine, the others certify."""

    name: ClassVar[str] = "fedcert posterior split"

    @classmethod
    def takes(cls, recipe: Recipe) -> bool:
        """Take posterior means with any share."""
        return recipe_name(recipe) in _POSTERIOR


@dataclass(frozen=True, kw_only=True)
class Steel(Searching):
    """STEEL as published: best of M by Hoeffding's bound on all n examples.

    Rezk et al., "Model Diffusion for Certifiable Few-shot Transfer Learning", arXiv 2502.06970,
    with `Upstream.steel_candidates` candidates. It draws from the same prior as fedcert's
    recipes, so what differs is M, the choice and the bound.
    """

    name: ClassVar[str] = "STEEL"

    @classmethod
    def variants(cls, upstream: Upstream) -> Sequence[Self]:
        """There is nothing to tune."""
        config = {
            "kind": "steel",
            "candidates": upstream.steel_candidates,
            "delta": upstream.delta,
        }
        return [cls(upstream=upstream, recipe=Recipe.from_config(config))]


def _handed_out(
    recipe: Recipe, outcome: ReplayedBound, adapters: FloatArray, seconds: float
) -> Personalized:
    assert outcome.index is not None  # these recipes choose one adapter
    candidate = recipe.candidate_of(Choice(index=outcome.index))
    return Personalized(
        adapters=adapters[[candidate]], certificate=outcome.bound, shared_seconds=seconds
    )
