"""``fedcert personalize`` and ``fedcert verify``: what a device and a third party run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from fedcert.cli.app import app, console, say
from fedcert.errors import ProtocolError, SettingsError

if TYPE_CHECKING:
    from fedcert.bundle import Bundle
    from fedcert.certificates import Certificate, Check
    from fedcert.data import Examples

__all__ = [
    "Base",
    "InputColumn",
    "LabelColumn",
    "ServerKey",
    "State",
    "base_name",
    "default_state",
    "personalize",
    "read_labeled",
    "verify",
]

Base = Annotated[
    str | None,
    typer.Option(
        "--base-model",
        help="Folder or hub id of the base model; by default `base-model` beside the bundle, "
        "if it is there, or the bundle's own hub id.",
    ),
]
State = Annotated[
    Path | None,
    typer.Option(
        help="Your state folder: what you have spent and committed to. Keep it; by default "
        "beside the key, with the ending .state."
    ),
]
ServerKey = Annotated[
    str | None,
    typer.Option(help="The server that you expect, 64 hexadecimal digits."),
]
InputColumn = Annotated[str, typer.Option(help="Column or key of the inputs.")]
LabelColumn = Annotated[str, typer.Option(help="Column or key of the labels.")]


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
    seed: Annotated[
        Path | None,
        typer.Option(
            help="The server's answer to `commit`; without it the certificate is unwitnessed."
        ),
    ] = None,
    server_key: ServerKey = None,
    state: State = None,
    base_model: Base = None,
    input_column: InputColumn = "input",
    label_column: LabelColumn = "label",
    precision: Annotated[
        str,
        typer.Option(help="Rank candidates in float32 or bfloat16; errors count in float32."),
    ] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="Print the certificate.")] = False,
) -> None:
    """Turn a bundle and a few labeled examples into an adapter and a certificate.

    Needs no server, no Flower and no Ray. The examples must be a random sample of what the
    model will meet, not balanced by class, and used for nothing else before: examples that
    the state folder knows as spent are refused. For a witnessed certificate run `commit`
    first, send the commitment to the server, and give its answer as `--seed`.
    """
    from fedcert.adapters import AdaptedModel
    from fedcert.bundle import Bundle
    from fedcert.certificates.signing import read_or_create_key
    from fedcert.personalization import personalize as run
    from fedcert.protocol.device import DeviceState
    from fedcert.protocol.seeds import SeedGrant
    from fedcert.reports.certificate_page import write_certificate_page

    loaded = Bundle.load(bundle)
    examples = read_labeled(data, loaded, input_column, label_column)
    grant = None if seed is None else SeedGrant.read(seed)
    if server_key is not None and (grant is None or grant.receipt.server != server_key.lower()):
        issuer = "nobody: give --seed" if grant is None else grant.receipt.server
        raise ProtocolError(f"the seed is from {issuer}; you expect the server {server_key}")
    base = loaded.load_base(base_name(bundle, base_model))
    signer = read_or_create_key(key)
    result = run(
        loaded,
        AdaptedModel(base, loaded.space),
        examples,
        client=client,
        key=signer,
        folder=output,
        state=DeviceState(state or default_state(key)),
        grant=grant,
        precision=precision,
    )
    certificate = result.certificate
    page = output / "certificate.html"
    write_certificate_page(certificate, page)
    if as_json:
        typer.echo(certificate.to_json(), nl=False)
        return
    say(certificate.statement, wrap=True)
    say(f"bound:       {certificate.bound:.4f} (delta {certificate.delta:g})")
    say(f"adapter:     {result.adapter}")
    say(f"certificate: {output / 'certificate.json'}")
    say(f"to read:     {page}")


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
    base_model: Base = None,
    public_key: Annotated[
        str | None, typer.Option(help="The signer you expect, 64 hexadecimal digits.")
    ] = None,
    server_key: ServerKey = None,
    witness: Annotated[
        Path | None, typer.Option(help="The server's countersignature of the certificate.")
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="The server's log; it must hold the certificate.")
    ] = None,
    opening: Annotated[
        Path | None,
        typer.Option(help="The client's salts, from its state folder; needs --data."),
    ] = None,
    input_column: InputColumn = "input",
    label_column: LabelColumn = "label",
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
    _refuse_incomplete(bundle, adapter, data, opening)
    beside = certificate.parent / "adapter"
    folder = adapter or (beside if bundle is not None and beside.is_dir() else None)
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
            examples = read_labeled(data, loaded, input_column, label_column)
            base = loaded.load_base(base_name(bundle, base_model))
            report = report.extended(check_data(record, loaded, base, folder, examples))
            report = report.extended(_opening_checks(record, opening, examples))
    report = report.extended(_protocol_checks(record, server_key, witness, log))
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


def _refuse_incomplete(
    bundle: Path | None, adapter: Path | None, data: Path | None, opening: Path | None
) -> None:
    """Raise `SettingsError` for options that say nothing without others."""
    if data is not None and bundle is None:
        raise SettingsError("--data needs --bundle: the inputs are encoded as the bundle says")
    if adapter is not None and bundle is None:
        raise SettingsError("--adapter needs --bundle: the adapter space is in the bundle")
    if opening is not None and data is None:
        raise SettingsError("--opening needs --data: it opens a commitment to examples")


def _opening_checks(
    record: Certificate, opening: Path | None, examples: Examples
) -> list[Check]:
    """Check that the examples are the committed ones, if the salts are at hand."""
    from fedcert.protocol.commitment import Opening
    from fedcert.protocol.witness import check_opening

    return [] if opening is None else [check_opening(record, Opening.read(opening), examples)]


def _protocol_checks(
    record: Certificate, server_key: str | None, witness: Path | None, log: Path | None
) -> list[Check]:
    """Check what a server said about the certificate."""
    from fedcert.protocol.log import read_log
    from fedcert.protocol.witness import (
        Countersignature,
        check_log,
        check_server,
        check_witness,
    )

    checks = [] if server_key is None else [check_server(record, server_key)]
    countersigned = None if witness is None else Countersignature.read(witness)
    if countersigned is not None:
        checks.append(check_witness(record, countersigned))
    if log is not None:
        issuer = server_key or (record.protocol.server if record.protocol else None)
        if issuer is None:
            raise SettingsError("--log needs a witnessed certificate: this one has no server")
        checks += check_log(record, read_log(log, issuer.lower()), countersigned)
    return checks


def _unchecked(bundle: Path | None, data: Path | None) -> str:
    missing = []
    if bundle is None:
        missing.append("whether the adapter is one of the candidates (give --bundle)")
    if data is None:
        missing.append("whether the errors were counted right (give --data)")
    return "; ".join(missing)


def default_state(key: Path) -> Path:
    """Return the state folder that belongs to a key."""
    return key.with_suffix(".state")


def base_name(bundle: Path, given: str | None) -> str | None:
    """Return where the base model is: as given, or beside the bundle."""
    beside = bundle.resolve().parent / "base-model"
    return given or (str(beside) if beside.is_dir() else None)


def read_labeled(data: Path, bundle: Bundle, input_column: str, label_column: str) -> Examples:
    """Read a user's examples as the bundle's task has them."""
    from fedcert.data import read_examples

    return read_examples(
        data,
        spec=bundle.inputs,
        labels=bundle.labels,
        input_column=input_column,
        label_column=label_column,
    )
