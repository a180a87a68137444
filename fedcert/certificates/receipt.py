"""The receipt of a seed: a server's signed word that the commitment came before the seed.

It is part of a witnessed certificate. Everything that it speaks about is in the certificate
too, so anybody can check the server's signature from the record alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from fedcert.canonical import canonical_json
from fedcert.certificates.attempts import attempt_delta
from fedcert.certificates.recipes import Recipe
from fedcert.errors import CertificateError
from fedcert.records import Digest, OrAbsent, SignatureText, Signed

__all__ = ["SEED_FORMAT", "IssuedSeed", "SeedReceipt"]

SEED_FORMAT = "fedcert.seed/1"
"""Name and version of what a server signs when it issues a seed."""


@dataclass(frozen=True, kw_only=True)
class SeedReceipt:
    """What a server says about the seed that it issued.

    Parameters
    ----------
    attempt : int
        Which attempt of the client this was, from 1 on, across bundles.
    commitment : str
        The root that the client had committed to, 64 hexadecimal digits.
    granted : float
        The delta of the bundle's recipe, which all attempts share.
    server : str
        The server's public key, 64 hexadecimal digits.
    signature : str
        The server's, over the payload of `IssuedSeed`: 128 hexadecimal digits.
    """

    attempt: int
    commitment: Digest
    granted: float
    server: Digest
    signature: SignatureText

    def witness(self, recipe: Recipe) -> str:
        """Name the witness as a certificate does.

        Parameters
        ----------
        recipe : Recipe
            With the delta of this attempt.
        """
        # The shares of promises are multiples of the bound's, attempt by attempt.
        beside = ", beside the shares of its promises" if recipe.promises else ""
        return (
            f"the server with the public key {self.server}, which issued the seed after the "
            f"commitment {self.commitment}, as attempt {self.attempt} of this client; the "
            f"attempt has delta {_plain(recipe.delta)} of the {_plain(self.granted)} for all "
            f"attempts{beside}"
        )


@dataclass(frozen=True, kw_only=True)
class IssuedSeed(Signed):
    """What a server signs when it issues a seed.

    Parameters
    ----------
    client, public_key : str
        Who committed.
    bundle : str
        Digest of the bundle.
    recipe : Recipe
        With the delta of this attempt.
    support_size : int
        Number of committed examples.
    seed : str
        The issued seed.
    receipt : SeedReceipt
        Attempt, commitment, and the server's signature.
    labels : str or None
        Digest of the client's own labels, as committed; None, and absent from the JSON form,
        if the labels are the bundle's.
    unlabeled : str or None
        Digest of the client's inputs without labels, as committed; None, and absent from the
        JSON form, if there are none.
    """

    what = "seed"
    format = SEED_FORMAT
    signature_at = ("receipt", "signature")

    client: str
    public_key: Digest
    bundle: Digest
    recipe: Recipe
    support_size: int
    seed: Digest
    receipt: SeedReceipt
    labels: OrAbsent[Digest] = None
    unlabeled: OrAbsent[Digest] = None

    def payload(self) -> bytes:
        """Return the signed bytes: canonical JSON, the receipt's members among the others."""
        members = self.to_object()
        members |= members.pop("receipt")
        del members["signature"]
        return canonical_json(members)

    def problem(self) -> str | None:
        """Return what is wrong with the receipt, or None."""
        granted, attempt, delta = self.receipt.granted, self.receipt.attempt, self.recipe.delta
        try:
            expected = attempt_delta(granted, attempt, self.recipe.first_share)
        except CertificateError as error:
            return str(error)
        if delta != expected:
            return (
                f"attempt {attempt} of delta {granted} has {expected}, but the record says "
                f"{delta}"
            )
        if not self.is_signed_by(self.receipt.server):
            return f"the seed was not issued for this by the server {self.receipt.server}"
        return None


def _plain(value: float) -> str:
    return f"{Decimal(str(value)):f}"
