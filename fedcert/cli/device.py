"""``fedcert personalize`` and ``fedcert verify``: what a device and a third party run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from fedcert.cli.app import app, console, say
from fedcert.errors import SettingsError

if TYPE_CHECKING:
    from fedcert.bundle import Bundle
    from fedcert.data import Examples

__all__ = ["personalize", "verify"]

_Base = Annotated[
    str | None,
    typer.Option(
        "--base-model",
        help="Folder or hub id of the base model; by default `base-model` beside the bundle, "
        "if it is there, or the bundle's own hub id.",
    ),
]
_InputColumn = Annotated[str, typer.Option(help="Column or key of the inputs.")]
_LabelColumn = Annotated[str, typer.Option(help="Column or key of the labels.")]


@app.command()
def personalize(
    data: Annotated[Path, typer.Argument(help="Labeled examples: .csv, .jsonl or .npz.")],
    bundle: Annotated[Path, typer.Option("--bundle", "-b", help="The federation's bundle.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Gets adapter/ and certificate.json.")
    ],
    client: Annotated[str, typer.Option(help="Your stable id; the candidates depend on it.")],
    key: Annotated[
        Path,
        typer.Option(help="Your signing key; made, readable by you alone, if missing."),
    ] = Path("fedcert.key"),
    base_model: _Base = None,
    input_column: _InputColumn = "input",
    label_column: _LabelColumn = "label",
    as_json: Annotated[bool, typer.Option("--json", help="Print the certificate.")] = False,
) -> None:
    """Turn a bundle and a few labeled examples into an adapter and a certificate.

    Needs no server, no Flower and no Ray. The examples must be a random sample of what the
    model will meet, not balanced by class, and used for nothing else before.
    """
    from fedcert.adapters import AdaptedModel
    from fedcert.bundle import Bundle
    from fedcert.certificates.signing import read_or_create_key
    from fedcert.personalization import personalize as run

    loaded = Bundle.load(bundle)
    examples = _examples(data, loaded, input_column, label_column)
    base = loaded.load_base(_base_name(bundle, base_model))
    result = run(
        loaded,
        AdaptedModel(base, loaded.space),
        examples,
        client=client,
        key=read_or_create_key(key),
        folder=output,
    )
    certificate = result.certificate
    if as_json:
        typer.echo(certificate.to_json(), nl=False)
        return
    say(certificate.statement, wrap=True)
    say(f"bound:       {certificate.bound:.4f} (delta {certificate.delta:g})")
    say(f"adapter:     {result.adapter}")
    say(f"certificate: {output / 'certificate.json'}")


@app.command()
def verify(
    certificate: Annotated[Path, typer.Argument(help="A certificate.json.")],
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", "-b", help="Check recipe, seed and candidate against it."),
    ] = None,
    adapter: Annotated[
        Path | None,
        typer.Option(
            help="Adapter folder to check; by default `adapter` beside the certificate."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Count the errors again on these examples.")
    ] = None,
    base_model: _Base = None,
    public_key: Annotated[
        str | None, typer.Option(help="The signer you expect, 64 hexadecimal digits.")
    ] = None,
    input_column: _InputColumn = "input",
    label_column: _LabelColumn = "label",
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
) -> None:
    """Recompute a certificate; exits with 0 if every check holds, and with 1 otherwise.

    Alone, the record shows that the bound follows from the stated counts and who signed it.
    With the bundle, that the adapter is one of the candidates that were paid for. With the
    data, that the errors were counted right. A signature proves who made the claim; only
    recomputation proves the claim.
    """
    from fedcert.certificates import Certificate, verify_record

    record = Certificate.read(certificate)
    report = verify_record(record, public_key=public_key)
    if data is not None and bundle is None:
        raise SettingsError("--data needs --bundle: the inputs are encoded as the bundle says")
    beside = certificate.parent / "adapter"
    folder = adapter or (beside if bundle is not None and beside.is_dir() else None)
    if adapter is not None and bundle is None:
        raise SettingsError("--adapter needs --bundle: the adapter space is in the bundle")
    if bundle is not None:
        from fedcert.bundle import Bundle
        from fedcert.verification import check_adapter, check_bundle, check_data

        loaded = Bundle.load(bundle)
        report = report.extended(check_bundle(record, loaded))
        if folder is not None:
            report = report.extended(check_adapter(record, loaded, folder))
        if data is not None:
            if folder is None:
                raise SettingsError("--data needs the adapter folder: give --adapter")
            examples = _examples(data, loaded, input_column, label_column)
            base = loaded.load_base(_base_name(bundle, base_model))
            report = report.extended(check_data(record, loaded, base, folder, examples))
    if as_json:
        checks = [
            {"name": c.name, "passed": c.passed, "detail": c.detail} for c in report.checks
        ]
        typer.echo(json.dumps({"passed": report.passed, "checks": checks}))
    else:
        # Keys and digests are longer than the column; the default would cut them off.
        fold = Column(overflow="fold")
        table = Table(Column(), Column(), fold, show_header=False, box=None)
        for check in report.checks:
            mark = "[green]ok[/]" if check.passed else "[red]FAILED[/]"
            table.add_row(mark, check.name, escape(check.detail))
        console.print(table)
        if report.passed:
            say(record.statement, wrap=True)
            if bundle is None or data is None:
                say(f"not checked: {_unchecked(bundle, data)}", wrap=True)
        else:
            say("this certificate does not hold", style="red")
    raise typer.Exit(0 if report.passed else 1)


def _unchecked(bundle: Path | None, data: Path | None) -> str:
    missing = []
    if bundle is None:
        missing.append("whether the adapter is one of the candidates (give --bundle)")
    if data is None:
        missing.append("whether the errors were counted right (give --data)")
    return "; ".join(missing)


def _base_name(bundle: Path, given: str | None) -> str | None:
    beside = bundle.resolve().parent / "base-model"
    return given or (str(beside) if beside.is_dir() else None)


def _examples(data: Path, bundle: Bundle, input_column: str, label_column: str) -> Examples:
    """Read a user's examples as the bundle's task has them."""
    from fedcert.data import read_examples

    return read_examples(
        data,
        spec=bundle.inputs,
        labels=bundle.labels,
        input_column=input_column,
        label_column=label_column,
    )
