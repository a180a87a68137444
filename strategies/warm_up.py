"""The warm start that the settings of a run ask for, before anything else of it."""

from __future__ import annotations

from pathlib import Path

from flwr.serverapp import Grid

from fedcert.devices import resolve_device
from fedcert.runs.events import Events
from fedcert.scenarios import load_scenario
from fedcert.settings import RunSettings
from fedcert.strategies.planning import Planning
from fedcert.strategies.registration import Registration
from fedcert.strategies.trunk_privacy import TrunkPrivacy
from fedcert.strategies.warm_start import WarmStart
from fedcert.strategies.warmed import Warmed

__all__ = ["warm_up"]


def warm_up(
    grid: Grid, settings: RunSettings, *, output: Path, events: Events | None = None
) -> Warmed:
    """Let upstream clients improve the base model, as the section ``warm_start`` says.

    Parameters
    ----------
    grid : Grid
        Flower's way to the nodes.
    settings : RunSettings
        What to do.
    output : Path
        Gets ``warm-start/``: the trunk after the last round, and the new base model.
    events : Events, optional
        The stream of what happens.

    Returns
    -------
    Warmed
        The new base model, which `fedcert.strategies.run.Run` takes.

    Raises
    ------
    SettingsError
        If the scenario or a setting does not fit.
    RunError
        If no client could train, or another run is at work in the same folder.
    """
    events = events or Events()
    scenario = load_scenario(settings.scenario.name, settings.scenario.options)
    place = resolve_device(settings.device)
    base = scenario.load_base(device=place, on_step=events.note)
    registration = Registration.of(settings, scenario)
    registration.wait(grid, events, pooled=0, must_fit=True)
    planning = settings.planning
    choosing = Planning(
        share=planning.clients, most=planning.most, sizes=(), recipes=(), seed=settings.seed
    )
    return WarmStart(
        base=base,
        space=settings.space_of(base),
        settings=settings.warm_start,
        training=settings.trunk_training(),
        folder=output / "warm-start",
        seed=settings.seed,
        planning=choosing if settings.planned else None,
        must_train=registration.needed,
        tuners=settings.tuning_clients(scenario.upstream_clients),
        timeout=settings.server.timeout,
        privacy=TrunkPrivacy.of(settings),
        events=events,
    ).run(grid)
