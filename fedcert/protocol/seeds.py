"""Seeds: drawn from the commitment and a nonce that the server had fixed before."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcert.atomic import write_atomically
from fedcert.canonical import sha256_hex
from fedcert.certificates.attempts import attempt_delta
from fedcert.certificates.receipt import SEED_FORMAT, SeedReceipt, seed_payload
from fedcert.certificates.recipes import Recipe
from fedcert.certificates.signing import public_hex, sign
from fedcert.certificates.strict_json import Fields
from fedcert.errors import CertificateError, ProtocolError
from fedcert.protocol.commitment import Commitment
from fedcert.protocol.signed import read_object, to_text
from fedcert.randomness import derive_seed

__all__ = ["SeedGrant", "hash_of_nonce", "recipe_for_attempt", "seed_of"]


def seed_of(*, client: str, attempt: int, bundle: str, root: str, nonce: str) -> str:
    """Return the seed of an attempt: it draws the candidates and permutes the examples.

    Parameters
    ----------
    client, attempt, bundle, root
        As in `SeedReceipt` and `Commitment`.
    nonce : str
        The server's secret for the bundle, until it closes the bundle: with it a client
        could try commitments until one has a seed to its liking.

    Returns
    -------
    str
        256 bits in hexadecimal.
    """
    return derive_seed("issued seed", client, attempt, bundle, root, nonce)


def hash_of_nonce(nonce: str) -> str:
    """Return what the server publishes before it sees a commitment."""
    return sha256_hex(b"fedcert/nonce/v1", nonce.encode())


def recipe_for_attempt(recipe: Recipe, attempt: int) -> Recipe:
    """Return a bundle's recipe with the delta that an attempt has."""
    return recipe.with_delta(attempt_delta(recipe.delta, attempt, recipe.first_share))


@dataclass(frozen=True, kw_only=True)
class SeedGrant:
    """The server's answer to a commitment.

    Parameters
    ----------
    client, public_key, bundle, support_size
        As committed.
    recipe : Recipe
        With the delta of this attempt.
    seed : str
        64 hexadecimal digits.
    receipt : SeedReceipt
        Attempt, commitment, and the server's signature.
    labels : str or None
        Digest of the client's own labels, as committed; None, and absent from the JSON form,
        if the labels are the bundle's.
    """

    client: str
    public_key: str
    bundle: str
    recipe: Recipe
    support_size: int
    seed: str
    receipt: SeedReceipt
    labels: str | None = None

    @staticmethod
    def make(
        commitment: Commitment, *, attempt: int, nonce: str, key: Ed25519PrivateKey
    ) -> SeedGrant:
        """Draw and sign the seed of a commitment; the same arguments give the same grant.

        Parameters
        ----------
        commitment : Commitment
            What the client has committed to.
        attempt : int
            Number of the client's attempt, from 1 on.
        nonce : str
            The server's secret for the bundle, 64 hexadecimal digits.
        key : Ed25519PrivateKey
            The server's signing key.

        Returns
        -------
        SeedGrant
            The seed with the server's signature.
        """
        seed = seed_of(
            client=commitment.client,
            attempt=attempt,
            bundle=commitment.bundle,
            root=commitment.root,
            nonce=nonce,
        )
        receipt = SeedReceipt(
            attempt=attempt,
            commitment=commitment.root,
            granted=commitment.recipe.delta,
            server=public_hex(key),
            signature="",
        )
        unsigned = SeedGrant(
            client=commitment.client,
            public_key=commitment.public_key,
            bundle=commitment.bundle,
            recipe=recipe_for_attempt(commitment.recipe, attempt),
            support_size=commitment.support_size,
            seed=seed,
            receipt=receipt,
            labels=_labels_of(commitment),
        )
        signature = sign(key, unsigned.payload())
        return replace(unsigned, receipt=replace(receipt, signature=signature))

    def payload(self) -> bytes:
        """Return the bytes that the server signs."""
        return seed_payload(
            client=self.client,
            public_key=self.public_key,
            bundle=self.bundle,
            recipe=self.recipe,
            support_size=self.support_size,
            seed=self.seed,
            receipt=self.receipt,
            labels=self.labels,
        )

    def check(self, commitment: Commitment, *, server: str | None = None) -> None:
        """Make sure that this answers a commitment, and that the server said it.

        Parameters
        ----------
        commitment : Commitment
            One's own.
        server : str, optional
            The public key that one expects.

        Raises
        ------
        ProtocolError
            If the seed is for another commitment, or forged.
        """
        if self.receipt.commitment != commitment.root:
            raise ProtocolError(
                f"this seed was issued for another commitment ({self.receipt.commitment[:12]} "
                f"instead of {commitment.root[:12]})"
            )
        for name in ("client", "public_key", "bundle", "support_size"):
            if getattr(self, name) != getattr(commitment, name):
                raise ProtocolError(f"this seed was issued for another {name}")
        if self.labels != _labels_of(commitment):
            raise ProtocolError("this seed was issued for other labels")
        if self.recipe != recipe_for_attempt(commitment.recipe, self.receipt.attempt):
            raise ProtocolError("this seed was issued for another recipe")
        if problem := self.receipt.problem(self.payload(), self.recipe):
            raise ProtocolError(f"the seed is forged or damaged: {problem}")
        if server is not None and self.receipt.server != server.lower():
            raise ProtocolError(
                f"the seed is from the server {self.receipt.server}, not from {server}"
            )

    def to_object(self) -> dict[str, Any]:
        """Return the JSON object."""
        members = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.labels is None:
            del members["labels"]
        return members | {
            "format": SEED_FORMAT,
            "recipe": self.recipe.to_config(),
            "receipt": self.receipt.to_object(),
        }

    @staticmethod
    def from_object(value: object) -> SeedGrant:
        """Read a grant strictly; `check` is for what it says.

        Raises
        ------
        CertificateError
            If it is malformed.
        """
        own = isinstance(value, dict) and "labels" in value
        names = {field.name for field in fields(SeedGrant)} - (set() if own else {"labels"})
        read = Fields(value, "seed", ("format", *names))
        if read.text("format") != SEED_FORMAT:
            raise CertificateError(f"seed.format must be {SEED_FORMAT!r}")
        return SeedGrant(
            client=read.text("client"),
            public_key=read.hexadecimal("public_key", 64),
            bundle=read.hexadecimal("bundle", 64),
            recipe=Recipe.from_config(read.raw("recipe")),
            support_size=read.integer("support_size"),
            seed=read.hexadecimal("seed", 64),
            receipt=SeedReceipt.from_object(read.raw("receipt"), "seed.receipt"),
            labels=read.hexadecimal("labels", 64) if own else None,
        )

    def write(self, path: Path) -> None:
        """Write the JSON form, in full or not at all."""
        write_atomically(path, to_text(self.to_object()).encode())

    @staticmethod
    def read(path: Path) -> SeedGrant:
        """Read a file; see `from_object`."""
        return SeedGrant.from_object(read_object(path, "seed"))


def _labels_of(commitment: Commitment) -> str | None:
    return None if commitment.labels is None else commitment.labels.digest
