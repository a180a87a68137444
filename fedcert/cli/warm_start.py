"""``fedcert warm-start``: improve a base model in a simulated federation, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedcert.cli.console import console, say
from fedcert.cli.simulate import quiet
from fedcert.errors import RunError

__all__ = ["warm_start"]


def warm_start(
    scenario: Annotated[
        str | None,
        typer.Argument(help="A built-in scenario such as `digits`, or `module:Class`."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Run folder; an unfinished run goes on.")
    ] = Path("runs/warm-start"),
    settings: Annotated[
        Path | None, typer.Option("--settings", "-s", help="A TOML file with settings.")
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", help="One setting, `section.key=value`; may be repeated."),
    ] = None,
    runner: Annotated[
        str,
        typer.Option(help="`ray`: all cores; `inprocess`: this process, opens no port."),
    ] = "ray",
) -> None:
    """Let virtual clients improve the base model in federated rounds.

    Ends with the folder of the new base model, which an option `base` of the scenario, a node's
    `base-model`, and `--base-model` take. Without `warm_start.rounds` there are ten rounds.
    To harvest adapters with it at once, set `warm_start.rounds` for `fedcert simulate`: then
    the examples that trained the base model train no adapter.
    """
    from fedcert.runs.failures import failed_line, failure_rows
    from fedcert.runs.progress import ProgressBars
    from fedcert.settings import RunSettings

    try:
        from fedcert.simulations.simulating import simulate_warm_start
    except ModuleNotFoundError as error:
        raise RunError(
            f"simulations need the package {error.name!r}: pip install 'fedcert[simulation]'"
        ) from error
    named = [f'scenario.name="{scenario}"'] if scenario else []
    overrides = ["warm_start.rounds=10", *named, *(override or [])]
    if settings is not None and RunSettings.read(settings).warm_start.rounds:
        overrides = overrides[1:]
    resolved = RunSettings.read(settings, overrides)
    quiet()
    bars = ProgressBars(console)
    with bars.shown():
        warmed = simulate_warm_start(resolved, output=output, runner=runner, listeners=[bars])
    first, last = warmed.rounds[0], warmed.rounds[-1]
    say(
        f"{len(warmed.rounds)} rounds, {len(warmed.clients)} clients: the loss after personal "
        f"steps went from {first['loss']:.3f} to {last['loss']:.3f} nats"
    )
    say(f"base model:   {warmed.folder}")
    say(f"digest:       {warmed.digest}  (before: {warmed.before})")
    if warmed.failures:
        raise RunError(failed_line(failure_rows(warmed.failures)))
