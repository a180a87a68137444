"""One scenario and seed for `make bench-methods`: what every method is given alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from fedcert.arrays import FloatArray
from fedcert.canonical import digest_tensors
from fedcert.data.examples import Examples
from fedcert.errors import DataError, SettingsError
from fedcert.priors import DiffusionPrior
from fedcert.randomness import derive_seed, small_seed
from fedcert.runs.machine import PeakMemory, give_back_memory, resident_mib
from fedcert.search import BatchedScorer
from fedcert.search.refinement import posterior_means
from fedcert.simulations.benchmarks.certificates import CANDIDATES, DELTA, POOL, Case
from fedcert.simulations.benchmarks.comparison import (
    FedAvgLocal,
    Learned,
    LocalLora,
    Method,
    Trial,
    Upstream,
    tuned,
)
from fedcert.simulations.benchmarks.federations import Federation, remembered

__all__ = ["LIMIT_METHODS", "MethodBench"]

# Raise it when a method changes what it returns for the same configuration.
_VERSION = 1
STEEL_CANDIDATES = {"digits": 20_000}
"""M of STEEL as published; on text it is 2,000, for the time it takes."""
_STEEL_ON_TEXT = 2_000

CHAIN_STEPS = 60
"""Steps of the chains whose mean is a method of the limit's list."""

# Clients that are not measured lend their tests to say what personalizing forgets.
_OTHERS, _OF_EACH = 8, 50

# Draws of a randomized predictor that are tested, which is enough for their mean error.
_TESTED_DRAWS = 100

LIMIT_METHODS = ("posterior mean", "local LoRA", "FedAvg-LoRA + local")
"""The frozen list that *limit* takes the best of: each learns from all n, uncertified."""


@dataclass(frozen=True, eq=False)
class _Support:
    """A client's examples, and their first n as objects that do not change."""

    client: str
    examples: Examples
    frozen: dict[int, float] = field(default_factory=dict)
    _parts: dict[int, Examples] = field(default_factory=dict)

    def first(self, n: int) -> Examples:
        if n not in self._parts:
            self._parts[n] = self.examples.take(slice(0, n))
        return self._parts[n]


class MethodBench:
    """Pool, prior, tuning clients and new clients of one scenario and seed.

    Parameters
    ----------
    case : Case
        The scenario.
    seed : int
        Seed of everything.
    sizes : sequence of int
        Values of n.
    """

    def __init__(self, case: Case, seed: int, sizes: Sequence[int]) -> None:
        self.case, self.seed, self._sizes = case, seed, tuple(sizes)
        self.federation = Federation.of(case.scenario, seed=seed, **case.options)
        self.scenario = self.federation.scenario
        self._planning = Federation.of(
            case.scenario, seed=seed, **case.options, **case.planning
        ).scenario
        self._pool = self.federation.pool()
        # Tuning clients come after those whose adapters and examples everything is made of.
        self._count = min(POOL, len(self._pool) - case.planners)
        self._supports: dict[str, _Support] = {}
        self._true = BatchedScorer(self.federation.model, margin_tolerance=0.0)

    @property
    def tuning_clients(self) -> tuple[str, ...]:
        """Upstream clients that choose hyper-parameters, and do nothing else."""
        return self.scenario.upstream_clients[self._count : self._count + self.case.planners]

    @cached_property
    def upstream(self) -> Upstream:
        """What all methods get."""
        pool = self._pool[: self._count]
        names = self.scenario.upstream_clients[: self._count]
        steel = STEEL_CANDIDATES.get(self.case.scenario, _STEEL_ON_TEXT)
        return Upstream(
            model=self.federation.model,
            clients={name: self.scenario.training_examples(name) for name in names},
            pool=pool,
            prior=DiffusionPrior.fit(pool, seed=small_seed("prior", self.seed)),
            training=self.federation.settings.finetune_settings(),
            delta=DELTA,
            candidates=CANDIDATES,
            steel_candidates=steel,
            seed=self.seed,
            remember=self._remember,
        )

    def variants(self, method: type[Method]) -> Sequence[Method]:
        """Return what a method tries."""
        return method.variants(self.upstream)

    def tune(
        self, method: type[Method], *, on_client: Callable[[], None] = lambda: None
    ) -> dict[int, Method]:
        """Return the variant with the best certificates on tuning clients, by n (`tuned`)."""
        variants = self.variants(method)
        if len(variants) == 1:
            return dict.fromkeys(self._sizes, variants[0])
        trials: list[Trial] = []
        for client in self.tuning_clients:
            support = self._of(client, partial(self._planning.training_examples, client))
            sizes = [n for n in self._sizes if n <= len(support.examples)]
            for index, variant in enumerate(variants):
                trials += [
                    Trial(index, n, self._trial(variant, support, n))
                    for n in sizes
                    if variant.tries(n)
                ]
            on_client()
        return {n: variants[index] for n, index in tuned(trials, self._sizes).items()}

    def measure(self, chosen: dict[int, Method], client: str) -> list[dict[str, Any]]:
        """Return a new client's outcome at each n, with the variants chosen there."""
        support = self._of(client, partial(self.support, client))
        return [
            self._outcome(variant, support, n)
            for n, variant in chosen.items()
            if n <= len(support.examples)
        ]

    def memory(self, chosen: dict[int, Method], client: str) -> float:
        """Return the memory that a client needs beside model and pool, MiB, at its largest n.

        The difference of this process's resident memory before and at its peak: an estimate,
        since memory that was freed before may be used again.
        """
        support = self._of(client, partial(self.support, client))
        n = max(size for size in chosen if size <= len(support.examples))
        method = chosen[n]
        identity = self._identity | {"client": client, "n": n, "memory": method.config()}

        def compute() -> float:
            self._warm(method)
            # Fresh objects, so that no score of them is known from before.
            part = support.examples.take(slice(0, n))
            give_back_memory()
            before = resident_mib()
            with PeakMemory(interval=0.01) as peak:
                method.personalize(part)
            return max(0.0, peak.peak_mib - before)

        return float(remembered("methods", identity, compute))

    def _trial(self, method: Method, support: _Support, n: int) -> float:
        """Return what a variant promises a tuning client with n examples (`Method.trial`)."""
        about = {"client": support.client, "n": n, "method": method.config(), "trial": 1}
        play = partial(method.trial, support.examples, n)
        return float(remembered("methods", self._identity | about, play))

    def _outcome(self, method: Method, support: _Support, n: int) -> dict[str, Any]:
        """Return the certificate, errors and seconds of a new client's first n examples."""
        about = {"client": support.client, "n": n, "method": method.config(), "tests": True}
        compute = partial(self._measured, method, support, n)
        found: dict[str, Any] = remembered("methods", self._identity | about, compute)
        return found

    def risks(self, client: str) -> list[dict[str, Any]]:
        """Return true errors of the list's methods, learned from all n, at each n."""
        identity = self._identity | {"client": client, "sizes": list(self._sizes), "limit": 2}
        found: list[dict[str, Any]] = remembered(
            "methods", identity, lambda: list(self._uncertified(client))
        )
        return found

    def _of(self, client: str, draw: Callable[[], Examples]) -> _Support:
        """Return a client's support sets, the same objects each time."""
        if client not in self._supports:
            self._supports[client] = _Support(client, draw())
        return self._supports[client]

    def support(self, client: str) -> Examples:
        """Return the client's largest support set among the sizes."""
        for n in sorted(self._sizes, reverse=True):
            try:
                return self.scenario.support_examples(client, n)
            except DataError:
                continue
        raise SettingsError(f"{self.scenario.name}: {client} has too few examples")

    def _measured(self, method: Method, support: _Support, n: int) -> dict[str, Any]:
        part = support.first(n)
        # What a device does not do: training everybody's adapter, sampling for others.
        self._warm(method)
        frozen = self._frozen_seconds(support, n) if method.runs_model else 0.0
        started = time.perf_counter()
        result = method.personalize(part)
        seconds = time.perf_counter() - started + result.shared_seconds + frozen
        return {
            "n": n,
            "certificate": result.certificate,
            "seconds": seconds,
            "error": self._error(result.adapters, self._tests(support.client)),
            "global_error": self._error(result.adapters, self._others),
        }

    def _frozen_seconds(self, support: _Support, n: int) -> float:
        """Time the frozen layers on a support set, which every method here finds done."""
        if n not in support.frozen:
            part = support.first(n)
            task = self.federation.model.task
            alone = task.model()
            alone.prepare(task.encode(part.take(slice(2))))  # checks itself the first time
            started = time.perf_counter()
            alone.prepare(task.encode(part))
            support.frozen[n] = time.perf_counter() - started
            self.federation.model.prepare(task.encode(part))
        return support.frozen[n]

    def _warm(self, method: Method) -> None:
        """Have everything that clients share computed before the clock starts."""
        key = repr(sorted(method.config().items(), key=str))
        if key not in self._warmed:
            self._warmed.add(key)
            method.prepare()

    @cached_property
    def _warmed(self) -> set[str]:
        return set()

    def _uncertified(self, client: str) -> Iterable[dict[str, Any]]:
        upstream, support = self.upstream, self.support(client)
        tests = self._tests(client)
        learners: dict[str, Learned] = {
            cls.name: cls.variants(upstream)[0] for cls in (LocalLora, FedAvgLocal)
        }
        for n in (n for n in self._sizes if n <= len(support)):
            part = support.take(slice(0, n))
            (mean,) = posterior_means(
                upstream.prior.coarse(), upstream.scorer, part,
                seed=derive_seed("bench methods", self.seed),
                candidates=CANDIDATES, chains=32, steps=CHAIN_STEPS,
            )  # fmt: skip
            yield {"n": n, "method": "posterior mean", "error": self._error(mean, tests)}
            for name, learner in learners.items():
                error = self._error(learner.learn(part), tests)
                yield {"n": n, "method": name, "error": error}

    def _error(self, adapters: FloatArray, tests: Examples) -> float:
        some = np.atleast_2d(adapters)[:_TESTED_DRAWS]
        return float(self._true.score(some, tests).wrong.mean())

    def _tests(self, client: str) -> Examples:
        tests = self.scenario.test_examples(client)
        if tests is None:
            raise SettingsError(f"{self.scenario.name}: {client} has no test examples")
        return tests

    @cached_property
    def _others(self) -> Examples:
        """Tests of clients that are not measured: the federation's mixture, as far as seen."""
        new = self.scenario.new_clients
        names = (new[self.case.new :] or new)[:_OTHERS]
        parts = []
        for place, name in enumerate(names):
            tests = self._tests(name)
            # Clients may share their inputs: each gives another part of them.
            rows = (place * _OF_EACH + np.arange(min(_OF_EACH, len(tests)))) % len(tests)
            parts.append(tests.take(rows))
        return Examples(
            np.concatenate([part.inputs for part in parts]),
            np.concatenate([part.labels for part in parts]),
        )

    @cached_property
    def _identity(self) -> dict[str, Any]:
        """Return what every outcome follows from."""
        return {
            "version": _VERSION,
            "scenario": self.federation.settings.scenario.model_dump(),
            "planning": self.case.planning,
            "measured": self.case.new,
            "space": self.federation.model.space.digest,
            "pool": digest_tensors({"pool": self._pool[: self._count]}),
            "training": asdict(self.federation.settings.finetune_settings()),
            "prior": self.upstream.prior.digest,
            "delta": DELTA,
            "seed": self.seed,
        }

    def _remember(self, identity: object, compute: Callable[[], FloatArray]) -> FloatArray:
        scenario = self.federation.settings.scenario.model_dump()
        key = {"scenario": scenario, "identity": identity, "version": _VERSION}
        found = remembered("federated", key, lambda: compute().tolist())
        return np.array(found, dtype=np.float64)
