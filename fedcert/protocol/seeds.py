"""Seeds: drawn from the commitment and a nonce that the server had fixed before."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcert.canonical import sha256_hex
from fedcert.certificates.attempts import attempt_delta
from fedcert.certificates.receipt import IssuedSeed, SeedReceipt
from fedcert.certificates.recipes import Recipe
from fedcert.errors import ProtocolError
from fedcert.protocol.commitment import Commitment
from fedcert.randomness import derive_seed
from fedcert.records.signing import public_hex

__all__ = ["SeedGrant", "check_answers", "hash_of_nonce", "recipe_for_attempt", "seed_of"]


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


class SeedGrant(IssuedSeed):
    """The server's answer to a commitment."""

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
        return SeedGrant(
            client=commitment.client,
            public_key=commitment.public_key,
            bundle=commitment.bundle,
            recipe=recipe_for_attempt(commitment.recipe, attempt),
            support_size=commitment.support_size,
            seed=seed,
            receipt=receipt,
            labels=_labels_of(commitment),
            unlabeled=commitment.unlabeled,
        ).signed(key)

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
        check_answers(self, commitment)
        if problem := self.problem():
            raise ProtocolError(f"the seed is forged or damaged: {problem}")
        if server is not None and self.receipt.server != server.lower():
            raise ProtocolError(
                f"the seed is from the server {self.receipt.server}, not from {server}"
            )


def check_answers(issued: IssuedSeed, commitment: Commitment) -> None:
    """Make sure that a seed was issued for all that a commitment says.

    Parameters
    ----------
    issued : IssuedSeed
        As the server sent it, or as a certificate has it.
    commitment : Commitment
        One's own, or the log's.

    Raises
    ------
    ProtocolError
        If it was issued for something else.
    """
    if issued.receipt.commitment != commitment.root:
        raise ProtocolError(
            f"this seed was issued for another commitment ({issued.receipt.commitment[:12]} "
            f"instead of {commitment.root[:12]})"
        )
    for name in ("client", "public_key", "bundle", "support_size"):
        if getattr(issued, name) != getattr(commitment, name):
            raise ProtocolError(f"this seed was issued for another {name}")
    if issued.labels != _labels_of(commitment):
        raise ProtocolError("this seed was issued for other labels")
    if issued.unlabeled != commitment.unlabeled:
        raise ProtocolError("this seed was issued for other inputs without labels")
    if issued.recipe != recipe_for_attempt(commitment.recipe, issued.receipt.attempt):
        raise ProtocolError("this seed was issued for another recipe")


def _labels_of(commitment: Commitment) -> str | None:
    return None if commitment.labels is None else commitment.labels.digest
