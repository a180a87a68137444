"""``fedcert status``: how a run is doing, while it goes and afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from fedcert.cli.console import console, say
from fedcert.reports.formats import clean_text, decimal_up
from fedcert.runs.failures import named_clients

if TYPE_CHECKING:
    from fedcert.runs.status import Progress, RunStatus

__all__ = ["status"]

_UNKNOWN = "unknown"
_NAMED = 5  # of those who are waited for


def status(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also write the run's course for TensorBoard into this folder, and go on "
            "until the run ends; needs fedcert[tensorboard].",
        ),
    ] = None,
) -> None:
    """Tell how a run is doing; exits with 1 if it failed or died.

    It reads the event log `events.jsonl`, the pool, and the certificates in the run folder,
    and changes nothing there. A run is told to have died if its process is gone without
    having said how it ended; for a run on another machine, nobody here can see its process.
    """
    from fedcert.runs.status import read_status

    found = read_status(run)
    if tensorboard is not None:
        from fedcert.runs.tensorboard import follow

        follow(run, tensorboard)
        found = read_status(run)
    if as_json:
        typer.echo(json.dumps(found.to_object()))
    else:
        _show(run, found)
    if not found.well:
        raise typer.Exit(1)


def _show(folder: Path, found: RunStatus) -> None:
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, text in _rows(found):
        table.add_row(name, Text(clean_text(text)))
    say(f"{folder}", style="bold")
    console.print(table)
    if found.failures:
        failures = Table(title="Failures", title_justify="left")
        failures.add_column("clients", justify="right")
        failures.add_column("such as", overflow="fold")
        failures.add_column("phase")
        failures.add_column("cause", overflow="fold")
        for row in found.failures:
            texts = (named_clients(row), row["phase"], row["cause"])
            failures.add_row(str(row["clients"]), *(Text(clean_text(text)) for text in texts))
        console.print(failures)


def _rows(found: RunStatus) -> list[tuple[str, str]]:
    again = f", the last of {found.runs} in this folder" if found.runs > 1 else ""
    rows = [("run", f"{found.run} ({found.command}){again}"), ("state", _state(found))]
    if found.cause and not _interrupted(found):
        rows.append(("cause", found.cause))
    rows += [("phase", _phase(found.progress))]
    if found.state == "running":
        rows.append(("phase ends in", _duration(found.progress.seconds_left)))
    if found.waiting:
        rows.append(("waiting for", _named(found.waiting)))
    if found.progress.rounds is not None:
        rows.append(("round", f"{found.progress.round} of {found.progress.rounds}"))
    mean = found.mean_certificate
    certified = "" if mean is None else f" (mean of this run {decimal_up(mean)})"
    failed = sum(row["clients"] for row in found.failures)
    return [
        *rows,
        ("pool", f"{found.pool} adapters"),
        ("bundle", _bundle(found)),
        ("seeds", f"{found.seeds} issued in this run"),
        ("certificates", f"{found.certificates}{certified}"),
        ("failures", f"{failed}" if failed else "none"),
        ("traffic", f"{_mib(found.bytes_up)} up, {_mib(found.bytes_down)} down"),
    ]


def _named(clients: list[str]) -> str:
    more = len(clients) - _NAMED
    shown = ", ".join(clients[:_NAMED])
    return f"{shown} and {more} more" if more > 0 else shown


def _state(found: RunStatus) -> str:
    silent = f"last event {_duration(found.silent_seconds)} ago"
    if found.state == "running":
        return f"running for {_duration(found.seconds)}; {silent}"
    if found.state == "died":
        return f"died: its process is gone and did not say how it ended; {silent}"
    if found.state == "unknown":
        return f"unknown: it runs, or ran, on another machine; {silent}"
    if _interrupted(found):
        return f"interrupted after {_duration(found.seconds)}; the same command goes on"
    return f"{found.state} after {_duration(found.seconds)}"


def _interrupted(found: RunStatus) -> bool:
    # The event log has the name of what ended the run, and Ctrl-C is no failure of it.
    return found.state == "failed" and found.cause == "KeyboardInterrupt"


def _phase(progress: Progress) -> str:
    steps = "" if progress.total is None else f": {progress.done} of {progress.total}"
    if progress.total is None and progress.done:
        steps = f": {progress.done} steps"
    return f"{progress.phase}{steps} (for {_duration(progress.seconds)})"


def _bundle(found: RunStatus) -> str:
    if found.bundle is None:
        return "none yet"
    version, digest = found.bundle["version"], str(found.bundle["digest"])
    return digest if version is None else f"version {version}, {digest}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return _UNKNOWN
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _mib(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"
