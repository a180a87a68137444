"""``fedcert keys``: signing keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["keys"]

keys = typer.Typer(
    name="keys",
    no_args_is_help=True,
    suggest_commands=False,
    help="Make and show signing keys.",
)

_Path = Annotated[Path, typer.Argument(help="The key file.")]


@keys.command()
def create(path: _Path) -> None:
    """Make an Ed25519 key, readable by you alone, and print its public part."""
    from fedcert.records.signing import generate_key, public_hex, write_key

    key = generate_key()
    write_key(path, key)
    typer.echo(public_hex(key))


@keys.command()
def show(path: _Path) -> None:
    """Print the public part of a key: what others pass to `verify --public-key`."""
    from fedcert.records.signing import public_hex, read_key

    typer.echo(public_hex(read_key(path)))
