"""Handing a certificate back without Flower: one file from the device to the operator.

A submission is a certificate under the signature of whoever hands it in, so that the server
can tell a client's own certificate from one that somebody else found. It holds nothing that
the certificate does not say: no example, no salt, no key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcert.bundles import Bundle
from fedcert.certificates import Certificate, verify_record
from fedcert.errors import ProtocolError
from fedcert.protocol.authority import SeedAuthority
from fedcert.protocol.witness import Countersignature
from fedcert.records import Digest, SignatureText, Signed
from fedcert.records.signing import public_hex
from fedcert.verification import verify

__all__ = ["FORMAT", "Filed", "Submission", "accept"]

FORMAT = "fedcert.submission/1"
"""Name and version of the JSON form."""


@dataclass(frozen=True, kw_only=True)
class Submission(Signed):
    """A certificate, as its client hands it in.

    Parameters
    ----------
    client : str
        Who hands it in.
    public_key : str
        The client's key, 64 hexadecimal digits.
    certificate : Certificate
        What is handed in.
    signature : str
        The client's, over all the rest.
    """

    what = "submission"
    format = FORMAT

    client: str
    public_key: Digest
    certificate: Certificate
    signature: SignatureText

    @staticmethod
    def make(certificate: Certificate, key: Ed25519PrivateKey) -> Submission:
        """Sign for one's own certificate.

        Raises
        ------
        CertificateError
            If it does not verify.
        ProtocolError
            If it is somebody else's, or no server issued its seed.
        """
        verify_record(certificate).require()
        if certificate.signature.public_key != public_hex(key):
            raise ProtocolError(
                f"the certificate of {certificate.client!r} was signed with another key than "
                "yours: hand in your own"
            )
        if certificate.protocol is None:
            raise ProtocolError(
                "no server issued this certificate's seed, so no server can countersign it; "
                "for a witnessed one run `fedcert commit` first"
            )
        return Submission(
            client=certificate.client,
            public_key=public_hex(key),
            certificate=certificate,
            signature="",
        ).signed(key)

    def validate(self, path: str) -> None:
        """Raise `ProtocolError` if it was changed, or is another client's certificate."""
        if not self.is_signed_by(self.public_key):
            raise ProtocolError(
                f"the {path} of {self.client!r} was changed after signing, or not signed by "
                f"{self.public_key}"
            )
        certified = self.certificate.client, self.certificate.signature.public_key
        if certified != (self.client, self.public_key):
            raise ProtocolError(
                f"{self.client!r} handed in the certificate of {certified[0]!r} "
                f"(key {certified[1][:12]})"
            )


@dataclass(frozen=True)
class Filed:
    """A certificate that a server has accepted.

    Attributes
    ----------
    certificate, witness : Path
        The files that the server keeps.
    countersignature : Countersignature
        The same as in the second file, for the client.
    repeated : bool
        Whether it had been accepted before: nothing was logged this time.
    """

    certificate: Path
    witness: Path
    countersignature: Countersignature
    repeated: bool


def accept(
    submission: Submission,
    authority: SeedAuthority,
    bundles: Mapping[str, Bundle],
    folder: Path,
) -> Filed:
    """Verify a submission, log and countersign its certificate, and file both.

    A repeated submission gives the same countersignature, and is logged once: an answer
    may get lost. Files are named by the certificate's digest, never by the client.

    Parameters
    ----------
    submission : Submission
        As `Submission.read` gives it.
    authority : SeedAuthority
        The server.
    bundles : Mapping[str, Bundle]
        The published bundles at hand, by digest.
    folder : Path
        Gets ``certificates/`` and ``witnesses/``.

    Returns
    -------
    Filed
        Where the files are, and the countersignature.

    Raises
    ------
    CertificateError
        If the certificate does not follow from its counts or its bundle.
    ProtocolError
        If the client has another key here, the bundle was never published, the seed was
        not issued for this, or the attempt has another certificate.
    """
    certificate, history = submission.certificate, authority.history
    enrolled = history.keys.get(submission.client)
    if enrolled != submission.public_key:
        known = "not enrolled" if enrolled is None else "enrolled with another key"
        raise ProtocolError(f"the client {submission.client!r} is {known} here")
    named = certificate.digests.bundle
    if named not in history.bundles:
        raise ProtocolError(
            f"the certificate is for the bundle {named[:12]}, which this server never published"
        )
    if named not in bundles:
        raise ProtocolError(
            f"the certificate is for the bundle {named[:12]}, which is not among those at "
            "hand; give it with --bundle"
        )
    verify(certificate, bundle=bundles[named]).require()
    logged = {attempt.certificate for attempt in history.attempts_of(submission.client)}
    repeated = certificate.digest in logged
    countersignature = authority.countersign(certificate)
    name = f"{certificate.digest}.json"
    filed = Filed(
        folder / "certificates" / name, folder / "witnesses" / name, countersignature, repeated
    )
    # Logged first: of a crash in between, the same submission makes good what is missing.
    certificate.write(filed.certificate)
    countersignature.write(filed.witness)
    return filed
