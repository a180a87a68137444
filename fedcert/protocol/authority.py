"""The server's part: publish, take commitments, issue seeds, countersign."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcert.atomic import write_atomically
from fedcert.certificates import Certificate, RecipeTable, check_client, verify_record
from fedcert.errors import ProtocolError
from fedcert.protocol.commitment import Commitment
from fedcert.protocol.history import Attempt, History
from fedcert.protocol.log import Entry, ServerLog
from fedcert.protocol.seeds import SeedGrant, hash_of_nonce
from fedcert.protocol.witness import Countersignature
from fedcert.randomness import derive_seed
from fedcert.records.signing import key_from_seed, public_hex, read_or_create_key

__all__ = ["SeedAuthority"]

_LOG, _KEY, _NONCES = "log.jsonl", "server.key", "nonces"
_LONGEST_REASON = 300


class SeedAuthority:
    """Issues seeds, and never two for one commitment.

    Whatever it answers is in the log, and on the disk, before the answer leaves.

    Parameters
    ----------
    folder : Path
        Keeps ``log.jsonl`` and, unless `key` and `nonce` are given, ``server.key`` and
        ``nonces/``, all of them readable by their owner alone but the log.
    key : Ed25519PrivateKey, optional
        The server's; by default the one in the folder, made if it is missing.
    nonce : callable, optional
        Gives the nonce of a bundle by its digest; by default a random one, kept in the
        folder.
    enroll_new : bool (default: True)
        Whether a client that is not enrolled is enrolled by its first commitment. Attempts
        count per enrolled client: who may enroll under many names has many first attempts.
    """

    def __init__(
        self,
        folder: Path,
        *,
        key: Ed25519PrivateKey | None = None,
        nonce: Callable[[str], str] | None = None,
        enroll_new: bool = True,
    ) -> None:
        self._folder, self._enroll_new = folder, enroll_new
        self._key = key or read_or_create_key(folder / _KEY)
        self._nonce = nonce or self._stored_nonce
        self._log = ServerLog(folder / _LOG, self._key)
        self._history = History()
        self._replayed = 0
        with self._log.writing():
            if not self._log.entries:
                self._write("opened", {"server": self.public_key})

    @staticmethod
    def simulated(folder: Path, seed: int) -> SeedAuthority:
        """Return an authority whose key and nonces follow from a simulation's seed.

        Anybody can derive them: it makes simulations repeatable and witnesses nothing.
        """
        key = key_from_seed(bytes.fromhex(derive_seed("simulated server key", seed)))
        return SeedAuthority(
            folder, key=key, nonce=lambda bundle: derive_seed("simulated nonce", seed, bundle)
        )

    @property
    def public_key(self) -> str:
        """The server's public key, 64 hexadecimal digits."""
        return public_hex(self._key)

    @property
    def history(self) -> History:
        """What the log says, as of now."""
        with self._log.writing():
            return self._caught_up()

    def publish(self, bundle: str, recipes: RecipeTable) -> None:
        """Log a bundle and the hash of its nonce; do it before the bundle goes out.

        Parameters
        ----------
        bundle : str
            Its digest. A bundle that is in the log already stays as it is.
        recipes : RecipeTable
            Its recipe table.
        """
        with self._log.writing():
            if bundle in self._caught_up().bundles:
                return
            body = {
                "bundle": bundle,
                "recipes": recipes.to_config(),
                "nonce_hash": hash_of_nonce(self._nonce(bundle)),
            }
            self._write("bundle", body)

    def enroll(self, client: str, public_key: str) -> None:
        """Let a client take part under a key, from now on and for good.

        Raises
        ------
        ProtocolError
            If the client has another key, or the key another client.
        """
        with self._log.writing():
            self._enroll(client, public_key)

    def issue(self, commitment: Commitment) -> SeedGrant:
        """Return the seed of a commitment: the same one each time.

        The attempt counts from here on, whatever becomes of it.

        Raises
        ------
        ProtocolError
            If the commitment is forged, another client's, or for another bundle or recipe.
        """
        commitment = Commitment.from_object(commitment.to_object())  # checks the signature
        with self._log.writing():
            history = self._caught_up()
            if commitment.client not in history.keys and self._enroll_new:
                self._enroll(commitment.client, commitment.public_key)
            known = history.attempts.get(commitment.root)
            if known is not None and known.commitment == commitment:
                return self._grant(known)
            history.check_commitment(commitment)
            if commitment.root not in history.commitments:
                self._write("commitment", commitment.to_object())
            number = history.next_attempt(commitment.client)
            grant = self._draw(commitment, number)
            body = {
                "client": commitment.client,
                "commitment": commitment.root,
                "attempt": number,
                "seed": grant.seed,
                "relation": history.relation(commitment),
            }
            self._write("seed", body)
            return grant

    def countersign(self, certificate: Certificate) -> Countersignature:
        """Log a certificate as the outcome of its attempt, and sign for it.

        What follows from the bundle alone (`fedcert.verification.check_bundle`) is for the
        caller to check first.

        Raises
        ------
        ProtocolError
            If it does not verify, its seed was not issued here, or the attempt has another
            certificate already.
        """
        if failures := verify_record(certificate).failures:
            reasons = "; ".join(check.detail for check in failures)
            raise ProtocolError(f"the certificate does not verify: {reasons}")
        receipt = certificate.protocol
        with self._log.writing():
            attempts = self._caught_up().attempts
            attempt = attempts.get(receipt.commitment) if receipt is not None else None
            if attempt is None or receipt != self._grant(attempt).receipt:
                raise ProtocolError("the certificate's seed was not issued by this server")
            if attempt.certificate is None:
                body = {**self._outcome(attempt), "certificate": certificate.digest}
                self._write("certificate", body)
            if attempt.certificate != certificate.digest or attempt.position is None:
                raise ProtocolError(
                    f"attempt {attempt.number} of {certificate.client!r} has another "
                    "certificate already: one seed gives one certificate"
                )
            entry = self._log.entries[attempt.position]
            return Countersignature.make(attempt, entry, self._key)

    def abort(self, root: str, reason: str) -> None:
        """Log that an attempt came to nothing; it stays counted.

        Raises
        ------
        ProtocolError
            If no seed was issued for `root`, or it has a certificate.
        """
        with self._log.writing():
            attempt = self._caught_up().attempts.get(root)
            if attempt is None:
                raise ProtocolError(f"no seed was issued for the commitment {root[:12]}")
            if attempt.certificate is not None:
                raise ProtocolError("the attempt has a certificate: it was not aborted")
            if attempt.aborted is None:
                reason = reason[:_LONGEST_REASON] or "no reason given"
                self._write("aborted", {**self._outcome(attempt), "reason": reason})

    def close(self, bundle: str) -> None:
        """Publish a bundle's nonce, so that anybody can compute its seeds again.

        No seed is issued for the bundle any more: with the nonce, clients could choose.

        Raises
        ------
        ProtocolError
            If the bundle is not in the log, or closed.
        """
        with self._log.writing():
            published = self._caught_up().bundles.get(bundle)
            if published is None or published.nonce is not None:
                state = "not in the log" if published is None else "closed already"
                raise ProtocolError(f"the bundle {bundle[:12]} is {state}")
            self._write("closed", {"bundle": bundle, "nonce": self._nonce(bundle)})

    def _enroll(self, client: str, public_key: str) -> None:
        keys = self._caught_up().keys
        if keys.get(client) == public_key:
            return
        check_client(client)
        if client in keys:
            raise ProtocolError(f"the client {client!r} is enrolled with another key")
        if public_key in keys.values():
            raise ProtocolError(
                f"the key of {client!r} is another client's: an enrolled client has one name"
            )
        self._write("enrolled", {"client": client, "public_key": public_key})

    def _draw(self, commitment: Commitment, number: int) -> SeedGrant:
        nonce = self._nonce(commitment.bundle)
        published = self._history.bundles[commitment.bundle]
        if hash_of_nonce(nonce) != published.nonce_hash:
            raise ProtocolError(
                f"the nonce of the bundle {commitment.bundle[:12]} is not the one whose hash "
                "is in the log; put the old state folder back, or publish another bundle"
            )
        return SeedGrant.make(commitment, attempt=number, nonce=nonce, key=self._key)

    def _grant(self, attempt: Attempt) -> SeedGrant:
        return self._draw(attempt.commitment, attempt.number)

    @staticmethod
    def _outcome(attempt: Attempt) -> Mapping[str, Any]:
        return {
            "client": attempt.commitment.client,
            "commitment": attempt.commitment.root,
            "attempt": attempt.number,
        }

    def _caught_up(self) -> History:
        for entry in self._log.entries[self._replayed :]:
            self._apply(entry)
        return self._history

    def _write(self, kind: str, body: Mapping[str, Any]) -> None:
        self._caught_up()
        self._apply(self._log.append(kind, body))

    def _apply(self, entry: Entry) -> None:
        self._history.apply(entry)
        self._replayed = entry.position + 1

    def _stored_nonce(self, bundle: str) -> str:
        path = self._folder / _NONCES / bundle
        if not path.exists():
            if bundle in self._history.bundles:
                raise ProtocolError(
                    f"the nonce of the bundle {bundle[:12]} is missing ({path}); put it back, "
                    "or publish another bundle"
                )
            write_atomically(path, secrets.token_hex(32).encode(), mode=0o600)
        return path.read_text(encoding="ascii")
