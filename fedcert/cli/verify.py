"""``fedcert verify``: what a third party runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from fedcert.cli.console import console, say
from fedcert.cli.device import (
    Base,
    InputColumn,
    LabelColumn,
    ServerKey,
    base_name,
    read_labeled,
)
from fedcert.errors import SettingsError
from fedcert.reports.formats import clean_text

if TYPE_CHECKING:
    from fedcert.certificates import Certificate, Check
    from fedcert.data import Examples

__all__ = ["verify"]


def verify(
    certificate: Annotated[Path, typer.Argument(help="A certificate.json.")],
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            "-b",
            help="Check recipe, seed and candidate against it; in a run folder, against the "
            "version that the certificate names.",
        ),
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
        from fedcert.bundles import Bundle
        from fedcert.bundles.versions import find_bundle
        from fedcert.verification import check_adapter, check_bundle, check_data

        bundle = find_bundle(bundle, record.digests.bundle)
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
            table.add_row(mark, check.name, escape(clean_text(check.detail)))
        console.print(table)
        failed = [check.name for check in report.checks if not check.passed]
        if report.passed:
            say(record.statement, wrap=True)
            if bundle is None or data is None:
                say(f"not checked: {_unchecked(bundle, data)}", wrap=True)
        else:
            say(f"this certificate does not hold: {', '.join(failed)}", style="red")
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
