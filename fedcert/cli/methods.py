"""``fedcert methods``: how a federation can learn, and what each way sends."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from fedcert.cli.console import say
from fedcert.cli.running import OverridesOption, SettingsOption, settings_of

__all__ = ["methods"]


def methods(
    scenario: Annotated[
        str | None,
        typer.Argument(help="Count bytes for a scenario, by the settings of its run."),
    ] = None,
    settings: SettingsOption = None,
    overrides: OverridesOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List the methods: what each shares, what is personal, and how a new client learns.

    With a scenario, or settings that name one, also the bytes that go up and down. Any of them
    runs by the setting `method`, as in `fedcert simulate digits --set method=fedrep`.
    """
    from fedcert.methods import METHODS

    read = settings_of(scenario, settings, overrides or ())
    counted = _bytes(read) if scenario is not None or settings is not None else {}
    rows = [
        {
            "method": kind,
            "shared": cls.shares,
            "personal": cls.keeps,
            "asks": cls.asks,
            "new_client": cls.learns,
            **counted.get(kind, {}),
        }
        for kind, cls in METHODS.items()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        say(row["method"])
        say(f"  shared:     {row['shared']}")
        say(f"  personal:   {row['personal']}")
        say(f"  new client: {row['new_client']}")
        if row["method"] in counted:
            say(f"  sends:      {_sent(row)}")


def _bytes(settings: Any) -> dict[str, dict[str, Any]]:
    """Return what each method transfers, or why it is none for this base model."""
    from fedcert.errors import FedcertError
    from fedcert.methods import METHODS
    from fedcert.methods.traffic import traffic_of
    from fedcert.scenarios import load_scenario

    scenario = load_scenario(settings.scenario.name, settings.scenario.options)
    base = scenario.load_base()
    space = settings.space_of(base)
    found: dict[str, dict[str, Any]] = {}
    for kind in METHODS:
        try:
            method = settings.model_copy(update={"method": kind}).method_of().fitted_to(base)
            method.check(space)
        except FedcertError as error:
            found[kind] = {"refused": str(error)}
            continue
        sent = traffic_of(method, space, upstream=len(scenario.upstream_clients))
        found[kind] = {"up_bytes": sent.up, "down_bytes": sent.down, "new_bytes": sent.new}
    return found


def _sent(row: dict[str, Any]) -> str:
    if "refused" in row:
        return f"does not fit: {row['refused']}"
    new = "a prior, by its fit" if row["new_bytes"] is None else _size(row["new_bytes"])
    return (
        f"{_size(row['up_bytes'])} up and {_size(row['down_bytes'])} down for each upstream "
        f"client; {new} to a new one"
    )


def _size(count: float) -> str:
    return f"{count / 1024:,.1f} KiB"
