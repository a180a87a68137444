"""What every command prints on."""

from __future__ import annotations

import os

from rich.console import Console

from fedcert.cli.endings import print_line

__all__ = ["console", "say"]

_WIDTH_OF_FILES = 200

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
        A style of rich; shown on terminals.
    wrap : bool (default: False)
        Break long lines between words, on terminals.
    """
    print_line(console, text, style=style, soft_wrap=not (wrap and console.is_terminal))
