"""Faults of certificates that are handed in: each must be a client's own, and its only one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from faults.device_rig import (
    Parties,
    fedcert,
    make_examples,
    signed_anew,
    write_csv,
)
from faults.fault import Fault, Outcome
from fedcert.bundles import Bundle
from fedcert.certificates import Certificate
from fedcert.errors import FedcertError
from fedcert.protocol.authority import SeedAuthority
from fedcert.records.signing import generate_key, public_hex
from fedcert.verification.submissions import Submission, accept

__all__ = ["SUBMISSION_FAULTS"]

_Given = Callable[[Parties], Submission]


def _handed_in(*make: _Given) -> Callable[[Path], Outcome]:
    """Certify, hand things in one after the other, and see what the server makes of each."""

    def inject(folder: Path) -> Outcome:
        parties = Parties.make(folder)
        parties.certify()
        said = [_answer(parties, each(parties)) for each in make]
        filed = len(list((parties.server / "certificates").glob("*.json")))
        return Outcome(f"{'; then '.join(said)}; {filed} filed")

    return inject


def _answer(parties: Parties, given: Submission) -> str:
    """Send a submission as a file; return what the server answers, digests left out."""
    bundle, path = Bundle.load(parties.bundle), parties.folder / "submission.json"
    given.write(path)
    try:
        filed = accept(
            Submission.read(path),
            SeedAuthority(parties.server),
            {bundle.digest: bundle},
            parties.server,
        )
    except FedcertError as error:
        reason = re.sub(r"\(key [0-9a-f]+\)|[0-9a-f]{12,}|[\d.]+e[+-]\d+", "#", str(error))
        return f"refused: {re.sub('candidate [0-9]+', 'candidate N', reason)}"
    return "accepted before" if filed.repeated else "accepted"


def _own(parties: Parties) -> Submission:
    return Submission.make(Certificate.read(parties.certificate), parties.key())


def _signed_by_a_thief(parties: Parties) -> Submission:
    thief = generate_key()
    stolen = replace(_own(parties), client="thief", public_key=public_hex(thief))
    return stolen.signed(thief)


def _another_adapter(parties: Parties) -> Submission:
    """Claim the counts of the winner for the vector of another candidate."""
    own, bundle = Certificate.read(parties.certificate), Bundle.load(parties.bundle)
    other = bundle.prior.sample(own.candidate.seed, start=own.candidate.index + 1, count=1)[0]
    return Submission.make(signed_anew(own, parties.key(), vector=other), parties.key())


def _fewer_errors(parties: Parties) -> Submission:
    """Another certificate for the same seed."""
    own = Certificate.read(parties.certificate)
    changed = signed_anew(own, parties.key(), errors=own.errors + 1)
    return Submission.make(changed, parties.key())


def _with(**changes: str) -> _Given:
    """Change a certificate after it was signed, and sign the submission all the same."""

    def make(parties: Parties) -> Submission:
        own = _own(parties)
        certificate = own.certificate
        if "seed" in changes:
            candidate = replace(certificate.candidate, seed=changes["seed"])
            certificate = replace(certificate, candidate=candidate)
        else:
            digests = replace(certificate.digests, **changes)
            certificate = replace(certificate, digests=digests)
        changed = replace(own, certificate=certificate)
        return changed.signed(parties.key())

    return make


def _others_data(folder: Path) -> Outcome:
    """Verify a certificate on the examples of another device."""
    parties = Parties.make(folder)
    parties.certify()
    other = folder / "other.csv"
    write_csv(make_examples(seed=1), other)
    words = ("verify", parties.certificate, "--bundle", parties.bundle, "--data")
    if (own := fedcert(*words, parties.data)) is not None:
        return Outcome(f"does not verify on its own data either: {own}")
    return Outcome("does not verify" if fedcert(*words, other) else "verifies on other data")


SUBMISSION_FAULTS = (
    Fault(
        "another client's certificate",
        Outcome(
            "refused: 'thief' handed in the certificate of 'device' #; then accepted; 1 filed"
        ),
        _handed_in(_signed_by_a_thief, _own),
    ),
    Fault(
        "a certificate with a changed seed",
        Outcome(
            "refused: the certificate does not verify: the record was changed after signing, "
            "or not signed by #; the seed was not issued for this by the server #; 0 filed"
        ),
        _handed_in(_with(seed="00" * 32)),
    ),
    Fault(
        "a certificate of an unknown bundle",
        Outcome(
            "refused: the certificate is for the bundle #, which this server never published; "
            "0 filed"
        ),
        _handed_in(_with(bundle="00" * 32)),
    ),
    Fault(
        "a certificate with a swapped adapter",
        Outcome(
            "refused: the certificate does not verify: the adapter is not candidate N of the "
            "seed (difference #); 0 filed"
        ),
        _handed_in(_another_adapter),
    ),
    Fault("a certificate with swapped data", Outcome("does not verify"), _others_data),
    Fault(
        "a certificate that comes twice",
        Outcome("accepted; then accepted before; 1 filed"),
        _handed_in(_own, _own),
    ),
    Fault(
        "two certificates of one seed",
        Outcome(
            "accepted; then refused: attempt 1 of 'device' has another certificate already: "
            "one seed gives one certificate; 1 filed"
        ),
        _handed_in(_own, _fewer_errors),
    ),
)
