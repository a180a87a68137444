"""``fedcert prior``: looking into a bundle's prior."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from fedcert.cli.console import console, say
from fedcert.cli.inputs import base_name, own_labels, read_labeled
from fedcert.cli.options import Base, Device, InputColumn, LabelColumn, Labels

__all__ = ["inspect", "prior", "profile"]

prior = typer.Typer(
    name="prior",
    no_args_is_help=True,
    suggest_commands=False,
    help="Look into a bundle's prior.",
)


@prior.command()
def inspect(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show what a bundle holds: prior, space, recipes, audits, digests and size."""
    from fedcert.bundles import Bundle

    loaded = Bundle.load(bundle)
    files = bundle.iterdir() if bundle.is_dir() else [bundle]
    size = sum(file.stat().st_size for file in files if file.is_file())
    facts: dict[str, Any] = {
        "prior": loaded.prior.kind,
        "adapter dimension": loaded.prior.dimension,
        "latent dimension": loaded.prior.noise_width,
        "rank": loaded.space.rank,
        **({"tied numbers": loaded.space.tied} if loaded.space.tied else {}),
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


@prior.command()
def profile(
    data: Annotated[Path, typer.Argument(help="Labeled examples of an unseen task.")],
    bundle: Annotated[Path, typer.Option("--bundle", "-b", help="The federation's bundle.")],
    base_model: Base = None,
    device: Device = "auto",
    candidates: Annotated[int, typer.Option(min=1, help="M, how many to draw.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the candidates.")] = 0,
    input_column: InputColumn = "input",
    label_column: LabelColumn = "label",
    labels: Labels = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show how good a prior's candidates are on a task: its risk profile.

    The share of candidates with a risk of at most t, and the risk of the best of M. Examples
    that were looked at here must not certify an adapter afterwards.
    """
    import numpy as np

    from fedcert.bundles import Bundle
    from fedcert.devices import describe_device, resolve_device
    from fedcert.priors import best_of, risk_profile
    from fedcert.randomness import derive_seed
    from fedcert.search import BatchedScorer

    loaded = Bundle.load(bundle)
    names, descriptions = own_labels(loaded, labels)
    examples = read_labeled(data, loaded, input_column, label_column, labels=names)
    place = resolve_device(device)
    base = loaded.load_base(base_name(bundle, base_model), device=place)
    task = loaded.task(base, labels=names, descriptions=descriptions)
    scorer = BatchedScorer(task.model(), margin_tolerance=0.0)
    prior = loaded.prior.on(scorer.device)
    vectors = prior.sample(derive_seed("risk profile", seed), count=candidates)
    wrong = scorer.score(vectors, examples).wrong
    thresholds = np.linspace(0.05, 0.5, 10)
    counts = sorted({m for m in (1, 10, 100, 1000, 10000) if m < candidates} | {candidates})
    shares = risk_profile(wrong, thresholds)
    facts = {
        "examples": len(examples),
        "candidates": candidates,
        "share_at_most": [
            {"risk": round(float(t), 2), "share": float(p)}
            for t, p in zip(thresholds, shares, strict=True)
        ],
        "best_of": [
            {"m": m, "risk": risk}
            for m, risk in zip(counts, best_of(wrong, counts), strict=True)
        ],
    }
    if as_json:
        typer.echo(json.dumps(facts))
        return
    table = Table("risk at most", "share of candidates", box=None)
    for t, p in zip(thresholds, shares, strict=True):
        table.add_row(f"{t:.2f}", f"{p:.4f}")
    console.print(table)
    table = Table("best of", "risk", box=None)
    for m, risk in zip(counts, best_of(wrong, counts), strict=True):
        table.add_row(f"{m:,}", f"{risk:.4f}")
    console.print(table)
    say(f"device: {describe_device(place)}")
    say(f"measured on {len(examples)} examples; do not certify on them afterwards", wrap=True)
