"""``fedcert points``: a device's operating points, certified together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedcert.cli.console import say
from fedcert.cli.inputs import (
    base_name,
    key_path,
    load_bundle,
    own_labels,
    read_labeled,
)
from fedcert.cli.options import (
    DataPath,
    Device,
    DuplicatesAreReal,
    InputColumn,
    Key,
    LabelColumn,
    Labels,
    RepeatsAreNew,
    State,
)
from fedcert.cli.outputs import check_certificate_folder
from fedcert.errors import SettingsError
from fedcert.protocol.ledgers import state_of
from fedcert.reports.formats import decimal_up

if TYPE_CHECKING:
    from fedcert.data import Examples
    from fedcert.models import BaseModel
    from fedcert.personalization import Personalization

__all__ = ["points"]

_TIMED = 20


def points(
    data: DataPath,
    bundle: Annotated[
        list[Path],
        typer.Option("--bundle", "-b", help="An operating point's bundle; repeat for each."),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Gets a folder for each operating point."),
    ],
    client: Annotated[str, typer.Option(help="Your stable id; the candidates depend on it.")],
    key: Key = None,
    state: State = None,
    base_model: Annotated[
        list[str] | None,
        typer.Option(
            help="A bundle's base model, in the bundles' order; by default `base-model` beside "
            "each."
        ),
    ] = None,
    device: Device = "auto",
    input_column: InputColumn = "input",
    label_column: LabelColumn = "label",
    labels: Labels = None,
    duplicates_are_real: DuplicatesAreReal = False,
    repeats_are_new: RepeatsAreNew = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Certify at several depths and precisions at once, and say what each costs and promises.

    The bundles are those of federations with the same `certificate.points`. Delta is divided
    among the points, so that all bounds hold at once and you may use whichever you like.
    Milliseconds are measured on this machine, one input at a time; no certificate promises
    them.
    """
    from fedcert.certificates import check_client
    from fedcert.devices import resolve_device
    from fedcert.personalization import personalize_points
    from fedcert.protocol.device import DeviceState
    from fedcert.records.signing import read_or_create_key
    from fedcert.reports.certificate_page import write_certificate_page

    check_client(client)
    named: list[str | None] = [None] * len(bundle)
    if base_model:
        named = [*base_model]
    if len(named) != len(bundle):
        raise SettingsError(
            f"there are {len(bundle)} bundles and {len(named)} base models: give --base-model "
            "once for each --bundle, in their order, or not at all"
        )
    place = resolve_device(device)
    loaded = [load_bundle(path, None) for path in bundle]
    names, descriptions = own_labels(loaded[0], labels)
    examples = read_labeled(data, loaded[0], input_column, label_column, labels=names)
    models = [
        one.task(
            one.load_base(base_name(path, given), device=place),
            labels=names,
            descriptions=descriptions,
        ).model()
        for one, path, given in zip(loaded, bundle, named, strict=True)
    ]
    file = key_path(key)
    signer = read_or_create_key(file)
    for there in output.glob("*/certificate.json"):
        check_certificate_folder(there.parent, client=client, key=signer)
    made = personalize_points(
        list(zip(loaded, models, strict=True)),
        examples,
        client=client,
        key=signer,
        folder=output,
        state=DeviceState(state or state_of(file)),
        duplicates_are_real=duplicates_are_real,
        repeats_are_new=repeats_are_new,
        on_point=lambda name: None if as_json else say(f"personalizing at {name}"),
    )
    bases = {model.base.digest: model.base for model in models}
    rows = []
    for name, each in made.items():
        write_certificate_page(each.certificate, output / name / "certificate.html")
        rows.append(_row(name, each, bases[each.certificate.digests.base_model], examples))
    if as_json:
        typer.echo(json.dumps(rows))
        return
    _show(rows)
    for name, each in made.items():
        for outcome in each.certificate.promises or ():
            if outcome.kind != "points":
                say(f"{name}: {outcome.row()}", wrap=True)
    say(f"all {len(rows)} bounds hold at once; certificates and adapters: {output}")


def _row(
    name: str, made: Personalization, base: BaseModel, examples: Examples
) -> dict[str, Any]:
    """Return what an operating point promises, and what it costs here."""
    from fedcert.classifier import load_classifier

    certificate, classifier = made.certificate, load_classifier(made.adapter, base)
    return {
        "point": name,
        "layers": base.layout.count,
        "milliseconds": classifier.milliseconds(examples.usable.inputs[:_TIMED]),
        "mib": classifier.weights_mib,
        "bound": certificate.bound,
        "errors": certificate.errors,
        "certified_on": certificate.certified_on,
        "delta": certificate.delta,
    }


def _show(rows: list[dict[str, Any]]) -> None:
    """Print the table, a point a line."""
    widest = max(len("point"), *(len(row["point"]) for row in rows))
    say(f"{'point':<{widest}}  layers       ms      MiB   bound")
    for row in rows:
        say(
            f"{row['point']:<{widest}}  {row['layers']:>6}  {row['milliseconds']:>7.1f}  "
            f"{row['mib']:>7.1f}  {decimal_up(row['bound'], 4)}"
        )
