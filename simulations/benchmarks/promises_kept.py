"""What clients are promised from their own examples: abstention, gain, and answer sets."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from fedcert.adapters.peft_format import write_peft_adapter
from fedcert.certificates import (
    AbstentionPromise,
    Answers,
    Choice,
    Evidence,
    GainPromise,
    Promise,
    Recipe,
    SetsPromise,
)
from fedcert.certificates.promises.thresholds import best_threshold
from fedcert.data.examples import Examples
from fedcert.personalization.keeping import ExportedEvidence
from fedcert.planning import recipe_name
from fedcert.search import SupportSession, exported_logits
from fedcert.simulations.benchmarks.federations import remembered
from fedcert.simulations.benchmarks.named_site import Cell, Client, Site

__all__ = ["CASES", "Alone", "Case", "Chosen", "planned_threshold", "rows"]

DELTA = 0.05
# Raise it when planners choose a threshold in another way.
_PLANNING_VERSION = 2
_THRESHOLDS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0)


@dataclass(frozen=True)
class Case:
    """Clients of one scenario, with what they are promised.

    Parameters
    ----------
    cell : Cell
        The federation; its only size is the n of every support set.
    recipe : str
        Name of the recipe on the planner's menu.
    most_wrong : float
        The error among the answered that is wanted.
    over : str
        Whom the gain is over.
    sets : int
        q.
    """

    cell: Cell
    recipe: str
    most_wrong: float
    over: str
    sets: int = 3

    def promises(self, threshold: float, labels: int) -> tuple[Promise[Any], ...]:
        """Return the promises, alone: each is measured with half of delta.

        Sets that would hold all labels are left out.
        """
        sets = (SetsPromise(share=1.0, size=self.sets),) if self.sets < labels else ()
        return (
            AbstentionPromise(share=1.0, most_wrong=self.most_wrong),
            AbstentionPromise(share=1.0, most_wrong=self.most_wrong, threshold=threshold),
            GainPromise(share=1.0, over=self.over),  # type: ignore[arg-type]
            *sets,
        )


CASES = (
    Case(
        Cell(scenario="digits", sizes=(128,), new=16, fitted=96, planners=8,
             planning_size=128, candidates=300, left_out=("finetune",),
             options={"training_size": 128}),
        recipe="posterior_split 0.25",
        most_wrong=0.10,
        over="default",
    ),
    Case(
        Cell(scenario="named-intents", setting="mixed", sizes=(80,), new=16, fitted=32,
             planners=6, planning_size=160),
        recipe="tuned_head 0.25",
        most_wrong=0.05,
        over="base",
    ),
    Case(
        # The prior of `make bench-named`; heads learned alone reach little here.
        Cell(scenario="intents", sizes=(64,), new=12, fitted=96, planners=8, planning_size=64,
             candidates=300, left_out=("finetune",),
             training={"steps": 24, "batch_size": 64, "learning_rate": 0.1}),
        recipe="posterior_split 0.375",
        most_wrong=0.25,
        over="default",
    ),
)  # fmt: skip


def rows(case: Case, seed: int, on_client: Callable[[], None]) -> Iterator[dict[str, Any]]:
    """Yield what each new client is promised, with what is true on its test examples.

    Parameters
    ----------
    case : Case
        What is measured.
    seed : int
        The federation's.
    on_client : callable
        Called after each client.

    Yields
    ------
    dict
        One row a client and promise.
    """
    site = Site(case.cell, seed)
    threshold = remembered(
        "promises",
        _identity(site, case, planners=_PLANNING_VERSION),
        partial(_planned, site, case),
    )
    for name in site.measured:
        yield from remembered(
            "promises",
            _identity(site, case, client=name, threshold=threshold),
            partial(_measured, site.client(name), case, threshold),
        )
        on_client()


def _identity(site: Site, case: Case, **about: Any) -> dict[str, Any]:
    recipe = _recipe(site, case).to_config()
    wanted = {"most_wrong": case.most_wrong, "over": case.over, "sets": case.sets}
    n, fitted = case.cell.sizes[0], case.cell.fitted
    return site.identity(recipe=recipe, n=n, fitted=fitted, **wanted, **about)


def _recipe(site: Site, case: Case) -> Recipe:
    """Return the recipe with half of delta: a promise has the other half."""
    found = {recipe_name(recipe): recipe for recipe in site.menu}[case.recipe]
    return replace(found, delta=DELTA / 2)


class Chosen:
    """What a recipe makes of one client's examples."""

    def __init__(self, site: Site, name: str, recipe: Recipe, examples: Examples) -> None:
        self.site, self.name, self.recipe, self.examples = site, name, recipe, examples
        client = Client(site, name)
        session = SupportSession(
            recipe, site.prior, client.scorer, examples, seed=site.candidate_seed
        )
        chosen = recipe.choose(session)
        self.choice, self.vector = chosen.choice, chosen.vector
        self.task = client.model.task
        self.span = recipe.certifies_on(self.choice, len(examples))

    def export(self, vector: np.ndarray, folder: str) -> Path:
        """Write an adapter folder."""
        base = self.task.base
        write_peft_adapter(
            self.task.space, vector, Path(folder), base_name=base.name, base=base
        )
        return Path(folder)

    def evidence(self, folder: Path) -> Evidence:
        """Return what the exported adapter answers on the support set."""
        return ExportedEvidence(
            self.task,
            self.site.prior,
            folder,
            self.examples,
            span=self.span,
            recipe=self.recipe,
        )

    def certifying(self) -> Answers:
        """Export the adapter for once; return its answers on the certifying examples."""
        with tempfile.TemporaryDirectory() as folder:
            return self.evidence(self.export(self.vector, folder)).certifying


def _planned(site: Site, case: Case) -> float:
    """Return the threshold that clients who plan would take.

    They are none of those that the prior was fitted to, and no new ones.
    """
    n, recipe, seen = case.cell.sizes[0], _recipe(site, case), []
    for name in site.planners:
        examples = site.scenario.training_examples(name).take(slice(0, n))
        chosen = Chosen(site, name, recipe, examples)
        seen.append((chosen.certifying(), chosen.choice))
    return planned_threshold(recipe, seen, n, most_wrong=case.most_wrong)


def planned_threshold(
    recipe: Recipe, seen: Sequence[tuple[Answers, Choice]], n: int, *, most_wrong: float
) -> float:
    """Return the threshold that answers most of those that promise planners enough.

    Expected is the mean over planners of what would be certified. A planner with too few
    answers is certified nothing of them, which counts as an error of 1.

    Parameters
    ----------
    recipe : Recipe
        What certifies.
    seen : sequence of tuple
        Each planner's certifying answers, and what it chose.
    n : int
        Examples of each.
    most_wrong : float
        The wanted error among the answered.

    Returns
    -------
    float
        If none promises enough, the one that comes nearest (`best_threshold`).
    """
    expected = {}
    for threshold in _THRESHOLDS:
        promise = AbstentionPromise(share=1.0, most_wrong=most_wrong, threshold=threshold)
        bounds = [
            promise.fulfil(Alone(answers), recipe.ground(promise, choice, n)).wrong_at_most
            for answers, choice in seen
        ]
        expected[threshold] = float(np.mean([1.0 if b is None else b for b in bounds]))
    return best_threshold(expected, most_wrong) or 0.0


class Alone(Evidence):
    """The certifying answers, and nothing else."""

    def __init__(self, answers: Answers) -> None:
        super().__init__(1e-4)
        self._answers = answers

    @property
    def choosing(self) -> None:
        """Nothing is chosen."""

    @property
    def certifying(self) -> Answers:
        """The adapter's answers."""
        return self._answers

    def of(self, rival: str) -> Answers:
        """Refuse: there is no rival."""
        raise NotImplementedError(rival)


class _Truth:
    """What is true of an adapter on a client's test examples."""

    def __init__(self, chosen: Chosen, folder: Path, tests: Examples) -> None:
        self._chosen, self._tests = chosen, tests
        self.own = Answers(exported_logits(chosen.task, folder, tests), tests.labels)

    @cached_property
    def error(self) -> float:
        """Share of wrong labels."""
        return float((self.own.leads <= 0).mean())

    def about(self, promise: Promise[Any], said: dict[str, Any]) -> dict[str, float]:
        """Return the true counterparts of what a promise says."""
        if promise.kind == AbstentionPromise.kind:
            answered = self.own.margins > said["threshold"]
            wrong = self.own.leads <= 0
            among = float(wrong[answered].mean()) if answered.any() else 0.0
            return {"true_answered": float(answered.mean()), "true_wrong": among}
        if promise.kind == GainPromise.kind:
            center = self._chosen.site.prior.center()
            rival = np.zeros_like(center) if getattr(promise, "over", "") == "base" else center
            with tempfile.TemporaryDirectory() as folder:
                path = self._chosen.export(rival, folder)
                logits = exported_logits(self._chosen.task, path, self._tests)
            others = Answers(logits, self._tests.labels)
            return {"true_gain": float((others.leads <= 0).mean()) - self.error}
        missed = self.own.lead_over(getattr(promise, "size", 1)) <= 0
        return {"true_missed": float(missed.mean())}


def _measured(client: Client, case: Case, threshold: float) -> list[dict[str, Any]]:
    recipe, n = _recipe(client.site, case), case.cell.sizes[0]
    chosen = Chosen(client.site, client.name, recipe, client.first(n))
    with tempfile.TemporaryDirectory() as folder:
        path = chosen.export(chosen.vector, folder)
        evidence = chosen.evidence(path)
        truth = _Truth(chosen, path, client.tests)
        errors = int((evidence.certifying.leads <= evidence.tolerance).sum())
        bound = recipe.bound(errors, chosen.span.size, chosen.choice)
        made = []
        for promise in case.promises(threshold, evidence.certifying.logits.shape[1]):
            ground = recipe.ground(promise, chosen.choice, n)
            said = promise.fulfil(evidence, ground).to_object()
            made.append(
                {
                    "scenario": case.cell.scenario,
                    "seed": client.site.seed,
                    "client": client.name,
                    "n": n,
                    "recipe": case.recipe,
                    "promise": promise.kind,
                    "terms": promise.to_config(),
                    "certificate": bound,
                    "true_risk": truth.error,
                    "said": said,
                    **truth.about(promise, said),
                }
            )
    return made
