"""``fedcert verify``: what a third party runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedcert.cli.checks import show
from fedcert.cli.console import say
from fedcert.cli.inputs import base_name, read_labeled, read_unlabeled
from fedcert.cli.options import Base, Device, InputColumn, LabelColumn, ServerKey, hex64
from fedcert.errors import SettingsError

if TYPE_CHECKING:
    from fedcert.bundles import Bundle
    from fedcert.certificates import Certificate
    from fedcert.personalization import CertifiedPoint
    from fedcert.protocol.commitment import Opening

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
    unlabeled: Annotated[
        Path | None,
        typer.Option(
            help="The inputs without labels that the certificate names: make the adapter again "
            "from them, too; needs --data."
        ),
    ] = None,
    base_model: Base = None,
    early: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the early operating point, with adapter/ and certificate.json: "
            "counts an early exit again, with --data."
        ),
    ] = None,
    early_bundle: Annotated[
        Path | None, typer.Option(help="The bundle of the early operating point.")
    ] = None,
    early_base_model: Annotated[
        str | None, typer.Option(help="Its base model; by default beside its bundle.")
    ] = None,
    public_key: Annotated[
        str | None,
        typer.Option(help="The signer you expect, 64 hexadecimal digits.", callback=hex64),
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
    spot_checks: Annotated[
        Path | None, typer.Option(help="The record that `monitor` signed; computed again.")
    ] = None,
    device: Device = "auto",
    input_column: InputColumn = "input",
    label_column: LabelColumn = "label",
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
) -> None:
    """Recompute a certificate; exits with 0 if every check holds, and with 1 otherwise.

    Alone, the record shows that the bound follows from the stated counts and who signed it.
    With the bundle, that recipe and seed are the federation's, and that the adapter is one of
    the candidates that were paid for, unless it was refined. With the data, that the errors
    were counted right, and that the choice is the recipe's. What was not checked is listed in
    the end, with the option that would check it. A signature proves who made the claim; only
    recomputation proves the claim.
    """
    from fedcert.certificates import Certificate
    from fedcert.verification import verify as check

    record = Certificate.read(certificate)
    _refuse_incomplete(bundle, adapter, data, opening)
    if unlabeled is not None and data is None:
        raise SettingsError("--unlabeled needs --data: the adapter was made from both")
    if (early is None) != (early_bundle is None) or (early is not None and data is None):
        raise SettingsError("--early needs --early-bundle and --data, and the other way around")
    beside = certificate.parent / "adapter"
    folder = adapter or (beside if bundle is not None and beside.is_dir() else None)
    if data is not None and folder is None:
        raise SettingsError("--data needs the adapter folder: give --adapter")
    loaded, at = _bundle_for(record, bundle)
    examples = inputs = base = place = None
    # Another federation's bundle says how to read other data: the table shows that it is one.
    fits = loaded is not None and loaded.digest == record.digests.bundle
    public = folder is not None and any(each.public for each in record.recipe.promises)
    if (data is not None or public) and loaded is not None and at is not None and fits:
        if data is not None:
            examples = read_labeled(
                data, loaded, input_column, label_column, labels=record.labels
            )
            inputs = read_unlabeled(unlabeled, loaded, input_column, label_column)
        from fedcert.devices import resolve_device  # needs torch, which an auditor may lack

        place = resolve_device(device)
        base = loaded.load_base(base_name(at, base_model), device=place)
    # Without data that can be read as the bundle says nothing else that needs them is read.
    if examples is None:
        early = opening = None
    report = check(
        record,
        bundle=loaded,
        adapter=folder,
        data=examples,
        base=base,
        early=_early(early, early_bundle, early_base_model, device),
        opening=_opening(opening),
        public_key=public_key,
        server_key=server_key,
        unlabeled=inputs,
        **_from_the_server(record, loaded, server_key, witness, log),
    )
    if spot_checks is not None:
        from fedcert.certificates.spot_checks import (
            SpotChecks,
            check_spot_checks,
            left_open,
        )

        watched = SpotChecks.read(spot_checks)
        report = report.extended(check_spot_checks(record, watched))
        report = report.left_open(*left_open(watched))
    if place is not None and not as_json:
        from fedcert.devices import describe_device

        say(f"counted on {describe_device(place)}")
    show(record, report, as_json=as_json)
    raise typer.Exit(0 if report.passed else 1)


def _bundle_for(record: Certificate, path: Path | None) -> tuple[Bundle | None, Path | None]:
    """Load the bundle that a path leads to, and say where it is."""
    return (None, None) if path is None else _found(record, path)


def _found(record: Certificate, path: Path) -> tuple[Bundle, Path]:
    from fedcert.bundles import Bundle
    from fedcert.bundles.versions import find_bundle

    found = find_bundle(path, record.digests.bundle)
    return Bundle.load(found), found


def _early(
    folder: Path | None, bundle: Path | None, base_model: str | None, device: str
) -> CertifiedPoint | None:
    """Load the operating point of an early exit."""
    if folder is None or bundle is None:
        return None
    from fedcert.certificates import Certificate
    from fedcert.devices import resolve_device
    from fedcert.personalization import CertifiedPoint

    record = Certificate.read(folder / "certificate.json")
    loaded, at = _found(record, bundle)
    base = loaded.load_base(base_name(at, base_model), device=resolve_device(device))
    return CertifiedPoint(record, folder / "adapter", loaded, base)


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


def _opening(path: Path | None) -> Opening | None:
    from fedcert.protocol.commitment import Opening

    return None if path is None else Opening.read(path)


def _from_the_server(
    record: Certificate,
    bundle: Bundle | None,
    server_key: str | None,
    witness: Path | None,
    log: Path | None,
) -> dict[str, Any]:
    """Read what a server said about the certificate."""
    from fedcert.protocol.log import read_log
    from fedcert.protocol.witness import Countersignature

    entries = None
    if log is not None:
        named = None if bundle is None else bundle.server
        seen = record.protocol.server if record.protocol else None
        issuer = server_key or named or seen
        if issuer is None or seen is None:
            raise SettingsError("--log needs a witnessed certificate: this one has no server")
        entries = read_log(log, issuer.lower())
    countersigned = None if witness is None else Countersignature.read(witness)
    return {"witness": countersigned, "log": entries}
