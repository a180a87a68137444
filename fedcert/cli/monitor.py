"""``fedcert monitor``: whether a certificate is still tenable after what was labeled since."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedcert.cli.checks import show
from fedcert.cli.console import say
from fedcert.cli.inputs import base_name, key_path, read_labeled
from fedcert.cli.options import Base, Device, InputColumn, Key, LabelColumn, State
from fedcert.errors import CertificateError, DataError, ProtocolError
from fedcert.protocol.ledgers import state_of
from fedcert.reports.formats import decimal_up

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from fedcert.certificates import Certificate
    from fedcert.certificates.monitoring import RiskWatch
    from fedcert.data import Examples
    from fedcert.protocol.spent import SpentLedger

__all__ = ["monitor"]

_RESTARTED = (
    "this watch begins anew: the one before counted each input once, or looked after every row "
    "of a file, and could be wrong more often than it said. If it gave an alarm, get a new "
    "certificate all the same"
)


def monitor(
    data: Annotated[Path, typer.Argument(help="Newly labeled examples.")],
    certificate: Annotated[Path, typer.Option(help="The certificate to watch.")],
    bundle: Annotated[Path, typer.Option("--bundle", "-b", help="The bundle it is for.")],
    adapter: Annotated[
        Path | None,
        typer.Option(help="The certified adapter; by default beside the certificate."),
    ] = None,
    alpha: Annotated[
        float, typer.Option(help="Probability of a false alarm, however long you watch.")
    ] = 0.05,
    id_column: Annotated[
        str | None,
        typer.Option(
            help="Column that tells observations apart: each counts once, however often it is "
            "given."
        ),
    ] = None,
    rows_are_new: Annotated[
        bool,
        typer.Option(
            "--rows-are-new",
            help="Every row is a new observation, also where an input came up before.",
        ),
    ] = False,
    outside_counts: Annotated[
        bool,
        typer.Option(
            "--outside-counts",
            help="Rows with no label of the task, or an input that cannot be read, count as "
            "errors, however many there are: they are no mistake of the file.",
        ),
    ] = False,
    in_order: Annotated[
        bool,
        typer.Option(
            "--in-order",
            help="The rows came one after the other as they stand, so that each is a look. "
            "Without it all of them together are one, however the file is sorted.",
        ),
    ] = False,
    key: Key = None,
    state: State = None,
    base_model: Base = None,
    device: Device = "auto",
    input_column: InputColumn = "input",
    label_column: LabelColumn = "label",
    as_json: Annotated[bool, typer.Option("--json", help="Print the state as JSON.")] = False,
) -> None:
    """Count newly labeled examples: the bound now, or an alarm, with which it exits with 1.

    The bound is valid whenever you look, from the certificate's own counts on. The record of
    all spot checks is signed and written beside the certificate, as spot-checks.json.

    Label examples regardless of what the adapter predicted for them. Each observation counts
    once, and is spent then: it cannot certify any more. An input that comes up again is another
    observation: say so, or name a column of ids. Call this as often as you like.
    """
    from fedcert.bundles import Bundle
    from fedcert.certificates import Certificate
    from fedcert.certificates.spot_checks import living_bound, record_spot_checks
    from fedcert.devices import describe_device, resolve_device
    from fedcert.protocol.spent import SpentLedger
    from fedcert.protocol.watching import watch_examples
    from fedcert.search import exported_wrong
    from fedcert.verification import verify

    record, loaded = Certificate.read(certificate), Bundle.load(bundle)
    folder = adapter or certificate.parent / "adapter"
    report = verify(record, bundle=loaded, adapter=folder)
    if not report.passed:
        show(record, report, as_json=as_json)
        raise CertificateError(
            f"this certificate does not hold to begin with: {report.reasons}"
        )
    examples = _read(
        partial(
            read_labeled,
            data,
            loaded,
            input_column,
            label_column,
            labels=record.labels,
            beside=id_column,
        ),
        outside_counts=outside_counts,
    )
    ids = None if id_column is None else _ids(data, id_column)
    file = key_path(key)
    signer = _signer(file, record)
    place = resolve_device(device)
    base = loaded.load_base(base_name(bundle, base_model), device=place)
    task = loaded.task(base, labels=record.label_set)

    def wrong(chosen: Examples) -> npt.NDArray[np.bool_]:
        return exported_wrong(
            task,
            folder,
            chosen,
            margin_tolerance=record.recipe.margin_tolerance,
        )

    ledger = SpentLedger(state or state_of(file))
    signed = certificate.parent / "spot-checks.json"
    _refuse_another_watch(signed, record, ledger)
    found = watch_examples(
        record,
        examples,
        ledger=ledger,
        alpha=alpha,
        count_wrong=wrong,
        ids=ids,
        rows_are_new=rows_are_new,
        in_order=in_order,
    )
    watch = found.watch
    bound = living_bound(record, watch)
    if signer is not None:
        record_spot_checks(record, watch, key=signer).write(signed)
    if as_json:
        told = {"counted": found.counted, "seen": found.seen, "restarted": found.restarted}
        now = {"alarm": watch.alarmed, "bound_now": None if watch.alarmed else bound}
        typer.echo(json.dumps(watch.to_object() | told | now))
        raise typer.Exit(1 if watch.alarmed else 0)
    say(f"counted {found.counted} new examples; {watch.errors} errors on {watch.trials}")
    say(f"device: {describe_device(place)}")
    if found.seen:
        say(f"left out: {found.seen} that were counted before, by their ids")
    if found.restarted:
        say(_RESTARTED, wrap=True)
    _say_what_holds(record, watch, bound)
    if signer is None:
        say(f"not signed: {file} is not the key that signed the certificate", wrap=True)
    else:
        say(f"signed record: {signed}")
    raise typer.Exit(1 if watch.alarmed else 0)


def _read(read: Callable[..., Examples], *, outside_counts: bool) -> Examples:
    """Read spot checks; what looks like a mistake of the file is refused with a way in.

    Files that are left out for the errors in them would leave a sample of the others.
    """
    try:
        return read(strict=not outside_counts)
    except DataError as error:
        try:
            read(strict=False)
        except DataError:
            raise error from None  # it is a mistake whatever is stated
        raise DataError(
            f"{error}. Mend the file if this is a mistake. If it is none, give it again with "
            "--outside-counts, by which each of these rows counts as an error: without them "
            "the others are no sample of what the model meets"
        ) from error


def _say_what_holds(record: Certificate, watch: RiskWatch, bound: float) -> None:
    """Say what the bound is now, or that there is none any more."""
    claim = decimal_up(watch.bound, 4)
    if watch.alarmed:
        say(
            f"ALARM at example {watch.alarm_at}: a risk of at most {claim} is no longer "
            f"tenable (false alarms: at most {watch.alpha:g}, ever)",
            style="red",
        )
        return
    say(f"no evidence against a risk of at most {claim}")
    say(
        f"the bound is now {decimal_up(bound, 4)}, whenever you look (false at any time: at "
        f"most {record.recipe.delta:g}, beside the {record.delta:g} of the certificate)",
        wrap=True,
    )


def _refuse_another_watch(signed: Path, record: Certificate, ledger: SpentLedger) -> None:
    """Refuse to write over spot checks that this ledger does not know, or over an alarm."""
    from fedcert.certificates.spot_checks import SpotChecks
    from fedcert.protocol.watching import watch_left_behind, watch_so_far

    if not signed.is_file():
        return
    before, current = SpotChecks.read(signed), watch_so_far(record, ledger=ledger)
    known = current or watch_left_behind(record, ledger=ledger)
    outcomes = (known and known.outcomes) or ""
    if before.certificate == record.digest and not outcomes.startswith(
        before.watch.outcomes or ""
    ):
        raise ProtocolError(
            f"{signed} has {before.watch.trials} spot checks of this certificate, which the "
            "state folder does not know: a watch that began anew would leave them out. Name "
            "the state folder that counted them (--state, or its --key)"
        )
    if before.certificate == record.digest and before.watch.alarmed and current is None:
        raise ProtocolError(
            f"{signed} has an ALARM of a watch that would begin anew now; an alarm does not go "
            "away: get a new certificate"
        )


def _signer(file: Path, record: Certificate) -> Ed25519PrivateKey | None:
    """Return the key that signed the certificate, if the file holds it."""
    from fedcert.records.signing import public_hex, read_key

    key = read_key(file) if file.exists() else None
    same = key is not None and public_hex(key) == record.signature.public_key
    return key if same else None


def _ids(data: Path, column: str) -> list[str]:
    """Return what tells observations apart; a row without it could be any."""
    from fedcert.data.cells import missing_cells, words
    from fedcert.data.tables import read_columns

    table = read_columns(str(data), [column])
    missing = missing_cells(table[column])
    if missing.any():
        raise DataError(
            f"{data}: the column {column!r} is empty in {missing.sum()} of {len(missing)} rows "
            f"({table.where(int(missing.argmax()))}, for instance), which tells nobody whether "
            "they were counted before; give each row an id, and take none out"
        )
    with table.located():
        return [str(value) for value in words(table[column])]
