"""The server's part for new clients: commitments, seeds, and certificates."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from flwr.app import MetricRecord

from fedcert.bundles import Bundle
from fedcert.certificates import Certificate
from fedcert.errors import CertificateError, ProtocolError
from fedcert.messages import (
    CERTIFY,
    COMMIT,
    CertifyReply,
    CertifyRequest,
    CommitReply,
    CommitRequest,
)
from fedcert.protocol.authority import SeedAuthority
from fedcert.protocol.commitment import Commitment
from fedcert.protocol.witness import Countersignature
from fedcert.runs.events import Events
from fedcert.strategies.correspondence import Request
from fedcert.strategies.publishing import Publisher
from fedcert.verification import verify

__all__ = ["Certification"]


class Certification:
    """Takes commitments to one bundle, issues their seeds, and checks the certificates.

    Parameters
    ----------
    authority : SeedAuthority
        Issues the seeds, and keeps the log of them.
    events : Events
        Told about seeds and certificates.
    publisher : Publisher, optional
        Keeps the certificates.

    Attributes
    ----------
    certificates : dict
        Verified certificates by client id.
    witnesses : dict
        Countersignatures of the certificates, likewise.
    """

    def __init__(
        self, authority: SeedAuthority, events: Events, publisher: Publisher | None = None
    ) -> None:
        self._authority, self._events, self._publisher = authority, events, publisher
        self._commitments: dict[str, Commitment] = {}
        self.certificates: dict[str, Certificate] = {}
        self.witnesses: dict[str, Countersignature] = {}

    @staticmethod
    def request(bundle: Bundle, clients: list[str]) -> Request:
        """Return what asks clients to commit: the bundle."""
        payload = CommitRequest(bundle.manifest_bytes().decode())
        return Request(COMMIT, clients, payload, bundle.tensors())

    def take_commitment(self, client: str, payload: Mapping[str, Any], bundle: Bundle) -> None:
        """Keep a client's commitment.

        Parameters
        ----------
        client : str
            Stable id of the client.
        payload : Mapping
            The reply's JSON object.
        bundle : Bundle
            The bundle that was sent.

        Raises
        ------
        ProtocolError
            If it is forged, another client's, or for another bundle.
        """
        commitment = Commitment.from_object(CommitReply.from_object(payload).commitment)
        if commitment.client != client:
            raise ProtocolError(f"it sent the commitment of {commitment.client!r}")
        if commitment.bundle != bundle.digest:
            raise ProtocolError("it committed to another bundle than the one that it got")
        self._commitments[client] = commitment

    def grant(self, client: str) -> Request:
        """Return what sends a client the seed of its commitment; the attempt counts now.

        Raises
        ------
        ProtocolError
            If the commitment gets none.
        """
        grant = self._authority.issue(self._commitments[client])
        self._events.record(
            "seed-issued",
            client=client,
            attempt=grant.receipt.attempt,
            commitment=self._commitments[client].root,
        )
        return Request(CERTIFY, [client], CertifyRequest(grant.to_object()), {})

    def take_certificate(self, client: str, payload: Mapping[str, Any], bundle: Bundle) -> None:
        """Verify a certificate, log it as the outcome of its attempt, and keep it.

        Parameters
        ----------
        client : str
            Stable id of the client.
        payload : Mapping
            The reply's JSON object.
        bundle : Bundle
            The bundle that was sent.

        Raises
        ------
        CertificateError
            If it does not verify, or is another client's.
        ProtocolError
            If its seed was not issued here, or has another certificate.
        """
        certificate = Certificate.from_json(str(CertifyReply.from_object(payload).certificate))
        report = verify(certificate, bundle=bundle)
        if certificate.client != client:
            raise CertificateError(f"it sent the certificate of {certificate.client!r}")
        if not report.passed:
            raise CertificateError(f"its certificate does not verify: {report.reasons}")
        witness = self._authority.countersign(certificate)
        self.witnesses[client], self.certificates[client] = witness, certificate
        if self._publisher is not None:
            self._publisher.file(certificate, witness)
        self._events.record(
            "certificate-filed",
            client=client,
            bound=certificate.bound,
            n=certificate.support_size,
        )

    def metrics(self) -> MetricRecord | None:
        """Return how many certificates there are, and their mean bound; None without any."""
        if not self.certificates:
            return None
        bounds = [certificate.bound for certificate in self.certificates.values()]
        mean = float(np.mean(bounds))
        return MetricRecord({"certificates": len(bounds), "mean-certificate": mean})

    def failed(self, client: str, cause: str) -> None:
        """Log how an attempt ended whose seed was issued."""
        if client in self._commitments:
            with suppress(ProtocolError):
                self._authority.abort(self._commitments[client].root, cause)
