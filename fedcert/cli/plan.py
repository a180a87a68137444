"""``fedcert plan``: how many labels a certificate takes, before any is collected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fedcert.cli.console import say
from fedcert.errors import RefusalError, SettingsError
from fedcert.reports.formats import decimal_up

__all__ = ["plan"]


def plan(
    bundle: Annotated[Path, typer.Option("--bundle", "-b", help="The federation's bundle.")],
    target: Annotated[
        float | None,
        typer.Option(help="The certificate that you want; tells how many labels it takes."),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option("--n", help="Labels that you can get; tells what certificate to expect."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Say how many labels a certificate takes, or what certificate a number of labels gives.

    The answer is what the federation's planning clients got, and no promise: your own
    certificate depends on your examples. Ask before you label; exits with 1 if no planned
    size reaches the target.
    """
    from fedcert.bundles import Bundle
    from fedcert.planning import recipe_name

    if (target is None) == (n is None):
        raise SettingsError("give either --target or --n")
    if target is not None and not 0 < target < 1:
        raise SettingsError(f"--target must lie between 0 and 1, not {target:g}")
    if n is not None and n < 1:
        raise SettingsError(f"--n must be at least 1, not {n}")
    planned = Bundle.load(bundle).plan
    if planned is None:
        raise RefusalError(
            f"{bundle}: the bundle has no plan; its federation did not run with "
            'certificate.recipe = "planned"'
        )
    row = planned.expected(n) if n is not None else planned.needed(target or 0.0)
    if as_json:
        typer.echo(json.dumps(row.to_config()))
        return
    say(f"labels:      {row.n}")
    say(f"recipe:      {recipe_name(row.recipe)}")
    say(f"certificate: {decimal_up(row.mean)} on average over {row.clients} planning clients")
    if row.tail is not None:
        tail = decimal_up(row.tail)
        say(f"tail:        {tail} on average over the worst quarter, which chose")
    # Of one certificate each, where the mean takes several parts of each client's examples.
    span = f"{decimal_up(row.low)} to {decimal_up(row.high)}"
    say(f"range:       {span} (of single certificates: 10% and 90% quantiles)")
    for name, value in (row.promised or {}).items():
        say(f"promised:    {name.replace('_', ' ').replace('.', ', ')} {value:g} on average")
    if n is not None and n > row.n:
        say(f"{row.n} is the largest size up to {n} that was planned", wrap=True)
