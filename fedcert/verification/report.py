"""One verification for every door: what was checked, and what was not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fedcert.certificates import (
    Certificate,
    Check,
    ExitOutcome,
    Unchecked,
    VerificationReport,
    verify_record,
)
from fedcert.data.examples import Examples
from fedcert.errors import SettingsError
from fedcert.protocol.commitment import Opening
from fedcert.protocol.log import Entry
from fedcert.protocol.witness import (
    Countersignature,
    check_log,
    check_opening,
    check_server,
    check_witness,
)

if TYPE_CHECKING:
    from fedcert.bundles import Bundle
    from fedcert.models.base import BaseModel
    from fedcert.personalization.points import CertifiedPoint

__all__ = ["verify"]


def verify(
    certificate: Certificate | str | Path,
    *,
    bundle: Bundle | None = None,
    adapter: Path | None = None,
    data: Examples | None = None,
    base: BaseModel | None = None,
    early: CertifiedPoint | None = None,
    opening: Opening | None = None,
    public_key: str | None = None,
    server_key: str | None = None,
    witness: Countersignature | None = None,
    log: Sequence[Entry] | None = None,
    unlabeled: Examples | None = None,
) -> VerificationReport:
    """Check all of a certificate that the things at hand can show.

    Parameters
    ----------
    certificate : Certificate, str or Path
        As read, or its file.
    bundle : Bundle, optional
        What it is for.
    adapter : Path, optional
        The adapter folder; needs `bundle`.
    data : Examples, optional
        The support set, in any order; needs `bundle` and `adapter`.
    base : BaseModel, optional
        The bundle's base model; with `data` it is loaded as the bundle says by default.
        With bundle and adapter it counts the errors on the bundle's reference sample.
    early : CertifiedPoint, optional
        The operating point of an early exit that the certificate promises, which is verified
        as well, and the exit counted again; needs `data`.
    opening : Opening, optional
        The client's salts; needs `data`.
    public_key, server_key : str, optional
        The signer and the server that one expects, 64 hexadecimal digits.
    witness : Countersignature, optional
        The server's countersignature.
    log : sequence of Entry, optional
        The server's log, as `fedcert.protocol.log.read_log` gives it.
    unlabeled : Examples, optional
        The inputs without labels that the certificate names, in any order; needs `data`.

    Returns
    -------
    VerificationReport
        Its `unchecked` names everything that was left open. With another federation's bundle
        nothing is checked against adapter and data, which would mean nothing.

    Raises
    ------
    SettingsError
        If something was given without what it needs.
    """
    certificate = _read(certificate)
    _refuse_incomplete(
        adapter, bundle, data, {"unlabeled": unlabeled, "opening": opening, "early": early}
    )
    if unlabeled is not None and not _reads_inputs(certificate, early):
        raise SettingsError(
            "the certificate names no inputs without labels: none had a part in the adapter"
        )
    report = verify_record(certificate, public_key=public_key)
    fits = bundle is not None
    if bundle is not None:
        # They need a model library, and a record alone does not.
        from fedcert.verification.checks import check_adapter, check_bundle
        from fedcert.verification.data import check_data
        from fedcert.verification.reference import check_public

        found = check_bundle(certificate, bundle)
        report = report.extended(found)
        fits = found[0].passed
        # Another federation's adapters have other coordinates: this says so.
        if adapter is not None:
            report = report.extended(check_adapter(certificate, bundle, adapter))
        if adapter is not None and data is None and base is not None and report.passed:
            report = report.extended(check_public(certificate, bundle, adapter, base))
        if data is not None and adapter is not None and fits:
            model = base or bundle.load_base()
            again = check_data(
                certificate, bundle, model, adapter, data, early, unlabeled=unlabeled
            )
            report = report.extended(again.checks).left_open(*again.unchecked)
            if early is not None:
                beside = _early(early, data, unlabeled)
                report = report.extended(beside.checks).left_open(*beside.unchecked)
    if opening is not None and data is not None:
        report = report.extended([check_opening(certificate, opening, data)])
    if server_key is not None:
        report = report.extended([check_server(certificate, server_key)])
    if witness is not None:
        report = report.extended([check_witness(certificate, witness)])
    if log is not None:
        report = report.extended(check_log(certificate, log, witness))
    unchecked = (
        *_about_the_choice(
            certificate, bundle, adapter, data if fits else None, counted=base is not None
        ),
        *_about_the_base(bundle, adapter if data is None else None),
        *_about_unlabeled(certificate, unlabeled if fits else None, data is not None and fits),
        *_about_early_exits(certificate, early if data is not None and fits else None),
        *_about_people(certificate, bundle, public_key, server_key),
        *_about_the_server(certificate, opening if data is not None else None, witness, log),
    )
    return VerificationReport(report.checks, (*report.unchecked, *unchecked))


def _refuse_incomplete(
    adapter: Path | None,
    bundle: Bundle | None,
    data: Examples | None,
    beside: Mapping[str, object],
) -> None:
    """Raise `SettingsError` for what shows nothing without something else."""
    if (adapter is not None and bundle is None) or (
        data is not None and (bundle is None or adapter is None)
    ):
        raise SettingsError("an adapter needs the bundle, and data need the bundle and adapter")
    alone = [name for name, given in beside.items() if given is not None and data is None]
    if alone:
        raise SettingsError(f"{' and '.join(alone)} show nothing without the data")


def _read(certificate: Certificate | str | Path) -> Certificate:
    if isinstance(certificate, Certificate):
        return certificate
    return Certificate.read(Path(certificate))


def _reads_inputs(certificate: Certificate, early: CertifiedPoint | None) -> bool:
    named = [certificate] if early is None else [certificate, early.certificate]
    return any(each.unlabeled is not None for each in named)


def _early(
    early: CertifiedPoint, data: Examples, unlabeled: Examples | None
) -> VerificationReport:
    """Verify the operating point of an early exit like any other certificate."""
    found = verify(
        early.certificate,
        bundle=early.bundle,
        adapter=early.adapter,
        data=data,
        base=early.base,
        unlabeled=None if early.certificate.unlabeled is None else unlabeled,
    )
    detail = f"the certificate at the operating point {early.name!r} verifies as well"
    check = Check("early point", found.passed, found.reasons or detail)
    left = (
        replace(item, name=f"early {item.name}", detail=f"at {early.name!r}, {item.detail}")
        for item in found.unchecked
        if item.name in {"unlabeled", "refinement", "choice", "first stage", "threshold"}
    )
    return VerificationReport((check,), tuple(left))


def _about_the_choice(
    certificate: Certificate,
    bundle: Bundle | None,
    adapter: Path | None,
    data: Examples | None,
    *,
    counted: bool,
) -> Iterator[Unchecked]:
    recipe = certificate.recipe
    if bundle is None:
        drawn = "" if recipe.refines else " and the adapter is one of the candidates"
        yield Unchecked(
            "bundle",
            f"whether recipe and seed are the federation's{drawn}",
            "--bundle",
        )
    if adapter is None:
        yield Unchecked(
            "adapter", "whether an adapter folder holds the certified adapter", "--adapter"
        )
    public = any(promise.public for promise in recipe.promises)
    if public and data is None and (adapter is None or not counted):
        yield Unchecked(
            "reference",
            "whether the errors on the bundle's reference sample were counted right",
            "--bundle, --adapter",
        )
    if data is not None:
        return
    yield Unchecked("data", "whether the errors were counted right", "--data")
    if recipe.refines:
        yield Unchecked(
            "refinement",
            "whether the adapter was made from the choosing examples alone: it is no "
            "candidate, and could have been tuned on those that certify it",
            "--data",
        )
    elif recipe.has_first_stage:
        yield Unchecked(
            "first stage",
            "whether the candidates' errors on the choosing examples, from which the weights "
            "follow, are as the certificate says",
            "--data",
        )
    elif not recipe.pays_for_choosing(certificate.support_size):
        yield Unchecked(
            "choice",
            "whether the certifying examples had no part in choosing the candidate",
            "--data",
        )


def _about_the_base(bundle: Bundle | None, adapter: Path | None) -> Iterator[Unchecked]:
    """Say what of an adapter folder the base model alone can show."""
    if bundle is None or adapter is None:
        return
    from fedcert.adapters.classifier_file import CLASSIFIER_FILE, read_classifier
    from fedcert.adapters.head_file import HEAD_FILE, read_head

    about, head = read_classifier(adapter), read_head(adapter)
    if about is None:
        yield Unchecked(
            "adapter folder",
            f"how inputs become those of the certified predictor: {adapter} has no "
            f"{CLASSIFIER_FILE}",
            "an adapter folder of this version of fedcert",
        )
    said = []
    if head is not None and head.scale is not None:
        said.append(f"the scale in {HEAD_FILE} ({head.scale:g}) is the base model's")
    if head is not None and head.label_embeddings is not None:
        said.append(f"the label embeddings in {HEAD_FILE} are those that it gives the labels")
    if said:
        yield Unchecked(
            "head",
            f"that {', and that '.join(said)}: a predictor of one's own that reads other ones "
            "gives other labels",
            "--base-model, with --data",
        )
    if about is not None and about.base_digest != bundle.base_digest:
        yield Unchecked(
            "base-model",
            f"whether the base model that {CLASSIFIER_FILE} names ({about.base_digest[:12]}) "
            f"is the bundle's ({bundle.base_digest[:12]})",
            "--base-model, with --data",
        )


def _about_unlabeled(
    certificate: Certificate, unlabeled: Examples | None, has_data: bool
) -> Iterator[Unchecked]:
    """Say what stays open without them; that the adapter does without data is said there."""
    known = certificate.unlabeled
    if known is not None and unlabeled is None:
        made = "the adapter was made from them and the choosing examples alone, and whether "
        yield Unchecked(
            "unlabeled",
            f"whether {made if has_data else ''}none of the {known.count} inputs without "
            "labels is among the examples",
            "--unlabeled, with --data",
        )


def _about_early_exits(
    certificate: Certificate, early: CertifiedPoint | None
) -> Iterator[Unchecked]:
    said = (each for each in certificate.promises or () if isinstance(each, ExitOutcome))
    if early is None and any(outcome.early is not None for outcome in said):
        yield Unchecked(
            "early",
            "whether the errors with early exits, and the examples that go on, were counted "
            "right",
            "--early and --early-bundle, with --data",
        )


def _about_people(
    certificate: Certificate, bundle: Bundle | None, signer: str | None, server: str | None
) -> Iterator[Unchecked]:
    if signer is None:
        yield Unchecked(
            "public-key",
            f"whether the signer is who you expect: {certificate.signature.public_key}",
            "--public-key",
        )
    receipt = certificate.protocol
    if receipt is None or server is not None:
        return
    if bundle is None or bundle.server is None:
        yield Unchecked(
            "server-key",
            f"whether this is a server that you trust: {receipt.server}; anybody can run one, "
            "and try seeds on it",
            "--server-key",
        )


def _about_the_server(
    certificate: Certificate,
    opening: Opening | None,
    witness: Countersignature | None,
    log: Sequence[Entry] | None,
) -> Iterator[Unchecked]:
    receipt = certificate.protocol
    if receipt is None:
        yield Unchecked(
            "attempts",
            "whether seeds or examples were tried several times: no server took part",
            None,
        )
        return
    if opening is None:
        yield Unchecked(
            "opening",
            "whether the examples are those that were committed to before the seed was drawn",
            "--opening, with --data",
        )
    if witness is None:
        yield Unchecked(
            "witness",
            "whether the server countersigned it as the one certificate of its attempt",
            "--witness",
        )
    if log is None:
        yield Unchecked(
            "log",
            f"whether this was attempt {receipt.attempt} of the client, and the server kept to "
            "the rules",
            "--log",
        )
    elif not _is_closed(log, certificate.digests.bundle):
        yield Unchecked(
            "seeds",
            "whether the server chose the seed: the bundle is still open, and its seeds cannot "
            "be computed again before its nonce is in the log",
            "--log, after the server has closed the bundle",
        )


def _is_closed(log: Sequence[Entry], bundle: str) -> bool:
    return any(entry.kind == "closed" and entry.body.get("bundle") == bundle for entry in log)
