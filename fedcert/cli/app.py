"""The command ``fedcert``: exit code 0 for success, 1 for "no", 2 for a mistake in the call.

Heavy libraries are imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from fedcert import __version__
from fedcert.errors import FedcertError
from fedcert.reports.formats import clean_text

__all__ = ["app", "console", "main", "say"]

# What typer makes of Ctrl-C.
_INTERRUPTED = 130

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
    _print_line(console, text, style=style, soft_wrap=not (wrap and console.is_terminal))


def _print_line(to: Console, text: str, *, style: str | None, soft_wrap: bool = True) -> None:
    # Names come from others: nothing that they hold may move the cursor or turn text around.
    shown = clean_text(text)
    to.print(shown, style=style, markup=False, highlight=False, soft_wrap=soft_wrap)


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
    try:
        app(prog_name="fedcert")
    except FedcertError as error:
        _fail(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}")
    except SystemExit as ended:
        if ended.code == _INTERRUPTED:
            text = "interrupted; what was finished is kept, and the same command goes on"
            _print_line(Console(stderr=True), text, style=None)
        raise


def _fail(reason: str) -> NoReturn:
    text = " ".join(f"error: {reason}".splitlines())
    _print_line(Console(stderr=True), text, style="red")
    sys.exit(1)


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
