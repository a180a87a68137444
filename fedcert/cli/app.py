"""The command ``fedcert``: exit code 0 for success, 1 for "no", 2 for a mistake in the call.

Heavy libraries are imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from typing import Annotated

import typer

from fedcert import __version__
from fedcert.cli.bundle import bundle
from fedcert.cli.certify import certify
from fedcert.cli.commit import commit
from fedcert.cli.console import say
from fedcert.cli.deploy import deploy
from fedcert.cli.endings import in_one_line, show_warning
from fedcert.cli.groups import groups
from fedcert.cli.keys import keys
from fedcert.cli.methods import methods
from fedcert.cli.monitor import monitor
from fedcert.cli.new import new
from fedcert.cli.personalize import personalize
from fedcert.cli.plan import plan
from fedcert.cli.points import points
from fedcert.cli.predict import predict
from fedcert.cli.prior import prior
from fedcert.cli.report import report
from fedcert.cli.server import server
from fedcert.cli.simulate import simulate
from fedcert.cli.status import status
from fedcert.cli.submit import submit
from fedcert.cli.verify import verify
from fedcert.cli.warm_start import warm_start

__all__ = ["app", "main"]

# What `fedcert --help` shows under which heading, in this order, groups of commands last.
_HEADINGS: dict[str, tuple[Callable[..., None] | typer.Typer, ...]] = {
    "Run a federation": (
        *(new, methods, simulate, warm_start, status, report, server, deploy),
    ),
    "On a device": (plan, commit, personalize, points, predict, submit, monitor),
    "For everybody": (certify, verify, groups, bundle, prior, keys),
}

app = typer.Typer(
    name="fedcert",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
    suggest_commands=False,  # click does already
    help=(
        "Certified few-shot personalization for federated learning.\n\n"
        "Clients fine-tune adapters of a frozen model, a server pools them and fits a prior "
        "over adapters, and a new client with a few labels leaves with the best of many "
        "candidates and a proven upper bound on its error."
    ),
)


@app.callback(invoke_without_command=True)
def _before_any_command(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.")
    ] = False,
    imports: Annotated[
        list[str] | None,
        typer.Option(
            "--import",
            metavar="MODULE",
            help="Import a module that registers a prior, recipe, or method of somebody's own, "
            "which runs its code; may be repeated.",
        ),
    ] = None,
) -> None:
    if version:
        say(f"fedcert {__version__}")
        raise typer.Exit
    if imports:
        from fedcert.extensions import import_extensions

        import_extensions(imports)


def main() -> None:
    """Run the command line; a user's mistake prints one line, not a traceback."""
    # Commands must not phone anybody unless a user asks for a hub model by name.
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if not sys.warnoptions:
        # What is planned for the libraries below concerns nobody at a terminal.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", module="peft")
        warnings.showwarning = show_warning
    with in_one_line(interrupted="what was finished is kept, and the same command goes on"):
        app(prog_name="fedcert")


def _register(heading: str, entry: Callable[..., None] | typer.Typer) -> None:
    """Give the app a command, or a group of commands under its own name."""
    if isinstance(entry, typer.Typer):
        app.add_typer(entry, rich_help_panel=heading)
    else:
        app.command(rich_help_panel=heading)(entry)


for _heading, _entries in _HEADINGS.items():
    for _entry in _entries:
        _register(_heading, _entry)
