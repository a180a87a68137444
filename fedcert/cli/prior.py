"""``fedcert prior``: looking into a bundle's prior."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from fedcert.cli.app import app, console

__all__ = ["inspect", "prior"]

prior = typer.Typer(no_args_is_help=True, help="Look into a bundle's prior.")
app.add_typer(prior, name="prior")


@prior.command()
def inspect(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show what a bundle holds: prior, space, recipes, audits, digests and size."""
    from fedcert.bundle import Bundle

    loaded = Bundle.load(bundle)
    size = sum(file.stat().st_size for file in bundle.iterdir() if file.is_file())
    facts: dict[str, Any] = {
        "prior": loaded.prior.kind,
        "adapter dimension": loaded.prior.dimension,
        "latent dimension": loaded.prior.noise_width,
        "rank": loaded.space.rank,
        "adapted modules": [target.name for target in loaded.space.targets],
        "labels": list(loaded.labels),
        "base model": f"{loaded.base_name} ({loaded.base_digest[:12]})",
        "recipes": loaded.recipes.to_config(),
        "bundle digest": loaded.digest,
        "prior digest": loaded.prior.digest,
        "bytes": size,
        **loaded.notes,
    }
    if as_json:
        typer.echo(json.dumps(facts))
        return
    # Digests are longer than the column; the default would cut them off.
    table = Table(Column(), Column(overflow="fold"), show_header=False, box=None)
    for name, value in facts.items():
        text = value if isinstance(value, str) else json.dumps(value)
        table.add_row(escape(name.replace("_", " ")), escape(text))
    console.print(table)
