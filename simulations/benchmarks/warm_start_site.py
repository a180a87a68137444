"""A federation of ``make bench-warm-start`` on the base model that one way to warm up gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fedcert.adapters import Task, finetune
from fedcert.cache import cache_folder
from fedcert.canonical import digest_json
from fedcert.certificates import Recipe
from fedcert.methods.federated import drawn_clients
from fedcert.models import BaseModel, load_base_model
from fedcert.planning import recipe_name
from fedcert.privacy import RoundsPrivacy, dealt_clients
from fedcert.randomness import keyed_generator, small_seed
from fedcert.settings.sections import WarmStartSettings
from fedcert.simulations.benchmarks.federations import check_measuring
from fedcert.simulations.benchmarks.named_site import Cell, Site
from fedcert.simulations.benchmarks.publishing import say
from fedcert.strategies.trunk_privacy import TrunkPrivacy
from fedcert.warm_start import (
    Trunk,
    TrunkTensors,
    TrunkTraining,
    local_round,
    merge,
    trunk_part,
)
from fedcert.warm_start.outer import RoundMean, ServerOptimizer, round_weights
from fedcert.warm_start.progress import WarmProgress

__all__ = ["CELLS", "METHODS", "WarmCell", "WarmSite"]

METHODS: dict[str, dict[str, Any]] = {
    "none": {},
    "standard": {"personal": "head"},
    "meta": {"personal": "adapter"},
    # One after the other instead of all at once: no average in between. Their steps add up, and
    # at the rates of the cells, which an average makes smaller, they end in noise.
    "central": {"personal": "head", "learning_rate": 3e-3},
    # As meta, and what is published promises something about each client. Most moves are longer
    # than the clip; the server's rate makes up for some of that.
    "private": {
        "personal": "adapter",
        "weights": "equal",
        "epsilon": 8.0,
        "clip": 4.0,
        "server_rate": 2.0,
    },
}
"""What differs of the settings of a warm start."""


@dataclass(frozen=True, kw_only=True)
class WarmCell(Cell):
    """A scenario, how it is warmed up, and what the planner may choose.

    Attributes
    ----------
    kinds : tuple of str
        Names of recipes as `fedcert.planning.recipe_name` begins; empty for the whole menu.
    warm : Mapping
        The section ``warm_start``.
    trunk : int
        Upstream clients that train the base model; 0 stands for those of the prior.
    strangers : bool
        Whether those who plan have labels, or inputs, that nobody else has: the scenario has
        the option.
    methods : tuple of str
        Of `METHODS`. Noise is for many clients: the other cells are without it.
    label : str
        Tells it from another cell of the same scenario.
    """

    kinds: tuple[str, ...] = ()
    warm: Mapping[str, Any] = field(default_factory=dict)
    trunk: int = 0
    strangers: bool = False
    methods: tuple[str, ...] = ("none", "standard", "meta", "central")
    label: str = ""

    @property
    def name(self) -> str:
        """Scenario and setting, and how the cell differs from another of the same."""
        apart = f"{self.trunk} clients" if self.trunk else self.label
        return f"{super().name}, {apart}" if apart else super().name

    def scenario_options(self, seed: int) -> dict[str, Any]:
        """Return what the scenario is built with: those who train the base model included."""
        upstream = {"upstream": self.trunk + self.planners} if self.trunk else {}
        apart = {"planners": self.planners} if self.strangers else {}
        return super().scenario_options(seed) | upstream | apart


_DIGITS = WarmCell(
    scenario="digits",
    sizes=(16, 32, 64),
    fitted=48,
    planners=8,
    planning_size=100,
    candidates=200,
    options={"known": 5},
    # Chosen by the error of a head on 32 examples of new clients of a seed that is not
    # measured: warm_start_tried.py.
    warm={"rounds": 40, "share": 0.5, "learning_rate": 3e-2},
)
_INTENTS = WarmCell(
    scenario="intents",
    sizes=(32, 64),
    fitted=48,
    planners=8,
    strangers=True,
    candidates=200,
    # What leads docs/certificates.md at these sizes, and heads, which a base model that was
    # warmed up needs little else than; chains of posterior means take hours.
    kinds=("union", "hybrid", "local_head", "tuned_head"),
    training={"steps": 24, "batch_size": 64, "learning_rate": 0.1},
    # Chosen in the same way as those of digits: warm_start_tried.py.
    warm={
        "rounds": 40, "clients_per_round": 8, "share": 0.5, "held_out": 0.5, "steps": 6,
        "personal_steps": 5, "batch_size": 16, "learning_rate": 3e-2,
    },
)  # fmt: skip
CELLS = (
    WarmCell(
        scenario="named-intents",
        setting="mixed",
        sizes=(16, 32, 80),
        fitted=24,
        planners=6,
        strangers=True,
        # What a plan has ever chosen on names; the others search in minutes.
        kinds=("default", "tuned_head"),
        # Chosen by the error of the names alone: warm_start_tried.py.
        warm={
            "rounds": 12, "clients_per_round": 12, "share": 0.5, "steps": 6,
            "personal_steps": 3, "batch_size": 16, "learning_rate": 1e-2,
        },
    ),
    _DIGITS,
    replace(
        _DIGITS,
        trunk=512,
        methods=("none", "meta", "private"),
        # All clients in each round, and a small trunk: all that noise is long by.
        warm={
            "rounds": 12, "clients_per_round": 0, "share": 0.5, "rank": 2, "steps": 12,
            "personal_steps": 3, "batch_size": 16, "learning_rate": 3e-2,
        },
    ),
    _INTENTS,
    # What was measured first: half of the rounds, planners whose inputs others train on, and no
    # heads to choose. Its misses stay on the page.
    replace(
        _INTENTS,
        label="first attempt",
        methods=("none", "standard"),
        kinds=("union", "hybrid"),
        strangers=False,
        warm={**_INTENTS.warm, "rounds": 20},
    ),
)  # fmt: skip


class WarmSite(Site):
    """A cell with one seed on the base model that came of one way to warm up.

    Rounds are done here, in this process, by the parts that strategy and clients use.

    Parameters
    ----------
    cell : WarmCell
        What is measured.
    seed : int
        Of everything.
    method : str
        One of `METHODS`.
    **differs
        Settings of the rounds that are others than those of cell and method.
    """

    def __init__(self, cell: WarmCell, seed: int, method: str, **differs: Any) -> None:
        super().__init__(cell, seed)
        self.method, self._kinds, self._trunk_clients = method, cell.kinds, cell.trunk
        self.warm = WarmStartSettings(**{**cell.warm, **METHODS[method], **differs})
        if method == "none":
            self.warm = self.warm.model_copy(update={"rounds": 0})
        self.settings = self.settings.model_copy(update={"warm_start": self.warm})

    @cached_property
    def base(self) -> BaseModel:
        """The base model, warmed up."""
        if not self.warm.rounds:
            return super().base
        return self._loaded(self.folder)

    @cached_property
    def folder(self) -> Path:
        """Where the warmed base model is."""
        about = {"rounds": self.warm.rounds, "method": self.method, "seed": self.seed}
        tensors = self.progress.tensors
        return merge(self.source, self.trunk, tensors, self.place, about=about)[0]

    @cached_property
    def source(self) -> Path:
        """The base model as it was."""
        return Path(self.scenario.base_model())

    @cached_property
    def cold(self) -> BaseModel:
        """The same, loaded."""
        return self._loaded(self.source)

    @cached_property
    def trunk(self) -> Trunk:
        """What is trained together."""
        return Trunk.of(self.cold, rank=self.warm.rank, seed=self.seed)

    @cached_property
    def training(self) -> TrunkTraining:
        """How clients train it."""
        return self.settings.trunk_training()

    @property
    def place(self) -> Path:
        """Folder in the cache."""
        identity = [self.identity_of_rounds, self.method == "central"]
        return cache_folder() / "warm-start" / digest_json(identity)[:32]

    @property
    def identity_of_rounds(self) -> dict[str, Any]:
        """Return what the trunk follows from."""
        return {
            "scenario": self.settings.scenario.model_dump(),
            "trunk": self.trunk.to_config(),
            "training": self.training.to_config(),
            "settings": self.warm.identity(),
            "fitted": self.cell.fitted,
            "seed": self.seed,
            **({"trunk clients": self._trunk_clients} if self._trunk_clients else {}),
        }

    @cached_property
    def progress(self) -> WarmProgress:
        """The trunk after all rounds, of which each is on the disk."""
        file, identity = self.place / "trunk.safetensors", self.identity_of_rounds
        progress = WarmProgress.read(file, self.trunk, identity)
        if len(progress.rounds) < self.warm.rounds:
            check_measuring("warm-start")
        while (number := len(progress.rounds) + 1) <= self.warm.rounds:
            progress.rounds.append(self._round(progress, number))
            progress.save(file, identity)
            say("r", end="")
        return progress

    def _round(self, progress: WarmProgress, number: int) -> dict[str, Any]:
        names = self._drawn(number)
        optimizer = ServerOptimizer(
            self.warm.server_rate, self.warm.momentum, self.warm.nesterov, progress.moments
        )
        mean, losses, deltas = RoundMean(self.trunk), [], []
        weights = round_weights([1] * len(names))  # all have the same number here
        for name, weight in zip(names, weights, strict=True):
            done = local_round(
                self._cold_task(name),
                self.trunk,
                progress.tensors,
                self._parts(name)[0],
                training=self.training,
                done=(number - 1) * self.warm.steps,
                seed=small_seed("warm start", self.seed, number, name),
            )
            losses.append(done.loss)
            if self.method == "central":
                progress.tensors = {
                    key: array + done.delta[key] for key, array in progress.tensors.items()
                }
            mean.add(done.delta, weight)
            if self.privacy is not None:
                deltas.append(done.delta)
        if self.method != "central":
            moved = mean.total if self.privacy is None else self._noised(deltas, number)
            progress.tensors = optimizer.step(progress.tensors, moved)
        size = sum(array.nbytes for array in progress.tensors.values())
        return {
            "clients": len(names),
            "loss": float(np.mean(losses)),
            "norm": 0.0,
            "bytes_up": size * len(names),
            "bytes_down": size * len(names),
        }

    @cached_property
    def trainers(self) -> tuple[str, ...]:
        """Those who train the base model: those of the prior, and others that do not plan."""
        others = [c for c in self.scenario.upstream_clients if c not in self.planners]
        return tuple(others[: max(self._trunk_clients, self.cell.fitted)])

    @cached_property
    def privacy(self) -> RoundsPrivacy | None:
        """What the rounds promise, as in a run."""
        promise = TrunkPrivacy.of(self.settings) if self.warm.rounds else None
        if promise is None:
            return None
        count, rounds = self.warm.clients_per_round, self.warm.rounds
        return promise.over(len(self.trainers), count=count, rounds=rounds)

    def _drawn(self, number: int) -> list[str]:
        count = self.warm.clients_per_round
        if self.privacy is not None:
            return dealt_clients(self.trainers, count, number, seed=self.seed)
        return drawn_clients(self.trainers, count, self.seed, number)

    def _noised(self, deltas: list[TrunkTensors], number: int) -> Any:
        assert self.privacy is not None
        generator = keyed_generator("bench trunk noise", self.seed, number)
        return self.privacy.release(deltas, self.trunk.shapes(), generator=generator)

    def _cold_task(self, client: str) -> Task:
        task = Task(self.cold, self.settings.space_of(self.cold), self.scenario.inputs)
        if self.cold.takes_labels:
            task = task.with_labels(self.scenario.labels_of(client))
        return task

    def _parts(self, client: str) -> tuple[Any, Any]:
        examples = self.scenario.training_examples(client)
        return trunk_part(examples, self.warm.share, client=client)

    def _trained(self, client: str) -> list[float]:
        """Harvest an adapter from what did not train the trunk."""
        if not self.warm.rounds:
            return super()._trained(client)
        result = finetune(
            self.model(client),
            self._parts(client)[1],
            seed=small_seed("finetune", self.seed, client),
            settings=self.settings.finetune_settings(),
        )
        return [float(value) for value in result.vector]

    @cached_property
    def menu(self) -> tuple[Recipe, ...]:
        """What the planner chooses among here."""
        everything, kinds = super().menu, self._kinds
        return tuple(r for r in everything if not kinds or recipe_name(r).startswith(kinds))

    def identity(self, **about: Any) -> dict[str, Any]:
        """Return what a figure follows from; the space has the base model's digest."""
        return super().identity(**about, share=self.warm.share if self.warm.rounds else 0)

    def _loaded(self, folder: Path) -> BaseModel:
        labels = len(self.scenario.labels)
        return load_base_model(str(folder), num_labels=labels or None)
