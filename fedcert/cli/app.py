"""The command ``fedcert``: exit code 0 for success, 1 for "no", 2 for a mistake in the call.

Heavy libraries are imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
import sys

import typer
from rich.console import Console

from fedcert import __version__
from fedcert.errors import FedcertError

__all__ = ["app", "console", "main"]

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


@app.callback(invoke_without_command=True)
def _version(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    if version:
        console.print(f"fedcert {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; a user's mistake prints one line, not a traceback."""
    # Commands must not phone anybody unless a user asks for a hub model by name.
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    _register_commands()
    errors = Console(stderr=True)
    try:
        app()
    except FedcertError as error:
        errors.print(f"error: {error}", style="red", markup=False, highlight=False)
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        reason = error.strerror or str(error)
        errors.print(f"error: {where}{reason}", style="red", markup=False, highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        errors.print("interrupted; what was finished is kept, and the same command goes on")
        sys.exit(130)


def _register_commands() -> None:
    from fedcert.cli import device, keys, prior, report, simulate  # noqa: F401
