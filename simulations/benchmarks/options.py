"""The options that benchmarks share, and that a part of one does not go into docs/."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from pathlib import Path

__all__ = ["parsed", "parser_of", "without_options"]

# What changes nothing of what is measured.
_FREE = ("output", "finished", "workers")


def parser_of(
    prog: str,
    doc: str | None,
    *,
    seeds: Sequence[int],
    quick: bool = False,
    finished: bool = False,
) -> argparse.ArgumentParser:
    """Return a parser with ``--seeds``, ``--output``, and maybe ``--quick`` and ``--finished``.

    Parameters
    ----------
    prog : str
        Name of the benchmark.
    doc : str or None
        What it is about.
    seeds : sequence of int
        Seeds of the federations, if no others are given.
    quick : bool (default: False)
        Whether there is a size that only shows that it runs.
    finished : bool (default: False)
        Whether what earlier runs have measured can be rendered alone.

    Returns
    -------
    argparse.ArgumentParser
        To which a benchmark adds its own options.
    """
    parser = argparse.ArgumentParser(prog=prog, description=doc)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    if quick:
        parser.add_argument(
            "--quick", action="store_true", help="a size that shows that it runs"
        )
    if finished:
        parser.add_argument(
            "--finished",
            action="store_true",
            help="measure nothing: render what earlier runs have finished",
        )
    parser.add_argument("--output", type=Path, help="folder for the record and the page")
    return parser


def parsed(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    *,
    free: Collection[str] = (),
) -> argparse.Namespace:
    """Read options, and refuse a part of the benchmark that would go into docs/.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Of `parser_of`.
    arguments : sequence of str, optional
        Those of the command line, unless given.
    free : collection of str
        Options that make no part, whatever they say.

    Returns
    -------
    argparse.Namespace
        The options.
    """
    options = parser.parse_args(arguments)
    part = [
        name
        for name, value in vars(options).items()
        if name not in {*_FREE, *free} and value != parser.get_default(name)
    ]
    if part and options.output is None:
        parser.error(
            "a part of the benchmark does not go into docs/: name a folder by --output"
        )
    return options


def without_options(prog: str, doc: str | None) -> None:
    """Read the command line of a benchmark that has no options: ``--help`` runs nothing.

    Parameters
    ----------
    prog : str
        Name of the benchmark.
    doc : str or None
        What it is about.
    """
    argparse.ArgumentParser(prog=prog, description=doc).parse_args()
