"""What the server does in one run, on whatever grid Flower gives it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flwr.serverapp import Grid

from fedcert.adapters.space import AdapterSpace
from fedcert.bundles import Bundle
from fedcert.errors import RunError
from fedcert.fitting import FittedPrior
from fedcert.models.base import BaseModel
from fedcert.runs.events import Events
from fedcert.scenarios import Scenario
from fedcert.settings import RunSettings
from fedcert.strategies.pooled_prior import PooledPrior
from fedcert.strategies.prior_strategy import PriorStrategy
from fedcert.strategies.run import Run
from fedcert.strategies.warm_up import warm_up
from fedcert.strategies.warmed import Warmed

__all__ = ["ServedRun", "serve"]


@dataclass(frozen=True)
class ServedRun:
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
    strategy : PriorStrategy
        Certificates, failures and traffic.
    bundle : Bundle
        The bundle that served.
    warmed : Warmed or None
        What came of the warm start, if there was one.
    """

    scenario: Scenario
    base: BaseModel
    space: AdapterSpace
    fitted: FittedPrior | None
    strategy: PriorStrategy
    bundle: Bundle
    warmed: Warmed | None = None


def serve(
    grid: Grid,
    settings: RunSettings,
    *,
    output: Path,
    events: Events | None = None,
    strategy: type[PooledPrior] = PooledPrior,
) -> ServedRun:
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
    events : Events, optional
        The stream of what happens.
    strategy : type of PooledPrior
        The class of the strategy, for one of your own.

    Returns
    -------
    ServedRun
        The strategy with its results, and what it worked on.

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
    warmed = None
    if settings.warm_start.rounds:
        warmed = warm_up(grid, settings, output=output, events=events)
    run = Run.of(settings, output=output, events=events, warmed=warmed)
    if run.pools or strategy is not PooledPrior:
        serving: PriorStrategy = strategy(**run.pooling(strategy.__name__))
    else:
        serving = run.unpooled()
    serving.start(grid)
    if serving.bundle is None:
        raise RunError(f"the strategy {strategy.__name__} ended without a bundle")
    return ServedRun(
        run.scenario, run.base, run.space, run.fitted, serving, serving.bundle, warmed
    )
