"""How a command ends: a mistake in one line, no traceback, and an exit code that is true."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn, TextIO

from rich.console import Console

from fedcert.errors import FedcertError
from fedcert.reports.formats import clean_text

__all__ = ["in_one_line", "print_line", "show_warning"]

# Which extra brings a package that the core does without.
_EXTRAS = {
    "datasets": "data",
    "flwr": "server",
    "flwr_datasets": "data",
    "matplotlib": "report",
    "pyarrow": "data",
    "ray": "simulation",
    "sklearn": "simulation",
    "tensorboard": "tensorboard",
}
# What typer makes of Ctrl-C.
_INTERRUPTED = 130


@contextmanager
def in_one_line(*, interrupted: str) -> Iterator[None]:
    """Turn what a user can mend into a line on standard error and exit code 1.

    Parameters
    ----------
    interrupted : str
        What to tell somebody who stops the command.
    """
    try:
        yield
    except FedcertError as error:
        _fail(str(error))
    except OSError as error:
        _fail(_reason_of(error))
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package not in _EXTRAS:
            raise
        _fail(
            f"this needs the package {package!r}, which is not installed; install fedcert "
            f"with its extra [{_EXTRAS[package]}]"
        )
    except SystemExit as ended:
        if ended.code == _INTERRUPTED:
            print_line(Console(stderr=True), f"interrupted; {interrupted}")
        raise


def print_line(
    to: Console, text: str, *, style: str | None = None, soft_wrap: bool = True
) -> None:
    """Print text as it is on one line, which no name in it can break or turn around.

    Parameters
    ----------
    to : Console
        Where it goes.
    text : str
        Names in it may come from others.
    style : str, optional
        A style of rich; shown on terminals.
    soft_wrap : bool (default: True)
        Leave long lines to the terminal.
    """
    shown = clean_text(text)
    to.print(shown, style=style, markup=False, highlight=False, soft_wrap=soft_wrap)


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning on one line of standard error, without the code that it came from.

    Parameters
    ----------
    message, category, filename, lineno, file, line
        As Python calls `warnings.showwarning`; only the message is shown.
    """
    print_line(Console(stderr=True), f"WARNING: {message}")


def _reason_of(error: OSError) -> str:
    """Say in a line which file or folder a system call failed on, and why."""
    # Where something was to be renamed, the second name is the one that the user gave.
    name = error.filename2 or error.filename
    if isinstance(error, FileExistsError | NotADirectoryError) and not error.filename2:
        return f"{name}: there is a file where a folder is needed; choose another place"
    return f"{name}: {error.strerror or error}" if name else str(error.strerror or error)


def _fail(reason: str) -> NoReturn:
    text = " ".join(f"error: {reason}".splitlines())
    print_line(Console(stderr=True), text, style="red")
    sys.exit(1)
