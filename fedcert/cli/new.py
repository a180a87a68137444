"""``fedcert new``: a Flower app of one's own, which runs at once."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from fedcert.cli.console import say

__all__ = ["new"]


def new(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where it goes; empty or not there yet.")
    ],
    name: Annotated[
        str | None, typer.Option(help="The app's name; by default that of the folder.")
    ] = None,
) -> None:
    """Make a Flower app with data and a base model of its own, to be changed into yours.

    It runs at once: in one process by its test, with `fedcert simulate`, and with `flwr run`.
    """
    from fedcert.cli.new_app import UPSTREAM_AND_NEW, make_app
    from fedcert.settings.toml import toml_of

    made, package = make_app(folder, name=name)
    output = f"output={toml_of(str(made / 'runs' / 'flwr'))}"
    say(f"made:   {made}")
    say(f"test:   cd {shlex.quote(str(made))} && python -m pytest")
    say(
        f"run:    flwr run {shlex.quote(str(made))} --stream --run-config "
        f"{shlex.quote(output)} --federation-config "
        f"'num-supernodes={sum(UPSTREAM_AND_NEW)} client-resources-num-cpus=1'"
    )
    say(f"change: {package}/data.py and {package}/model.py; README.md says more")
