"""What the server does in one run, on whatever grid Flower gives it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid

from fedcert.adapters.space import AdapterSpace
from fedcert.bundle import Bundle
from fedcert.certificates import Certificate
from fedcert.errors import RunError
from fedcert.fitting import FittedPrior, fit_prior, make_bundle
from fedcert.messages import NEW, UPSTREAM
from fedcert.models.base import BaseModel, load_base_model
from fedcert.pool import Pool
from fedcert.priors.base import FloatArray
from fedcert.progress import Observer, Stopwatch
from fedcert.scenarios import Scenario, load_scenario
from fedcert.settings import RunSettings
from fedcert.strategies.observed_grid import ObservedGrid
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
    fitted : FittedPrior
        The prior and the evidence about it.
    strategy : PooledPrior
        Bundle, certificates, failures and traffic.
    """

    scenario: Scenario
    base: BaseModel
    space: AdapterSpace
    fitted: FittedPrior
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
        Gets ``pool/``, ``bundle/`` and ``certificates/``; a pool that is there goes on.
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
    space = AdapterSpace.of(
        base,
        rank=settings.adapter.rank,
        last_layers=settings.adapter.last_layers,
        projections=settings.projections(),
    )
    fits: list[FittedPrior] = []

    def fit(pool: FloatArray) -> Bundle:
        observer.start("fit the prior")
        fits.append(fit_prior(pool, settings=settings.prior, seed=settings.seed))
        if not fits[-1].audit.passed:
            observer.say(_memorization_warning(fits[-1]))
        bundle = make_bundle(
            fits[-1],
            base=base,
            space=space,
            inputs=scenario.inputs,
            labels=scenario.labels,
            settings=settings,
        )
        bundle.save(output / "bundle")
        observer.start("certify new clients", expected_new)
        return bundle

    strategy = PooledPrior(
        pool=Pool(output / "pool", space),
        space=space,
        fit=fit,
        training=settings.finetune_settings(),
        seed=settings.seed,
        clients_per_round=settings.server.clients_per_round,
        min_pool=settings.server.min_pool,
        timeout=min(_LONGEST_HELLO, settings.server.timeout),
    )
    _wait_for_nodes(grid, len(scenario.upstream_clients) + len(scenario.new_clients), settings)
    roster = strategy.roster(grid)
    expected_new = len(roster.nodes) - len(roster.clients(UPSTREAM))

    def on_reply(reply: Message) -> None:
        before = set(strategy.certificates)
        strategy.receive(reply)
        # On disk at once: a run that dies later has lost none.
        for client in strategy.certificates.keys() - before:
            _write_certificate(strategy.certificates[client], output)
        observer.advance()

    observer.start("train upstream adapters", len(roster.clients(UPSTREAM)))
    strategy.start(
        ObservedGrid(grid, on_reply),
        ArrayRecord(),
        num_rounds=strategy.rounds_needed(grid),
        timeout=settings.server.timeout,
    )
    wanted = bool(roster.clients(NEW))
    if not fits or (wanted and not strategy.certificates):
        raise RunError(_why_nothing(strategy, settings))
    return Outcome(scenario, base, space, fits[-1], strategy)


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


def _memorization_warning(fitted: FittedPrior) -> str:
    audit = fitted.audit
    return (
        f"WARNING: the {fitted.prior.kind} prior comes {audit.ratio:.2f} times as near to its "
        f"pool as held-out adapters do (limit {audit.threshold:g}): it may replay clients' "
        "adapters"
    )


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
