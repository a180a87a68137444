"""What the server does in one run, on whatever grid Flower gives it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid

from fedcert.adapters.space import AdapterSpace
from fedcert.bundle import Bundle
from fedcert.certificates import Certificate
from fedcert.errors import RunError, SettingsError
from fedcert.fitting import FittedPrior, bundle_of, fit_prior, make_bundle
from fedcert.messages import COMMIT, NEW, UPSTREAM
from fedcert.models.base import BaseModel, load_base_model
from fedcert.planning import menu
from fedcert.pool import Pool
from fedcert.priors import Prior
from fedcert.priors.base import FloatArray
from fedcert.progress import Observer, Stopwatch
from fedcert.protocol.authority import SeedAuthority
from fedcert.scenarios import Scenario, load_scenario
from fedcert.settings import RunSettings
from fedcert.strategies.federated_prior import FederatedPrior
from fedcert.strategies.observed_grid import ObservedGrid
from fedcert.strategies.planning import Planning
from fedcert.strategies.pooled_prior import Failure, PooledPrior

__all__ = ["Outcome", "causes_of", "serve"]

_REGISTRATION_PAUSE = 0.2
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
        has no evidence.
    strategy : PooledPrior
        Bundle, certificates, failures and traffic.
    """

    scenario: Scenario
    base: BaseModel
    space: AdapterSpace
    fitted: FittedPrior | None
    strategy: PooledPrior


def serve(
    grid: Grid, settings: RunSettings, *, output: Path, observer: Observer | None = None
) -> Outcome:
    """Pool adapters, fit the prior, and collect certificates.

    Parameters
    ----------
    grid : Grid
        Flower's way to the nodes.
    settings : RunSettings
        What to do.
    output : Path
        Gets ``pool/``, ``bundle/``, ``certificates/``, ``witnesses/``, and in a simulation
        the server's log in ``protocol/``; a pool and a log that are there go on.
    observer : Observer, optional
        Told about progress.

    Raises
    ------
    RunError
        If too few adapters came for a prior, or no new client was certified.
    """
    observer = observer or Stopwatch()
    scenario = load_scenario(settings.scenario.name, settings.scenario.options)
    base = load_base_model(
        str(scenario.base_model(on_step=observer.say)), num_labels=len(scenario.labels)
    )
    space = settings.space_of(base)
    fits: list[FittedPrior] = []

    def fit(pool: FloatArray) -> Bundle:
        observer.start("fit the prior")
        fits.append(fit_prior(pool, settings=settings.prior, seed=settings.seed))
        for warning in fits[-1].warnings:
            observer.say(warning)
        bundle = make_bundle(
            fits[-1],
            base=base,
            space=space,
            inputs=scenario.inputs,
            labels=scenario.labels,
            settings=settings,
            uploads=pooled.residuals(),
        )
        if strategy.planners:
            observer.start("plan the recipes", len(strategy.planners))
        return bundle

    def publish(prior: Prior, notes: dict[str, Any]) -> Bundle:
        return bundle_of(
            prior,
            notes,
            base=base,
            space=space,
            inputs=scenario.inputs,
            labels=scenario.labels,
            settings=settings,
        )

    def announced(bundle: Bundle) -> None:
        if settings.planned and bundle.plan is None:
            observer.say(
                "WARNING: no client planned (see planning.clients), so the recipe table of the "
                "settings stays"
            )
        bundle.save(output / "bundle")
        observer.start("certify new clients", expected_new)

    pooled = Pool(output / "pool", space)
    federated = settings.prior.training == "federated"
    common: dict[str, Any] = {
        "pool": pooled,
        "space": space,
        "authority": _authority(settings, output),
        "training": settings.finetune_settings(),
        "seed": settings.seed,
        "min_pool": settings.server.min_pool,
        "timeout": min(_LONGEST_HELLO, settings.server.timeout),
        "on_bundle": announced,
    }
    strategy = (
        FederatedPrior(publish=publish, **common)
        if federated
        else PooledPrior(
            fit=fit,
            clients_per_round=settings.server.clients_per_round,
            planning=_planning(settings),
            **common,
        )
    )
    _wait_for_nodes(grid, len(scenario.upstream_clients) + len(scenario.new_clients), settings)
    roster = strategy.roster(grid)
    expected_new = len(roster.nodes) - len(roster.clients(UPSTREAM))

    def on_reply(reply: Message) -> None:
        before, failed = set(strategy.certificates), len(strategy.failures)
        strategy.receive(reply)
        # On disk at once: a run that dies later has lost none.
        for client in strategy.certificates.keys() - before:
            strategy.witnesses[client].write(output / "witnesses" / f"{client}.json")
            _write_certificate(strategy.certificates[client], output)
        # A client that has committed is not done yet.
        if reply.metadata.message_type != COMMIT or len(strategy.failures) > failed:
            observer.advance()

    if federated:
        # How many rounds it takes shows only in the end.
        observer.start("fit the prior with the clients")
    else:
        training = len(roster.clients(UPSTREAM)) - len(strategy.planners)
        observer.start("train upstream adapters", training)
    strategy.start(
        ObservedGrid(grid, on_reply),
        ArrayRecord(),
        num_rounds=strategy.rounds_needed(grid),
        timeout=settings.server.timeout,
    )
    wanted = bool(roster.clients(NEW))
    if strategy.bundle is None or (wanted and not strategy.certificates):
        raise RunError(_why_nothing(strategy, settings))
    return Outcome(scenario, base, space, fits[-1] if fits else None, strategy)


def _planning(settings: RunSettings) -> Planning | None:
    if not settings.planned:
        return None
    certificate = settings.certificate
    return Planning(
        share=settings.planning.clients,
        sizes=settings.planning_sizes(),
        recipes=menu(candidates=certificate.candidates, delta=certificate.delta),
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


def _wait_for_nodes(grid: Grid, expected: int, settings: RunSettings) -> None:
    """Wait until the nodes have registered; Flower starts the ServerApp before them."""
    wanted = settings.server.nodes or expected
    deadline = time.monotonic() + settings.server.registration_timeout
    while (count := len(list(grid.get_node_ids()))) < wanted:
        if time.monotonic() > deadline:
            if count == 0:
                raise RunError(
                    f"no node registered within {settings.server.registration_timeout:g} s"
                )
            return
        time.sleep(_REGISTRATION_PAUSE)


def _write_certificate(certificate: Certificate, output: Path) -> None:
    certificate.write(output / "certificates" / f"{certificate.client}.json")


def causes_of(failures: Iterable[Failure]) -> str:
    """List how many clients failed in which phase and why, each cause once."""
    causes = Counter((failure.phase, failure.cause) for failure in failures)
    return "; ".join(f"{n} x {phase}: {cause}" for (phase, cause), n in causes.items())


def _why_nothing(strategy: PooledPrior, settings: RunSettings) -> str:
    listed = causes_of(strategy.failures)
    what = (
        "no new client was certified"
        if strategy.bundle is not None
        else f"fewer than {settings.server.min_pool} adapters came in, too few for a prior"
    )
    return f"{what}{': ' + listed if listed else ''}"
