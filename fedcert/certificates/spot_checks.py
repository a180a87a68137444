"""The signed record of a watch: what was counted since, the bound now, and whether it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcert import __version__
from fedcert.certificates.bounds import confidence
from fedcert.certificates.living import start_of
from fedcert.certificates.monitoring import RiskWatch
from fedcert.certificates.record import Certificate
from fedcert.certificates.verification import Check, Unchecked
from fedcert.records import Digest, SignatureText, Signed
from fedcert.records.signing import public_hex

__all__ = [
    "SpotChecks",
    "check_spot_checks",
    "left_open",
    "living_bound",
    "record_spot_checks",
]


@dataclass(frozen=True, kw_only=True)
class SpotChecks(Signed):
    """All spot checks of one certified adapter, and what follows from them.

    Parameters
    ----------
    certificate : str
        Digest of the certificate.
    watch : RiskWatch
        The outcomes, and the test of the certificate's claim.
    bound : float
        The lowest of the bounds from the start until now, a multiple of 1e-6.
    statement : str
        Both in plain words.
    library : str
        The software that wrote it, with its version.
    public_key : str
        The certificate's signer, 64 hexadecimal digits.
    signature : str
        The signer's, over the `payload`.
    """

    what = "record of spot checks"
    format = "fedcert.spot-checks/1"

    certificate: Digest
    watch: RiskWatch
    bound: float
    statement: str
    library: str
    public_key: Digest
    signature: SignatureText


def living_bound(certificate: Certificate, watch: RiskWatch) -> float:
    """Return the lowest bound since the certificate was issued.

    Parameters
    ----------
    certificate : Certificate
        Its counts are the start.
    watch : RiskWatch
        Where the outcomes are known, and which of them somebody looked after, all of these are
        looks.

    Returns
    -------
    float
        A multiple of 1e-6. All bounds of one watch together are false with probability at
        most the certificate's delta.
    """
    return float(start_of(certificate).bounds(*watch.counts()).min())


def record_spot_checks(
    certificate: Certificate, watch: RiskWatch, *, key: Ed25519PrivateKey
) -> SpotChecks:
    """Compute the bound, word it, and sign it.

    Parameters
    ----------
    certificate : Certificate
        The certificate.
    watch : RiskWatch
        What was counted since.
    key : Ed25519PrivateKey
        The certificate's signer's.

    Returns
    -------
    SpotChecks
        One that `check_spot_checks` accepts beside this certificate.
    """
    bound = living_bound(certificate, watch)
    return SpotChecks(
        certificate=certificate.digest,
        watch=watch,
        bound=bound,
        statement=_statement(certificate, watch, bound),
        library=f"fedcert {__version__}",
        public_key=public_hex(key),
        signature="",
    ).signed(key)


def check_spot_checks(certificate: Certificate, record: SpotChecks) -> tuple[Check, ...]:
    """Compute a record of spot checks again; it never raises for a bad one.

    Parameters
    ----------
    certificate : Certificate
        One that verifies.
    record : SpotChecks
        As read.
    """
    signer = certificate.signature.public_key
    ours = (
        record.certificate == certificate.digest
        and record.public_key == signer
        and record.is_signed_by(signer)
    )
    if not ours:
        detail = "the spot checks are of another certificate, or not signed by its signer"
        return (Check("spot checks", False, detail),)
    return (
        Check("spot checks", True, f"signed by {signer}"),
        _counted_again(certificate, record.watch),
        _bound_again(certificate, record),
    )


def left_open(record: SpotChecks) -> Iterator[Unchecked]:
    """Yield what no check of a record of spot checks can show.

    Parameters
    ----------
    record : SpotChecks
        As read.

    Yields
    ------
    Unchecked
        That outcomes and looks are the signer's word; that an alarm may have been left out,
        where the order of the first ones was not kept.
    """
    yield Unchecked(
        "spot checks",
        "whether these were all spot checks since the certificate, drawn independently, "
        "labeled regardless of the prediction, and counted right, and whether somebody looked "
        "after those that are marked as looks and after no other: outcomes, their order, and "
        "their marks are the signer's word",
        None,
    )
    if before := record.watch.trials - len(record.watch.outcomes or ""):
        yield Unchecked(
            "order of spot checks",
            f"whether there was an alarm among the first {before} spot checks, whose order the "
            "record does not have",
            None,
        )


def _counted_again(certificate: Certificate, watch: RiskWatch) -> Check:
    """Play the outcomes again, if they are all there."""
    kept = watch.outcomes or ""
    before = watch.trials - len(kept)
    if before == 0:
        again = replace(watch, bound=certificate.bound).again()
    else:  # it began before outcomes were kept: of the first ones nothing but counts is known
        again = replace(watch, bound=certificate.bound)
    same = replace(again, peak=watch.peak) == watch and not _hides_an_alarm(watch)
    unknown = f"; the order of the first {before} was not kept" if before else ""
    detail = (
        f"{watch.errors} errors on {watch.trials}{unknown}"
        if same
        else "the outcomes do not give the counts and the alarm that the record states"
    )
    return Check("drift test", same, detail)


def _hides_an_alarm(watch: RiskWatch) -> bool:
    """Whether counts that are known give an alarm, and none is stated."""
    counts = zip(*(each.tolist() for each in watch.counts()), strict=True)
    return not watch.alarmed and any(
        replace(watch, errors=errors, trials=trials, outcomes=None).untenable
        for errors, trials in counts
    )


def _bound_again(certificate: Certificate, record: SpotChecks) -> Check:
    bound = living_bound(certificate, record.watch)
    if record.bound != bound:
        detail = f"the spot checks give {bound:.6f}, but the record says {record.bound!r}"
        return Check("living bound", False, detail)
    worded = (_statement(certificate, record.watch, bound, written=w) for w in _WRITTEN)
    if record.statement not in worded:
        detail = "its statement does not say what the numbers say"
        return Check("living bound", False, detail)
    if record.watch.alarmed:
        detail = (
            f"the test gave an ALARM at spot check {record.watch.alarm_at}: neither the claim "
            "of the certificate nor a bound from the same evidence is tenable any more"
        )
        return Check("living bound", False, detail)
    return Check("living bound", True, f"the bound is {bound:.6f} now")


def _in_full(level: float) -> str:
    return f"{Decimal(str(level)):f}"


def _in_short(level: float) -> str:
    return f"{level:g}"


# How a statement writes delta and alpha; the second is that of records from before.
_WRITTEN = (_in_full, _in_short)


def _statement(
    certificate: Certificate,
    watch: RiskWatch,
    bound: float,
    *,
    written: Callable[[float], str] = _in_full,
) -> str:
    """Say what the bound is now, and whether the claim is still tenable."""
    delta, claim = start_of(certificate).delta, f"{certificate.bound:.6f}"
    half, alpha = written(delta / 2), written(watch.alpha)
    tested = (
        f"A test of its own, which raises a false alarm with probability at most "
        f"{alpha}, ever, asks whether every prediction, given all before it, is wrong "
        f"with probability at most {claim}, the bound of the certificate."
    )
    if watch.alarmed:
        return (
            f"{tested} At spot check {watch.alarm_at} it gave the alarm: neither this claim "
            f"nor a bound from the same evidence is tenable any more. What the adapter meets "
            f"has changed, or the certificate was one of those that are false."
        )
    return (
        f"With probability at least {confidence(delta)} over the draw of the support set, of "
        f"the seed, and of all spot checks, this adapter's probability of a wrong label on a "
        f"fresh example is at most {bound:.6f}, and no bound that its spot checks give at any "
        f"time is false. It rests on {certificate.errors} errors on the "
        f"{certificate.certified_on} certifying examples and {watch.errors} on {watch.trials} "
        f"spot checks. It is a statement beside the certificate's, with a delta of its own: "
        f"{half} for a bound from the certifying examples alone and {half} for "
        f"all looks after it. It takes for granted what the certificate does, and that the "
        f"spot checks are drawn independently from the same distribution, labeled regardless "
        f"of the prediction, and counted once each. {tested} So far it gave none."
    )
