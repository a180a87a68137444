"""One scenario, setting and seed of ``make bench-named``: pool, prior, plan and clients.

Texts go through the frozen layers once in a process, whoever has them. What takes long is kept
in the cache by client, so that a run which stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, field, replace
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedcert.adapters import AdaptedModel, AdapterSpace, PrefixCache, Task, finetune
from fedcert.arrays import FloatArray
from fedcert.certificates import Recipe
from fedcert.data.examples import Examples
from fedcert.errors import SettingsError
from fedcert.models import BaseModel, load_base_model
from fedcert.models.heads import NamesHead
from fedcert.planning import ClientReplay, Plan, Replayed, menu, plan_client
from fedcert.priors import DiffusionPrior
from fedcert.randomness import derive_seed, small_seed
from fedcert.scenarios import Scenario, load_scenario
from fedcert.search import BatchedScorer
from fedcert.search.learning import has_linear_head
from fedcert.search.linear_head import LinearHead
from fedcert.settings import RunSettings
from fedcert.simulations.benchmarks.federations import remembered

__all__ = ["DELTA", "Cell", "Client", "Site"]

# Raise it when a measurement changes what it gives for the same cell.
_VERSION = 1
DELTA = 0.05
_CACHE_MIB = 3072
# So many new clients a scenario has, however many are measured: more can be added later.
_OFFERED = 40


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A scenario in one setting, and how much of it is measured.

    Attributes
    ----------
    scenario : str
        Its name.
    setting : str
        The scenario's setting; empty if it has none.
    sizes : tuple of int
        Values of n.
    new : int
        New clients that are measured per seed, of `_OFFERED`.
    some : int
        Of these, on how many methods run that take long.
    fitted, planners : int
        Upstream clients whose adapters make the prior, and others that plan.
    planning_size : int
        Examples of each planning client.
    candidates : int
        M.
    left_out : tuple of str
        What the planner's menu is without, by what makes the finalists: it takes minutes for
        each planning client of an encoder that is read at all tokens.
    training : Mapping
        How upstream clients train, where the scenario does not say.
    options : Mapping
        Further options of the scenario.
    """

    scenario: str
    setting: str = ""
    sizes: tuple[int, ...] = (16, 32, 80, 128)
    new: int = 16
    some: int = 3
    fitted: int = 32
    planners: int = 8
    planning_size: int = 160
    candidates: int = 50
    left_out: tuple[str, ...] = ("finetune", "posterior_mean")
    training: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Scenario and setting."""
        return f"{self.scenario}, {self.setting}" if self.setting else self.scenario

    def scenario_options(self, seed: int) -> dict[str, Any]:
        """Return what the scenario is built with."""
        setting = {"setting": self.setting} if self.setting else {}
        upstream = self.fitted + self.planners
        return {"upstream": upstream, "new": _OFFERED, "seed": seed, **setting, **self.options}


class Site:
    """A cell with one seed.

    Parameters
    ----------
    cell : Cell
        What is measured.
    seed : int
        Of everything.
    """

    def __init__(self, cell: Cell, seed: int) -> None:
        self.cell, self.seed = cell, seed
        values: dict[str, Any] = {
            "seed": seed,
            "scenario": {"name": cell.scenario, "options": cell.scenario_options(seed)},
        }
        if cell.training:
            values["training"] = dict(cell.training)
        self.settings = RunSettings.from_mapping(values)

    @cached_property
    def scenario(self) -> Scenario:
        """Data and tasks."""
        return load_scenario(self.settings.scenario.name, self.settings.scenario.options)

    @cached_property
    def base(self) -> BaseModel:
        """The base model, without labels where these are the clients'."""
        return _base_model(str(self.scenario.base_model()), len(self.scenario.labels))

    @cached_property
    def space(self) -> AdapterSpace:
        """Where adapters live."""
        return self.settings.space_of(self.base)

    @property
    def measured(self) -> tuple[str, ...]:
        """The new clients."""
        return self.scenario.new_clients[: self.cell.new]

    def model(self, client: str) -> AdaptedModel:
        """Return the model with a client's labels."""
        task = Task(self.base, self.space, self.scenario.inputs)
        if self.base.takes_labels:
            task = task.with_labels(self.scenario.labels_of(client))
        return task.model(prefix_cache=_prefix_cache())

    def identity(self, **about: Any) -> dict[str, Any]:
        """Return what a figure follows from, with what it is about."""
        return {
            "version": _VERSION,
            "scenario": self.settings.scenario.model_dump(),
            "space": self.space.digest,
            "training": asdict(self.settings.finetune_settings()),
            "seed": self.seed,
            **about,
        }

    @cached_property
    def pool(self) -> FloatArray:
        """The adapters of the first upstream clients, ``(N, d)``."""
        names = self.scenario.upstream_clients[: self.cell.fitted]
        rows = [
            remembered("named", self.identity(trained=name), partial(self._trained, name))
            for name in names
        ]
        return np.array(rows, dtype=np.float64)

    def _trained(self, client: str) -> list[float]:
        result = finetune(
            self.model(client),
            self.scenario.training_examples(client),
            seed=small_seed("finetune", self.seed, client),
            settings=self.settings.finetune_settings(),
        )
        return [float(value) for value in result.vector]

    @cached_property
    def prior(self) -> DiffusionPrior:
        """Fitted to the pool."""
        return DiffusionPrior.fit(self.pool, seed=small_seed("prior", self.seed))

    @property
    def planners(self) -> tuple[str, ...]:
        """Those who plan: whom the scenario names, or some behind those of the prior."""
        first = self.cell.fitted
        some = self.scenario.upstream_clients[first : first + self.cell.planners]
        return self.scenario.planning_clients or some

    @property
    def candidate_seed(self) -> str:
        """One for all clients: each certificate is valid by itself."""
        return derive_seed("bench named", self.seed)

    @cached_property
    def menu(self) -> tuple[Recipe, ...]:
        """What the planner chooses among."""
        recipes = menu(
            candidates=self.cell.candidates,
            delta=DELTA,
            local_head=has_linear_head(self.space),
        )
        return tuple(each for each in recipes if _made_by(each).isdisjoint(self.cell.left_out))

    @cached_property
    def plan(self) -> Plan:
        """The planner's choice, by clients that neither trained for the prior nor are new."""
        replays = []
        for name in self.planners:
            examples = self.scenario.training_examples(name)
            examples = examples.take(slice(0, self.cell.planning_size))
            rows = []
            for recipe in self.menu:
                about = self.recipe_identity(recipe) | {"planning": name}
                sizes = [n for n in self.cell.sizes if n <= len(examples)]
                about |= {"sizes": sizes, "size": len(examples)}
                play = partial(self._replayed, name, examples, recipe, sizes)
                found = remembered("named", self.identity(**about), play)
                rows += [(self.menu.index(recipe), *row[1:]) for row in found]
            replays.append([Replayed(*row) for row in rows])
        return Plan.of(self.menu, replays)

    def _replayed(
        self, name: str, examples: Examples, recipe: Recipe, sizes: list[int]
    ) -> list[tuple[Any, ...]]:
        if self._replay[0] != name:
            scorer = BatchedScorer(self.model(name), margin_tolerance=1e-4)
            replay = ClientReplay(
                self.prior,
                scorer,
                examples,
                seed=self.candidate_seed,
                candidates=self.cell.candidates,
            )
            self._replay = (name, replay)
        return [astuple(row) for row in plan_client(self._replay[1], [recipe], sizes)]

    # One client's replays share scores; recipes come client by client.
    _replay: tuple[str, Any] = ("", None)

    def recipe_identity(self, recipe: Recipe) -> dict[str, Any]:
        """Return what a recipe's outcome follows from beside the client's examples."""
        return {"recipe": recipe.to_config(), "prior": self.prior.digest}

    @cached_property
    def embedder(self) -> BatchedScorer:
        """Gives a text's embedding by the frozen model in place of logits.

        Labels whose embeddings are the unit vectors have its coordinates as their cosines.
        """
        model: Any = self.base.model
        probes = NamesHead(1.0, torch.eye(model.config.hidden_size)).eval()
        base = replace(self.base, model=model.with_head(probes, None))
        task = Task(base, self.space, self.scenario.inputs, labels=())
        return BatchedScorer(task.model(prefix_cache=_prefix_cache()), margin_tolerance=0.0)

    def client(self, name: str) -> Client:
        """Return a new client."""
        return Client(self, name)


class Client:
    """A new client: its model, and its texts.

    Parameters
    ----------
    site : Site
        Where it comes to.
    name : str
        Its id.
    """

    def __init__(self, site: Site, name: str) -> None:
        self.site, self.name = site, name

    @cached_property
    def model(self) -> AdaptedModel:
        """The base model with the client's labels."""
        return self.site.model(self.name)

    @cached_property
    def scorer(self) -> BatchedScorer:
        """Counts errors as certificates do."""
        return BatchedScorer(self.model, margin_tolerance=1e-4)

    @cached_property
    def exact(self) -> BatchedScorer:
        """Counts errors as they are."""
        return BatchedScorer(self.model, margin_tolerance=0.0)

    @cached_property
    def support(self) -> Examples:
        """The largest support set."""
        return self.site.scenario.support_examples(self.name, max(self.site.cell.sizes))

    @cached_property
    def tests(self) -> Examples:
        """What measures true errors, and nothing else."""
        tests = self.site.scenario.test_examples(self.name)
        if tests is None:
            raise SettingsError(f"{self.site.scenario.name}: {self.name} has no test examples")
        return tests

    def first(self, n: int) -> Examples:
        """Return the first n examples, the same object each time."""
        if n not in self._parts:
            self._parts[n] = self.support.take(slice(0, n))
        return self._parts[n]

    @cached_property
    def _parts(self) -> dict[int, Examples]:
        return {}

    @cached_property
    def _errors(self) -> dict[bytes, float]:
        return {}

    @cached_property
    def _below(self) -> dict[bytes, tuple[FloatArray, FloatArray]]:
        return {}

    def embeddings(self, examples: Examples) -> FloatArray:
        """Return the frozen model's embeddings of texts, unit vectors ``(n, width)``."""
        zero = np.zeros((1, self.site.space.dimension))
        parts = [logits[0] for _, logits in self.site.embedder.logits(zero, examples.inputs)]
        return np.asarray(torch.cat(parts).double().numpy())

    @cached_property
    def test_embeddings(self) -> FloatArray:
        """Those of the test examples."""
        return self.embeddings(self.tests)

    def error(self, adapter: FloatArray) -> float:
        """Return an adapter's true error, on the test examples."""
        key = adapter.tobytes()
        if key not in self._errors:
            width = self.site.space.dimension
            body, moves = adapter[:width], adapter[width:]
            # Heads from names on one adapter share what is below them.
            self._errors[key] = (
                float((self._moved(body, moves) != self.tests.labels).mean())
                if len(moves)
                else float(self.exact.score(body[None], self.tests).wrong.mean())
            )
        return self._errors[key]

    def _moved(self, body: FloatArray, moves: FloatArray) -> npt.NDArray[np.int64]:
        """Return the predictions for the tests where a client's label embeddings are moved."""
        key = body.tobytes()
        if key not in self._below:
            head = LinearHead.of(self.model, body)
            [(_, found)] = self.exact.logits(body[None], self.tests.inputs)
            features = head.features(self.exact, self.tests)
            self._below[key] = found[0].double().numpy(), features
        logits, features = self._below[key]
        moved = features @ moves.reshape(logits.shape[1], -1).T
        return np.asarray((logits + moved).argmax(axis=1))


def _made_by(recipe: Recipe) -> set[str]:
    """Return the names of what makes a recipe's finalists; none if it makes none."""
    return set(str(getattr(recipe, "refinement", "")).split("+")) - {""}


@lru_cache(maxsize=4)
def _base_model(folder: str, labels: int) -> BaseModel:
    return load_base_model(folder, num_labels=labels) if labels else load_base_model(folder)


@lru_cache(maxsize=1)
def _prefix_cache() -> PrefixCache:
    return PrefixCache(budget_mib=_CACHE_MIB)
