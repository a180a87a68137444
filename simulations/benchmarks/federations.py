"""Trained pools for benchmarks: upstream adapters, made once and kept in the cache."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors.numpy import load_file, save

from fedcert.adapters.finetune import finetune
from fedcert.adapters.forward import AdaptedModel
from fedcert.adapters.prefix_cache import PrefixCache
from fedcert.adapters.task import Task
from fedcert.arrays import FloatArray
from fedcert.atomic import write_atomically, write_json
from fedcert.cache import cache_folder
from fedcert.canonical import digest_json
from fedcert.errors import FedcertError, SettingsError
from fedcert.models.base import load_base_model
from fedcert.randomness import small_seed
from fedcert.scenarios import Scenario, load_scenario
from fedcert.settings import RunSettings
from fedcert.simulations.benchmarks.provenance import UNKNOWN, Measured, note, present_code
from fedcert.simulations.benchmarks.publishing import say

__all__ = [
    "Federation",
    "NotMeasuredError",
    "attempted",
    "check_measuring",
    "only_remembered",
    "remembered",
]

T = TypeVar("T")

# Raise it when training changes what it returns for the same settings.
_VERSION = 1
_SAVE_EVERY = 32
_CACHE_MIB = 2048

_frozen: ContextVar[bool] = ContextVar("frozen", default=False)


def remembered(kind: str, identity: object, compute: Callable[[], Any]) -> Any:
    """Return what was computed before for the same identity, or compute it.

    Benchmarks take long, and one that died goes on where it stopped.

    Parameters
    ----------
    kind : str
        Folder in the cache.
    identity : object
        A JSON value that the result follows from.
    compute : callable
        Returns a JSON value.

    Returns
    -------
    Any
        The JSON value.
    """
    path = cache_folder() / kind / f"{digest_json(identity)}.json"
    origin = path.with_suffix(".origin.json")
    if path.is_file():
        kept = json.loads(origin.read_text(encoding="utf-8")) if origin.is_file() else {}
        note(Measured(kept.get("code", UNKNOWN), kept.get("seconds", 0.0)))
    else:
        check_measuring(kind)
        started = time.perf_counter()
        value = compute()
        measured = Measured(present_code(), time.perf_counter() - started)
        write_json(origin, measured.to_config())
        write_json(path, value)
    return json.loads(path.read_text(encoding="utf-8"))


def attempted(compute: Callable[[], T], *, missing: dict[str, str], name: str) -> T | None:
    """Return what is measured, and say how that went; None of what cannot be, or is not yet.

    Parameters
    ----------
    compute : callable
        Measures it, or finds it again.
    missing : dict
        Is given the reason by `name` where data or base model are not on this machine.
    name : str
        Of the scenario.

    Returns
    -------
    object or None
        What `compute` returned.
    """
    try:
        value = compute()
    except SettingsError as error:
        missing[name] = str(error)
        say(f"left out: {error}")
        return None
    except NotMeasuredError:
        say("not finished")
        return None
    say(" done")
    return value


def check_measuring(kind: str) -> None:
    """Raise `NotMeasuredError` within `only_remembered`, where nothing may be measured."""
    if _frozen.get():
        raise NotMeasuredError(f"{kind}: not measured yet")


class NotMeasuredError(FedcertError):
    """Something would have to be measured, and may not be."""


@contextmanager
def only_remembered() -> Iterator[None]:
    """Have `remembered` raise `NotMeasuredError` for what is not in the cache."""
    token = _frozen.set(True)
    try:
        yield
    finally:
        _frozen.reset(token)


@dataclass(frozen=True)
class Federation:
    """A scenario with its base model, as benchmarks use it: no Flower in between.

    Clients train as in a run with the same settings, so the pool is the same up to rounding.

    Parameters
    ----------
    settings : RunSettings
        Scenario, adapter, training and seed.
    """

    settings: RunSettings

    @classmethod
    def of(
        cls,
        scenario: str,
        *,
        seed: int,
        adapter: Mapping[str, object] | None = None,
        **options: object,
    ) -> Federation:
        """Build the federation of a scenario's own default settings, but for `adapter`.

        Parameters
        ----------
        scenario : str
            Name of the scenario.
        seed : int
            The run's.
        adapter : Mapping, optional
            Settings of the section ``adapter`` that differ.
        **options
            The scenario's options.

        Returns
        -------
        Federation
            The federation; nothing is trained yet.
        """
        values = {
            "seed": seed,
            "adapter": dict(adapter or {}),
            "scenario": {"name": scenario, "options": {**options, "seed": seed}},
        }
        return cls(RunSettings.from_mapping(values))

    @cached_property
    def scenario(self) -> Scenario:
        """Data and tasks."""
        return load_scenario(self.settings.scenario.name, self.settings.scenario.options)

    @cached_property
    def model(self) -> AdaptedModel:
        """The task's model, in the adapter space of the settings."""
        base = load_base_model(
            str(self.scenario.base_model()), num_labels=len(self.scenario.labels)
        )
        # Federated averaging comes back to every client's texts: what does not fit is lost.
        cache = PrefixCache(budget_mib=_CACHE_MIB)
        task = Task(base, self.settings.space_of(base), self.scenario.inputs)
        return task.model(prefix_cache=cache)

    def pool(
        self,
        *,
        first: int | None = None,
        on_step: Callable[[int], None] = lambda _count: None,
    ) -> FloatArray:
        """Return the adapters of upstream clients, ``(N, d)``, in their order.

        What has been trained before comes from the cache; a run that died goes on.

        Parameters
        ----------
        first : int, optional
            Only those of the first so many clients.
        on_step : callable
            Called with the number of adapters that are new since the last call.
        """
        path = self._pool_path
        done = load_file(path)["pool"] if path.is_file() else self._empty
        clients = self.scenario.upstream_clients[:first]
        rows = list(done)
        on_step(min(len(rows), len(clients)))
        if _frozen.get() and len(rows) < len(clients):
            raise NotMeasuredError(f"{path.name}: the pool is not trained yet")
        for index in range(len(rows), len(clients)):
            rows.append(self.train(clients[index]))
            on_step(1)
            if (index + 1) % _SAVE_EVERY == 0 or index + 1 == len(clients):
                write_atomically(path, save({"pool": np.stack(rows)}))
        return np.stack(rows[: len(clients)]).astype(np.float64)

    def train(self, client: str) -> np.ndarray:
        """Return the adapter that an upstream client uploads, float32 of shape ``(d,)``."""
        return finetune(
            self.model,
            self.scenario.training_examples(client),
            seed=small_seed("finetune", self.settings.seed, client),
            settings=self.settings.finetune_settings(),
        ).vector

    @property
    def _empty(self) -> np.ndarray:
        return np.empty((0, self.model.space.dimension), dtype=np.float32)

    @property
    def _pool_path(self) -> Path:
        identity = {
            "version": _VERSION,
            "scenario": self.settings.scenario.model_dump(),
            "space": self.model.space.digest,
            "training": asdict(self.settings.finetune_settings()),
            "seed": self.settings.seed,
        }
        return cache_folder() / "pools" / f"{digest_json(identity)}.safetensors"
