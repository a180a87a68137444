"""The countersignature: a server's word that this is the one certificate of an attempt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcert.certificates import Certificate, Check
from fedcert.data.examples import Examples
from fedcert.errors import CertificateError, ProtocolError
from fedcert.protocol.commitment import Opening
from fedcert.protocol.history import Attempt, History
from fedcert.protocol.log import Entry
from fedcert.protocol.seeds import check_answers
from fedcert.records import Digest, SignatureText, Signed
from fedcert.records.signing import public_hex

__all__ = [
    "FORMAT",
    "Countersignature",
    "check_log",
    "check_opening",
    "check_server",
    "check_witness",
]

FORMAT = "fedcert.witness/1"
"""Name and version of the JSON form."""


@dataclass(frozen=True, kw_only=True)
class Countersignature(Signed):
    """What a server signs when it has logged a certificate.

    Parameters
    ----------
    certificate : str
        Digest of the certificate, its signature included.
    client, commitment, attempt, seed
        As in the certificate.
    position : int
        Number of the log entry that holds the certificate's digest.
    entry : str
        Digest of that entry, and so of the log up to there.
    server : str
        The server's public key.
    signature : str
        Over all the rest.
    """

    what = "countersignature"
    format = FORMAT

    certificate: Digest
    client: str
    commitment: Digest
    attempt: int
    seed: Digest
    position: int
    entry: Digest
    server: Digest
    signature: SignatureText

    @staticmethod
    def make(attempt: Attempt, entry: Entry, key: Ed25519PrivateKey) -> Countersignature:
        """Sign for an attempt whose certificate the log holds at `entry`.

        Parameters
        ----------
        attempt : Attempt
            The attempt, closed by a certificate.
        entry : Entry
            The log's entry for it.
        key : Ed25519PrivateKey
            The server's signing key.

        Returns
        -------
        Countersignature
            The server's statement, for whoever holds the certificate.
        """
        return Countersignature(
            certificate=str(attempt.certificate),
            client=attempt.commitment.client,
            commitment=attempt.commitment.root,
            attempt=attempt.number,
            seed=attempt.seed,
            position=entry.position,
            entry=entry.digest,
            server=public_hex(key),
            signature="",
        ).signed(key)


def check_server(certificate: Certificate, server: str) -> Check:
    """Check that a certificate's seed came from the server that one trusts."""
    receipt = certificate.protocol
    if receipt is None:
        return Check("server", False, "no server took part: the certificate is unwitnessed")
    same = receipt.server == server.lower()
    detail = (
        f"the expected server {receipt.server} issued the seed"
        if same
        else f"the seed was issued by {receipt.server}, not by {server}"
    )
    return Check("server", same, detail)


def check_witness(certificate: Certificate, witness: Countersignature) -> Check:
    """Check that a countersignature is genuine and speaks about this certificate."""
    receipt = certificate.protocol
    if receipt is None:
        return Check("countersignature", False, "the certificate is unwitnessed")
    stated = (witness.certificate, witness.client, witness.seed, witness.commitment)
    actual = (
        certificate.digest,
        certificate.client,
        certificate.candidate.seed,
        receipt.commitment,
    )
    if stated != actual or witness.attempt != receipt.attempt:
        return Check("countersignature", False, "it is for another certificate")
    if witness.server != receipt.server:
        return Check("countersignature", False, "another server signed it than issued the seed")
    if not witness.is_signed_by(witness.server):
        return Check("countersignature", False, f"the server {witness.server} did not sign it")
    return Check(
        "countersignature",
        True,
        f"the server logged it as the one certificate of attempt {witness.attempt}, at "
        f"position {witness.position}",
    )


def check_opening(certificate: Certificate, opening: Opening, examples: Examples) -> Check:
    """Check that the examples at hand are the ones that were committed to.

    It takes the salts, which only the client has: with them and the examples it can show a
    third party that none was dropped, added, or relabeled after the commitment.

    Parameters
    ----------
    certificate : Certificate
        A witnessed certificate.
    opening : Opening
        The client's commitment with its salts.
    examples : Examples
        The support set, in any order.

    Returns
    -------
    Check
        Whether they are the committed ones, and why not.
    """
    receipt = certificate.protocol
    if receipt is None or opening.commitment.root != receipt.commitment:
        return Check("opening", False, "it opens another commitment than the certificate's")
    try:
        check_answers(certificate.grant, opening.commitment)
        opening.check(examples)
    except (CertificateError, ProtocolError) as error:  # the first of an attempt that is none
        return Check("opening", False, str(error))
    if opening.unlabeled != certificate.unlabeled:
        detail = "the commitment was to other inputs without labels than the certificate's"
        return Check("opening", False, detail)
    return Check("opening", True, "these are the examples that were committed to")


def check_log(
    certificate: Certificate, entries: Sequence[Entry], witness: Countersignature | None = None
) -> list[Check]:
    """Check a certificate against the server's whole log; see `fedcert.protocol.log.read_log`.

    Parameters
    ----------
    certificate : Certificate
        A witnessed one.
    entries : sequence of Entry
        The log, its chain and signatures already checked.
    witness : Countersignature, optional
        Shows whether the log was cut short or rewritten.

    Returns
    -------
    list of Check
        One check for each thing that the log can show.
    """
    try:
        history = History.of(entries)
    except ProtocolError as error:
        return [Check("log", False, str(error))]
    still_open = sum(bundle.nonce is None for bundle in history.bundles.values())
    rules = f"{len(entries)} entries, and every one is by the rules"
    if still_open:
        rules += f"; seeds of {still_open} open bundles cannot be computed again yet"
    checks = [Check("log", True, rules)]
    receipt = certificate.protocol
    attempt = history.attempts.get(receipt.commitment) if receipt is not None else None
    if attempt is None or attempt.certificate != certificate.digest:
        return [*checks, Check("logged", False, "the log does not hold this certificate")]
    if problem := _unlike(certificate, attempt):
        return [*checks, Check("logged", False, f"the log holds another attempt: {problem}")]
    others = [a for a in history.attempts_of(certificate.client) if a is not attempt]
    checks.append(
        Check(
            "logged",
            True,
            f"attempt {attempt.number} of {1 + len(others)} of this client; of the others "
            f"{sum(a.certificate is not None for a in others)} ended in a certificate, "
            f"{sum(a.aborted is not None and a.certificate is None for a in others)} were "
            f"aborted, {sum(a.is_open for a in others)} are open",
        )
    )
    if witness is not None:
        there = witness.position < len(entries)
        same = there and entries[witness.position].digest == witness.entry
        if same and witness.position == attempt.position:
            detail = "the log still holds the entry that was countersigned"
        elif same:
            same, detail = False, f"entry {witness.position} is not that of this certificate"
        else:
            detail = (
                f"the log was rewritten or cut short: entry {witness.position} is not the one "
                "that was countersigned"
            )
        checks.append(Check("log entry", same, detail))
    return checks


def _unlike(certificate: Certificate, attempt: Attempt) -> str | None:
    """Say in what a certificate is not its logged attempt's, or return None.

    A server can sign seeds that its log has nothing of, each as a first attempt, and then log
    the digest of the certificate that it likes at an attempt which is by the rules.
    """
    grant = certificate.grant
    if grant.receipt.attempt != attempt.number:
        return f"number {attempt.number}, and the certificate says {grant.receipt.attempt}"
    if grant.seed != attempt.seed:
        return f"its seed is {attempt.seed[:12]}, and the certificate's is {grant.seed[:12]}"
    try:
        check_answers(grant, attempt.commitment)
    except (CertificateError, ProtocolError) as error:
        return str(error)
    return None
