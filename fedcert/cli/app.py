"""The command ``fedcert``: exit code 0 for success, 1 for "no", 2 for a mistake in the call.

Heavy libraries are imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated

import typer
from rich.console import Console
from typer.models import CommandInfo, TyperInfo

from fedcert import __version__
from fedcert.cli.endings import in_one_line, print_line

__all__ = ["app", "console", "main", "say"]

# What `fedcert --help` shows under which heading, in this order, groups of commands last.
_HEADINGS = {
    "Run a federation": ("new", "simulate", "status", "report", "server"),
    "On a device": ("plan", "commit", "personalize", "submit", "monitor"),
    "For everybody": ("verify", "bundle", "prior", "keys"),
}

_WIDTH_OF_FILES = 200

app = typer.Typer(
    name="fedcert",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
    help=(
        "Certified few-shot personalization for federated learning.\n\n"
        "Clients fine-tune adapters of a frozen model, a server pools them and fits a prior "
        "over adapters, and a new client with a few labels leaves with the best of many "
        "candidates and a proven upper bound on its error."
    ),
)
console = Console()
if not console.is_terminal and "COLUMNS" not in os.environ:
    # In a file or a pipe, 80 columns would break keys and digests in two.
    console = Console(width=_WIDTH_OF_FILES)


def say(text: str, *, style: str | None = None, wrap: bool = False) -> None:
    """Print text as it is: brackets are no markup, and a long path stays in one piece.

    Parameters
    ----------
    text : str
        One line.
    style : str, optional
        Of rich; shown on terminals.
    wrap : bool (default: False)
        Break long lines between words, on terminals.
    """
    print_line(console, text, style=style, soft_wrap=not (wrap and console.is_terminal))


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
            help="Import a module that registers a prior or a recipe of somebody's own, "
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
    _register_commands()
    with in_one_line(interrupted="what was finished is kept, and the same command goes on"):
        app(prog_name="fedcert")


def _register_commands() -> None:
    from fedcert.cli import (  # noqa: F401
        bundle,
        commit,
        device,
        keys,
        monitor,
        new,
        plan,
        prior,
        report,
        server,
        simulate,
        status,
        submit,
        verify,
    )

    order = [name for names in _HEADINGS.values() for name in names]
    heading_of = {name: heading for heading, names in _HEADINGS.items() for name in names}
    app.registered_commands.sort(key=lambda info: order.index(_name(info)))
    infos: list[CommandInfo | TyperInfo] = [*app.registered_commands, *app.registered_groups]
    for info in infos:
        info.rich_help_panel = heading_of[_name(info)]


def _name(info: CommandInfo | TyperInfo) -> str:
    return str(info.name or getattr(info.callback, "__name__", ""))
