"""What each recipe would have certified for one client, from one table of errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fedcert.arrays import FloatArray
from fedcert.certificates import Choice, Outcome, Recipe
from fedcert.certificates.replay import (
    ErrorTable,
    Refined,
    ReplayedBound,
    disjoint_parts,
    mean_bound,
    mean_of,
    replay,
)
from fedcert.data.examples import Examples
from fedcert.planning.menu import worth_trying
from fedcert.planning.plan import Replayed
from fedcert.priors.base import Prior
from fedcert.search.drawing import NO_CONSTANTS, fixed_candidates
from fedcert.search.scores import Scorer, Scores
from fedcert.search.session import SupportSession

__all__ = ["ClientReplay", "plan_client"]

Keep = Callable[[Recipe, Choice, FloatArray, Examples], tuple[Outcome, ...]]


class ClientReplay:
    """One client's examples, on which recipes of any kind and size can be replayed.

    Support sets nest and candidates do not depend on n, so every candidate is scored once on
    all examples, and what is refined on the first n1 serves every n above.

    Parameters
    ----------
    prior : Prior
        What candidates are drawn from.
    scorer : Scorer
        Counts errors.
    examples : Examples
        The client's, in the order in which they are spent.
    seed : str
        Seed of the candidates, 256 bits in hexadecimal.
    candidates : int
        Candidates that are drawn; recipes may use fewer.
    constants : numpy.ndarray, optional
        Adapters that predict one label each, for recipes that have such candidates.
    tested : callable, optional
        Returns which predictions of adapters ``(H, d)`` are wrong on test examples, bool of
        shape ``(H, T)``; without it the outcomes' risks are NaN.
    keep : callable, optional
        Returns what a recipe promises of an adapter that it chose on some examples
        (`fedcert.personalization.keeping.kept_of`).
    """

    def __init__(
        self,
        prior: Prior,
        scorer: Scorer,
        examples: Examples,
        *,
        seed: str,
        candidates: int,
        constants: FloatArray = NO_CONSTANTS,
        tested: Callable[[FloatArray], npt.NDArray[np.bool_]] | None = None,
        keep: Keep | None = None,
    ) -> None:
        self._prior, self._scorer, self._examples = prior, scorer, examples
        self._seed, self._candidates, self._constants = seed, candidates, constants
        self._tested, self._keep = tested, keep
        self._known_risks: dict[bytes, float] = {}
        self._known_scores: dict[bytes, Scores] = {}  # of candidates that are no draws
        self._refined: dict[str, tuple[FloatArray, Scores]] = {}  # risks and scores

    def outcome(self, recipe: Recipe, n: int) -> ReplayedBound:
        """Replay a recipe on the first n examples."""
        if not recipe.selects_from_counts():
            return self._chosen(recipe, n)
        refined = None
        if recipe.refines:
            refined = self._finalists(recipe, n, recipe.certifying(n).as_slice())
        number = recipe.number_of(self._seed)
        outcome = replay(recipe, self._table_for(recipe), n, refined, number=number)
        if recipe.refines or outcome.index is None:
            return outcome
        candidate = recipe.candidate_of(Choice(index=outcome.index))
        return replace(outcome, risk=self._risk(self._vector(recipe, candidate)))

    def mean_bound(self, recipe: Recipe, n: int) -> float:
        """Return what a recipe certifies with n examples, averaged over disjoint parts of all.

        What is refined learns from the first choosing examples alone, and certifies on
        disjoint parts of all the others.
        """
        if not recipe.selects_from_counts():
            parts = disjoint_parts(len(self._examples), n)
            return mean_of([self._chosen(recipe, n, start=part.start).bound for part in parts])
        refined = None
        if recipe.refines:
            refined = self._finalists(recipe, n, slice(recipe.choosing(n).stop, None))
        return mean_bound(recipe, self._table_for(recipe), n, refined)

    def promised(self, recipe: Recipe, n: int) -> dict[str, float] | None:
        """Return what a recipe would have promised on the first n examples, if anything."""
        if self._keep is None or not recipe.promises:
            return None
        choice, vector = self._choice(recipe, n)
        outcomes = self._keep(recipe, choice, vector, self._examples.take(slice(0, n)))
        return dict(item for outcome in outcomes for item in outcome.planned().items())

    def _choice(self, recipe: Recipe, n: int) -> tuple[Choice, FloatArray]:
        """Return what a recipe chooses on the first n examples."""
        if not recipe.selects_from_counts():
            chosen = recipe.choose(self._session(recipe, n))
            return chosen.choice, chosen.vector
        made: FloatArray | None = None
        refined = None
        if recipe.refines:
            refined = self._finalists(recipe, n, recipe.certifying(n).as_slice())
            made = recipe.refine(self._session(recipe, n).only(recipe.choosing(n)))
        counts, _ = recipe.counts_and_risks(self._table_for(recipe), n, refined)
        if recipe.randomized:
            counts = replace(counts, numbers=np.array([recipe.number_of(self._seed)]))
        choice = recipe.choice(counts, recipe.select(counts))
        if made is not None:
            return choice, made[choice.index]
        return choice, self._vector(recipe, recipe.candidate_of(choice))

    @cached_property
    def _vectors(self) -> FloatArray:
        sampler = self._prior.on(self._scorer.device)
        return sampler.sample(self._seed, count=self._candidates)

    @cached_property
    def _scores(self) -> Scores:
        return self._scorer.score(self._vectors, self._examples)

    @cached_property
    def _coarse_losses(self) -> FloatArray:
        """Where posterior means start: chains of every size begin at the same candidates."""
        sampler = self._prior.on(self._scorer.device).coarse()
        vectors = sampler.sample(self._seed, count=self._candidates)
        return self._scorer.score(vectors, self._examples).losses

    @cached_property
    def _tests(self) -> npt.NDArray[np.bool_] | None:
        return None if self._tested is None else self._tested(self._vectors)

    def _vector(self, recipe: Recipe, index: int) -> FloatArray:
        fixed = self._fixed(recipe)
        return np.asarray(fixed[index] if index < len(fixed) else self._vectors[index])

    def _scored(self, recipe: Recipe) -> Scores:
        fixed = self._fixed(recipe)
        return self._scores.led_by(self._fixed_scores(fixed)) if len(fixed) else self._scores

    def _fixed(self, recipe: Recipe) -> FloatArray:
        return fixed_candidates(recipe, self._prior, self._constants)

    def _fixed_scores(self, fixed: FloatArray) -> Scores:
        key = fixed.tobytes()
        if key not in self._known_scores:
            self._known_scores[key] = self._scorer.score(fixed, self._examples)
        return self._known_scores[key]

    def _table_for(self, recipe: Recipe) -> ErrorTable:
        # Testing all candidates takes a while, and only what certifies a mixture needs it.
        tests = None if recipe.certifies == "adapter" else self._tests
        scores = self._scored(recipe)
        return ErrorTable(
            wrong=scores.wrong,
            losses=scores.losses,
            test_risk=np.full(self._candidates, np.nan)
            if tests is None
            else tests.mean(axis=1),
            test_wrong=tests,
        )

    def _risk_of(self, adapters: FloatArray) -> FloatArray:
        if self._tested is None:
            return np.full(len(adapters), np.nan)
        return np.asarray(self._tested(adapters).mean(axis=1))

    def _risk(self, vector: FloatArray) -> float:
        key = vector.tobytes()
        if key not in self._known_risks:
            self._known_risks[key] = float(self._risk_of(vector[None])[0])
        return self._known_risks[key]

    def _finalists(self, recipe: Recipe, n: int, certifying: slice) -> Refined:
        """Return what the recipe refines from its choosing examples, on certifying ones."""
        made = [self._made(part, n) for part in recipe.refined_apart()]
        return Refined(
            wrong=np.concatenate([scores.wrong[:, certifying] for _, scores in made]),
            losses=np.concatenate([scores.losses[:, certifying] for _, scores in made]),
            test_risk=np.concatenate([risks for risks, _ in made]),
        )

    def _made(self, recipe: Recipe, n: int) -> tuple[FloatArray, Scores]:
        """Return risks and scores of finalists, which recipes that ask for the same share."""
        choosing = recipe.choosing(n)
        key = f"{choosing.size} {recipe.refinement_config()}"
        if key not in self._refined:
            adapters = recipe.refine(self._session(recipe, n).only(choosing))
            scores = self._scorer.score(adapters, self._examples)
            self._refined[key] = self._risk_of(adapters), scores
        return self._refined[key]

    def _session(self, recipe: Recipe, n: int, *, start: int = 0) -> SupportSession:
        """Let a recipe choose on some n of the examples as it would for a client."""
        part = slice(start, start + n)
        return SupportSession(
            recipe,
            self._prior,
            self._scorer,
            self._examples.take(part),
            seed=self._seed,
            constants=self._constants,
            coarse_losses=lambda: self._coarse_losses[:, part],
        )

    def _chosen(self, recipe: Recipe, n: int, *, start: int = 0) -> ReplayedBound:
        session = self._session(recipe, n, start=start)
        chosen = recipe.choose(session)
        span = recipe.certifies_on(chosen.choice, n)
        errors = int(session.score(chosen.vector[None], span)[0].sum())
        return ReplayedBound(
            bound=recipe.bound(
                errors, span.size, replace(chosen.choice, number=session.number)
            ),
            risk=self._risk(chosen.vector),
            errors=errors,
            trials=span.size,
            index=chosen.index,
        )


def plan_client(
    replays: ClientReplay, recipes: Sequence[Recipe], sizes: Sequence[int]
) -> list[Replayed]:
    """Replay recipes on one planning client at several n.

    Parameters
    ----------
    replays : ClientReplay
        The client's examples.
    recipes : sequence of Recipe
        What to try; refining on very many examples is left out.
    sizes : sequence of int
        Values of n, at most the client's number of examples.

    Returns
    -------
    list of Replayed
        A row for each recipe and n that could be replayed.
    """
    return [
        Replayed(
            index,
            n,
            replays.outcome(recipe, n).bound,
            replays.mean_bound(recipe, n),
            replays.promised(recipe, n),
        )
        for n in sizes
        for index, recipe in enumerate(recipes)
        if worth_trying(recipe, n)
    ]
