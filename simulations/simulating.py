"""One simulated federation from start to report: ``fedcert simulate``."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedcert.atomic import write_atomically
from fedcert.clients.client_app import make_client_app
from fedcert.devices import resolve_device
from fedcert.errors import RunError, SettingsError, did_you_mean
from fedcert.methods import METHODS
from fedcert.pool.locking import only_one
from fedcert.runs.events import Events, Listener, logged_run
from fedcert.runs.machine import PeakMemory
from fedcert.runs.progress import Stopwatch
from fedcert.runs.status import holds_work
from fedcert.scenarios import Scenario, load_scenario
from fedcert.settings import RunSettings
from fedcert.settings.sections import SMALLEST_FIT
from fedcert.simulations.runners import RUNNERS
from fedcert.simulations.runners.gpu_shares import gpu_share, weights_mib
from fedcert.simulations.tuning import tuned
from fedcert.strategies.publishing import reference_of
from fedcert.strategies.reporting import results_of, write_results
from fedcert.strategies.serving import ServedRun, serve
from fedcert.strategies.warm_up import warm_up
from fedcert.strategies.warmed import Warmed

__all__ = ["Simulation", "simulate", "simulate_warm_start"]

_MOST_TOLD = 3
_Outcome = TypeVar("_Outcome")


@dataclass(frozen=True)
class Simulation:
    """What a simulation leaves behind.

    Attributes
    ----------
    output : Path
        The run folder.
    results : dict
        All that the report shows; also ``results.json``.
    summary : dict
        The few figures that are compared over time; also ``summary.json``.
    """

    output: Path
    results: dict[str, Any]
    summary: dict[str, Any]


def simulate(
    settings: RunSettings,
    *,
    output: Path,
    runner: str = "ray",
    listeners: Iterable[Listener] = (),
) -> Simulation:
    """Run a federation of virtual clients, measure it, and write the report.

    Parameters
    ----------
    settings : RunSettings
        What to run.
    output : Path
        The run folder. A pool that is there goes on if the settings are the same.
    runner : str (default: "ray")
        ``"ray"`` or ``"inprocess"``; both give the same results.
    listeners : iterable of callable
        Told every event of the run when it happens.

    Returns
    -------
    Simulation
        The run's results, which stand in the run folder as well.

    Raises
    ------
    SettingsError
        If there is no such scenario or runner, or fewer clients than the prior needs; nothing
        is written then.
    RunError
        If the run could not do its job.
    """
    scenario, settings, output = _opened(settings, output, runner)
    watch = Stopwatch()
    told: list[Listener] = [watch, *listeners]
    with (
        # Also while figures are written, which the pool's own lock does not cover.
        only_one(output / "pool" / "run-lock", what=f"the run folder {output}"),
        logged_run(output, command="fedcert simulate", listeners=told) as events,
    ):
        with PeakMemory() as memory:
            outcome = _federate(scenario, settings, output, runner, events)
            if not outcome.strategy.certificates:
                raise RunError(
                    "the scenario has no new client to certify or measure; the bundle is in "
                    f"{output / 'bundle'}"
                )
            results = results_of(
                outcome,
                settings,
                output=output,
                events=events,
                command=shlex.join(["fedcert", *sys.argv[1:]]),
            )
        summary = write_results(results, output, watch=watch, memory=memory, events=events)
        return Simulation(output, results, summary)


def simulate_warm_start(
    settings: RunSettings,
    *,
    output: Path,
    runner: str = "ray",
    listeners: Iterable[Listener] = (),
) -> Warmed:
    """Improve the base model in a federation of virtual clients, and stop there.

    Parameters
    ----------
    settings, output, runner, listeners
        As in `simulate`.

    Returns
    -------
    Warmed
        The new base model, in the folder ``warm-start`` of the run folder.

    Raises
    ------
    SettingsError
        If there is no such scenario or runner.
    RunError
        If no client could train.
    """
    scenario, settings, output = _opened(settings, output, runner)
    with logged_run(output, command="fedcert warm-start", listeners=listeners) as events:
        events.phase("prepare the base model")
        scenario.base_model(on_step=events.note)
        settings, gpus = _placed(settings, scenario, runner)
        return _with_server(
            lambda grid: warm_up(grid, settings, output=output, events=events),
            scenario, settings, output, runner, gpus,
        )  # fmt: skip


def _opened(
    settings: RunSettings, output: Path, runner: str
) -> tuple[Scenario, RunSettings, Path]:
    """Check what was asked for, and claim the folder; return all with absolute paths."""
    output = output.resolve()
    if runner not in RUNNERS:
        raise SettingsError(
            f"there is no runner {runner!r}; choose {' or '.join(RUNNERS)}"
            f"{did_you_mean(runner, RUNNERS)}"
        )
    # Once, here: workers have other working directories.
    settings = settings.with_absolute_paths()
    scenario = load_scenario(settings.scenario.name, settings.scenario.options)
    _check_clients(scenario, settings)
    reference_of(settings, scenario)  # what certificates cannot promise is refused here
    resolve_device(settings.device)  # what is not here is refused before anything is written
    _claim_folder(output, settings)
    return scenario, settings, output


def _claim_folder(output: Path, settings: RunSettings) -> None:
    """Write the settings into the run folder, or refuse one with work under others.

    A run that failed before any client did its part holds no work: whoever corrects the
    command can give the same folder again.
    """
    path = output / "settings.toml"
    if path.is_file() and not _are_in(path, settings):
        if holds_work(output):
            raise RunError(
                f"{output} holds a run with other settings (see {path}"
                f"{_differences(path, settings)}); choose another folder, or remove this one "
                "to start anew"
            )
        # An empty pool is of an adapter space, and an empty log of a seed.
        for name in ("pool", "protocol"):
            shutil.rmtree(output / name, ignore_errors=True)
    write_atomically(path, settings.to_toml().encode())


def _are_in(path: Path, settings: RunSettings) -> bool:
    """Whether a file has these settings; what an earlier version did not write is as it was."""
    try:
        before = RunSettings.read(path)
        # A run may go on elsewhere: where it computes changes nothing that it means.
        client = before.client.model_copy(update={"gpus": settings.client.gpus})
        own = {"device": settings.device, "client": client}
        return before.model_copy(update=own) == settings
    except SettingsError:
        return False


def _differences(path: Path, settings: RunSettings) -> str:
    """Say which settings differ from those in a file, the first few of them."""
    try:
        before = _flat(RunSettings.read(path).model_dump())
    except SettingsError:
        return ""
    now = _flat(settings.model_dump())
    differ = [
        key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)
    ]
    said = [
        f"{key} is {before.get(key)!r} there and {now.get(key)!r} here"
        for key in differ[:_MOST_TOLD]
    ]
    if len(differ) > len(said):
        said.append(f"{len(differ) - len(said)} more")
    return f": {', '.join(said)}" if said else ""


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return nested settings by dotted key."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{above}{key}"
        found |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found


def _check_clients(scenario: Scenario, settings: RunSettings) -> None:
    """Refuse a federation that is too small for its prior, before anybody trains."""
    training = len(scenario.upstream_clients)
    needed = settings.fewest_adapters(training)
    if training >= needed:
        return
    if METHODS[settings.method].asks == "rounds":
        raise SettingsError(
            f"setting 'method': {training} upstream clients of the scenario {scenario.name} "
            f"would train, and {settings.method} averages over at least {needed}; let more "
            "clients train"
        )
    advice = "let more clients train"
    if needed == settings.server.min_pool and training >= SMALLEST_FIT:
        advice = f"lower it, or {advice}"
    elif not settings.server.min_pool:
        advice += (
            ", or do without them: fedcert certify bounds the errors of a model of your own"
        )
    raise SettingsError(
        f"setting 'server.min_pool': {training} upstream clients of the scenario "
        f"{scenario.name} would train, and a prior takes {needed} adapters; {advice}"
        f"{''.join(f'; {note}' for note in scenario.notes)}"
    )


def _check_support(scenario: Scenario, settings: RunSettings, events: Events) -> None:
    """Read each new client's support set; raise if none has one, before anybody trains."""
    failed: dict[str, Exception] = {}
    for client in scenario.new_clients:
        try:
            scenario.support_examples(client, settings.certificate.support_size)
        except Exception as error:  # a scenario is anybody's code
            failed[client] = error
    if not failed:
        return
    if len(failed) == len(scenario.new_clients):
        raise next(iter(failed.values()))
    for client, cause in failed.items():
        events.note(f"NOTE: the new client {client} will get no certificate: {cause}")


def _check_unlabeled(scenario: Scenario, settings: RunSettings, events: Events) -> None:
    """Say so where clients have inputs without labels, and the method has no use for them."""
    if settings.method_of().reads_inputs:
        return
    having = [name for name in scenario.new_clients if scenario.unlabeled_inputs(name)]
    if having:
        events.note(
            f"NOTE: {len(having)} new clients have inputs without labels, which the method "
            f"{settings.method} does not read with these settings: they have no part in the run"
        )


def _federate(
    scenario: Scenario,
    settings: RunSettings,
    output: Path,
    runner: str,
    events: Events,
) -> ServedRun:
    events.phase("prepare the base model")
    scenario.base_model(on_step=events.note)
    _check_support(scenario, settings, events)
    _check_unlabeled(scenario, settings, events)
    if settings.training.tuned:
        events.phase("choose how clients train")
        settings = tuned(settings, scenario)
        chosen = settings.training
        events.note(
            f"learning rate {chosen.learning_rate:g} and weight decay {chosen.weight_decay:g}, "
            "by the loss of a few upstream clients on held-out examples of their own"
        )
    events.phase(f"start the {runner} runner")
    settings, gpus = _placed(settings, scenario, runner)
    return _with_server(
        lambda grid: serve(grid, settings, output=output, events=events),
        scenario, settings, output, runner, gpus,
    )  # fmt: skip


def _with_server(
    work: Callable[[Grid], _Outcome],
    scenario: Scenario,
    settings: RunSettings,
    output: Path,
    runner: str,
    gpus: float,
) -> _Outcome:
    """Do the server's work on a grid of virtual clients, and return what comes of it."""
    outcomes: list[_Outcome] = []
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        outcomes.append(work(grid))

    RUNNERS[runner](
        server_app,
        make_client_app(settings, output),
        nodes=len(scenario.upstream_clients) + len(scenario.new_clients),
        gpus=gpus,
    )
    if not outcomes:
        raise RunError("the server stopped before its work was done")
    return outcomes[0]


def _placed(
    settings: RunSettings, scenario: Scenario, runner: str
) -> tuple[RunSettings, float]:
    """Return the settings with the device that there is, and a process's share of a GPU."""
    device, gpus = resolve_device(settings.device), 0.0
    if runner == "ray":
        weights = weights_mib(Path(scenario.base_model()))
        gpus = gpu_share(settings.device, device, settings.client.gpus, weights=weights)
    # Ray numbers the GPUs of each process from 0 on.
    name = device.type if runner == "ray" else str(device)
    return settings.model_copy(update={"device": name}), gpus
