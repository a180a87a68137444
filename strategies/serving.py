"""What the server does in one run, on whatever grid Flower gives it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid

from fedcert.adapters.constants import constant_adapters
from fedcert.adapters.space import AdapterSpace
from fedcert.bundles import Bundle
from fedcert.errors import PoolError, RunError, SettingsError
from fedcert.fitting import FittedPrior, fit_prior
from fedcert.messages import COMMIT, NEW, TRAIN
from fedcert.models.base import BaseModel, load_base_model
from fedcert.planning import menu
from fedcert.pool import Pool
from fedcert.pool.store import check_labels
from fedcert.priors.base import FloatArray
from fedcert.protocol.authority import SeedAuthority
from fedcert.runs.events import EventSink, NoEvents
from fedcert.runs.failures import causes_of
from fedcert.runs.progress import Observer, Stopwatch
from fedcert.scenarios import Scenario, load_scenario
from fedcert.settings import RunSettings
from fedcert.strategies.federated_prior import FederatedPrior
from fedcert.strategies.observed_grid import ObservedGrid
from fedcert.strategies.planning import Planning
from fedcert.strategies.pooled_prior import PooledPrior
from fedcert.strategies.publishing import Publisher, file_certificate

__all__ = ["Outcome", "serve"]

_REGISTRATION_PAUSE = 0.2
_WAITING = "wait for nodes"
# Seconds; saying who one is takes a node no more than starting a process.
_LONGEST_HELLO = 300.0


@dataclass(frozen=True)
class Outcome:
    """What a run leaves behind.

    Attributes
    ----------
    scenario : Scenario
        Data, tasks and base model.
    base : BaseModel
        The loaded base model.
    space : AdapterSpace
        The coordinates of adapters.
    fitted : FittedPrior or None
        The prior and the evidence about it; None for a federated prior, of which the server
        has no evidence, and if the bundle of an earlier run served.
    strategy : PooledPrior
        Bundle, certificates, failures and traffic.
    """

    scenario: Scenario
    base: BaseModel
    space: AdapterSpace
    fitted: FittedPrior | None
    strategy: PooledPrior


def serve(
    grid: Grid,
    settings: RunSettings,
    *,
    output: Path,
    observer: Observer | None = None,
    events: EventSink | None = None,
    strategy: type[PooledPrior] = PooledPrior,
) -> Outcome:
    """Pool adapters, fit the prior, and collect certificates.

    Parameters
    ----------
    grid : Grid
        Flower's way to the nodes.
    settings : RunSettings
        What to do.
    output : Path
        Gets ``pool/``, the versions of the bundle in ``bundles/`` with a link ``bundle`` to
        the latest, ``certificates/``, ``witnesses/``, and in a simulation the server's log in
        ``protocol/``; what is there goes on.
    observer : Observer, optional
        Told about progress.
    events : EventSink, optional
        Told about what happens to clients, uploads, bundles and certificates.
    strategy : type of PooledPrior
        The class of the strategy, for one of your own.

    Raises
    ------
    SettingsError
        If the scenario or a setting does not fit.
    RunError
        If too few adapters came for a prior, no new client was certified, or another run is
        at work in the same folder.
    BundleError
        If the latest bundle is damaged.
    PoolError
        If what is there was made for other labels.
    """
    observer, events = observer or Stopwatch(), events or NoEvents()
    scenario = load_scenario(settings.scenario.name, settings.scenario.options)
    for note in scenario.notes:
        observer.say(f"NOTE: {note}")
    base = load_base_model(
        str(scenario.base_model(on_step=observer.say)), num_labels=len(scenario.labels)
    )
    scenario.inputs.bound_to(base)  # what does not fit costs no client any work
    space = settings.space_of(base)
    pool, space = _pool_of(output / "pool", base, space)
    with pool.reserved():
        authority = _authority(settings, output)
        publisher = Publisher(
            output,
            settings,
            scenario=scenario,
            base=base,
            space=space,
            # A simulated server witnesses nothing; another one may serve the same bundle.
            server=authority.public_key if settings.server.state else None,
        )
        if (latest := publisher.latest()) is not None:  # a pool of before labels were kept
            check_labels(scenario.labels, latest.bundle.labels, whose=f"{output / 'bundle'}")
        pool.reserve_for(scenario.labels)
        server = _Server(
            settings, output, pool, space, publisher, observer, events, strategy,
            authority=authority, labels=len(scenario.labels),
        )  # fmt: skip
        expected = len(scenario.upstream_clients) + len(scenario.new_clients)
        there = _wait_for_nodes(grid, expected, settings, observer, events)
        if latest is None:
            _check_enough(there, len(pool), settings)
        server.run(grid)
    return Outcome(scenario, base, space, server.fitted, server.strategy)


def _pool_of(folder: Path, base: BaseModel, space: AdapterSpace) -> tuple[Pool, AdapterSpace]:
    """Open the run's pool; one from before knows the base model by its weights alone."""
    try:
        return Pool(folder, space), space
    except PoolError as refused:
        older = replace(space, base_digest=base.weights)
        try:
            return Pool(folder, older), older
        except PoolError:
            raise refused from None


class _Server:
    """One run: the strategy, and what it is told to do when."""

    def __init__(
        self,
        settings: RunSettings,
        output: Path,
        pool: Pool,
        space: AdapterSpace,
        publisher: Publisher,
        observer: Observer,
        events: EventSink,
        strategy: type[PooledPrior],
        *,
        authority: SeedAuthority,
        labels: int,
    ) -> None:
        self._settings, self._output, self._pool = settings, output, pool
        self._publisher, self._observer, self._events = publisher, observer, events
        self.fitted: FittedPrior | None = None
        self._new = self._training = 0
        self._federated = settings.prior.training == "federated"
        if self._federated and strategy is not PooledPrior:
            raise SettingsError(
                f"setting 'prior.training': the strategy {strategy.__name__} pools adapters; "
                'choose "pooled"'
            )
        common: dict[str, Any] = {
            "pool": pool,
            "space": space,
            "authority": authority,
            "training": settings.finetune_settings(),
            "seed": settings.seed,
            "min_pool": settings.server.min_pool,
            "timeout": min(_LONGEST_HELLO, settings.server.timeout),
            "latest": publisher.latest(),
            "on_bundle": self._keep,
            "events": events,
        }
        self.strategy = (
            FederatedPrior(publish=publisher.from_sums, **common)
            if self._federated
            else strategy(
                fit=self._fit,
                clients_per_round=settings.server.clients_per_round,
                planning=_planning(settings, constant_adapters(space, labels)),
                **common,
            )
        )

    def run(self, grid: Grid) -> None:
        """Run all rounds.

        Raises
        ------
        RunError
            If the run could not do its job.
        """
        strategy = self.strategy
        self._events.record("phase", name="call the roll")
        roster = strategy.roster(grid)
        self._new, self._training = len(roster.clients(NEW)), len(strategy.pending(grid))
        if not strategy.serves_latest(grid):
            self._announce_training()
        rounds = strategy.rounds_needed(grid)
        self._events.record("round", number=0, total=rounds)
        strategy.start(
            cast(Grid, ObservedGrid(grid, self._take)),
            ArrayRecord(),
            num_rounds=rounds,
            timeout=self._settings.server.timeout,
        )
        if strategy.bundle is None or (self._new and not strategy.certificates):
            raise RunError(_why_nothing(strategy, self._settings))

    def _announce_training(self) -> None:
        if self._federated:
            # How many rounds it takes shows only in the end.
            self._observer.start("fit the prior with the clients")
        elif self._training:
            self._observer.start("train upstream adapters", self._training)
        self._training = 0

    def _take(self, reply: Message) -> None:
        """Pass a reply on to the strategy; what came of it is on disk when this returns."""
        strategy, kind = self.strategy, reply.metadata.message_type
        if kind == TRAIN and self._training:
            self._announce_training()  # not before new clients were served
        before, failed = set(strategy.certificates), len(strategy.failures)
        strategy.receive(reply)
        for client in strategy.certificates.keys() - before:
            file_certificate(
                strategy.certificates[client], strategy.witnesses[client], self._output
            )
        # A client that has committed is not done yet.
        if kind != COMMIT or len(strategy.failures) > failed:
            self._observer.advance()

    def _fit(self, pool: FloatArray) -> Bundle:
        settings, observer = self._settings, self._observer
        observer.start("fit the prior")
        self.fitted = fit_prior(pool, settings=settings.prior, seed=settings.seed)
        for warning in self.fitted.warnings:
            observer.say(warning)
        if self.strategy.planners:
            observer.start("plan the recipes", len(self.strategy.planners))
        return self._publisher.from_pool(self.fitted, self._pool)

    def _keep(self, bundle: Bundle) -> None:
        """Put a bundle on the disk before the strategy publishes it."""
        if self._settings.planned and bundle.plan is None:
            self._observer.say(
                "WARNING: no client planned (see planning.clients), so the recipe table of the "
                "settings stays"
            )
        self._publisher.keep(bundle, clients=self.strategy.fitted_clients())
        self._observer.start("certify new clients", self._new)


def _planning(settings: RunSettings, constants: FloatArray) -> Planning | None:
    if not settings.planned:
        return None
    certificate = settings.certificate
    return Planning(
        share=settings.planning.clients,
        sizes=settings.planning_sizes(),
        recipes=menu(
            candidates=certificate.candidates,
            delta=certificate.delta,
            constants=len(constants),
            randomized=certificate.randomized,
        ),
        seed=settings.seed,
    )


def _authority(settings: RunSettings, output: Path) -> SeedAuthority:
    """Open the server's log: that of all runs, or one of this simulation alone."""
    state = settings.server.state
    if not state:
        return SeedAuthority.simulated(output / "protocol", settings.seed)
    if not Path(state).is_absolute():
        raise SettingsError(f"server.state = {state!r} is not an absolute path")
    return SeedAuthority(Path(state))


@dataclass(frozen=True)
class _There:
    """How many nodes are there, and how many were waited for."""

    nodes: int
    wanted: int


def _wait_for_nodes(
    grid: Grid, expected: int, settings: RunSettings, observer: Observer, events: EventSink
) -> _There:
    """Wait until the nodes have registered; Flower starts the ServerApp before them."""
    wanted = settings.server.nodes or expected
    if wanted == 0:
        raise SettingsError(
            "the scenario knows no clients: set server.nodes to the number of nodes to wait for"
        )
    patience = settings.server.registration_timeout
    deadline, before = time.monotonic() + patience, -1
    while (count := len(list(grid.get_node_ids()))) < wanted and time.monotonic() <= deadline:
        if before < 0:
            observer.start(_WAITING, wanted)
        if count != before:
            # At once: nothing more may happen for a long time.
            events.record("progress", name=_WAITING, done=count, total=wanted)
            before = count
        time.sleep(_REGISTRATION_PAUSE)
    if count == 0:
        raise RunError(f"no node registered within {patience:g} s")
    if count < wanted:
        observer.say(
            f"WARNING: {count} of {wanted} nodes are there after {patience:g} s; the run goes "
            "on without the others"
        )
    return _There(count, wanted)


def _check_enough(there: _There, pooled: int, settings: RunSettings) -> None:
    """Raise `RunError` if too few nodes are there to fill the pool, whatever they do."""
    needed = settings.server.min_pool
    if there.nodes == there.wanted or there.nodes + pooled >= needed:
        return
    raise RunError(
        f"{there.nodes} of {there.wanted} clients are there, and {pooled} adapters in the "
        f"pool: too few for the {needed} that a prior needs. Set num-supernodes in a "
        f"simulation (flwr run ... --federation-config 'num-supernodes={there.wanted}'); in a "
        "deployment start more nodes, or wait longer for them (server.registration-timeout)"
    )


def _why_nothing(strategy: PooledPrior, settings: RunSettings) -> str:
    listed = causes_of(strategy.failures)
    what = (
        "no new client was certified"
        if strategy.bundle is not None
        else f"fewer than {settings.server.min_pool} adapters came in, too few for a prior"
    )
    return f"{what}{': ' + listed if listed else ''}"
