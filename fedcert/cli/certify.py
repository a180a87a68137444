"""``fedcert certify``: a bound for anybody's own classifier."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from fedcert.cli.console import say

__all__ = ["certify"]


def certify(
    errors: Annotated[int, typer.Option(help="Wrong labels among the examples.")],
    n: Annotated[int, typer.Option("--n", help="Number of examples.")],
    delta: Annotated[
        float, typer.Option(help="Probability that the claim may be false.")
    ] = 0.05,
    candidates: Annotated[
        int, typer.Option(help="How many classifiers were compared on these examples.")
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Bound the error of a classifier of your own from a count of errors.

    The examples must be a random sample that neither training nor a choice has seen. For an
    adapter of a federation, `personalize` counts by itself.
    """
    from fedcert.certificates.claims import certify as claim_of

    claim = claim_of(errors, n, delta=delta, candidates=candidates)
    if as_json:
        typer.echo(json.dumps(asdict(claim) | {"statement": claim.statement}))
        return
    say(f"error at most: {claim.bound:.6f}")
    say(claim.statement, wrap=True)
