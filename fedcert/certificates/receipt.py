"""The receipt of a seed: a server's signed word that the commitment came before the seed.

It is part of a witnessed certificate. Everything that it speaks about is in the certificate
too, so anybody can check the server's signature from the record alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from typing import Any

from fedcert.canonical import canonical_json
from fedcert.certificates.attempts import attempt_delta
from fedcert.certificates.recipes import Recipe
from fedcert.certificates.signing import verify
from fedcert.certificates.strict_json import Fields
from fedcert.errors import CertificateError

__all__ = ["SEED_FORMAT", "SeedReceipt", "seed_payload"]

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
        The server's, over `seed_payload`: 128 hexadecimal digits.
    """

    attempt: int
    commitment: str
    granted: float
    server: str
    signature: str

    @staticmethod
    def from_object(value: object, path: str) -> SeedReceipt:
        """Read a receipt strictly.

        Raises
        ------
        CertificateError
            If a field is unknown, missing, or ill-typed.
        """
        read = Fields(value, path, tuple(field.name for field in fields(SeedReceipt)))
        return SeedReceipt(
            attempt=read.integer("attempt"),
            commitment=read.hexadecimal("commitment", 64),
            granted=read.number("granted"),
            server=read.hexadecimal("server", 64),
            signature=read.hexadecimal("signature", 128),
        )

    def to_object(self) -> dict[str, Any]:
        """Return the JSON object."""
        return asdict(self)

    def witness(self, recipe: Recipe) -> str:
        """Name the witness as a certificate does.

        Parameters
        ----------
        recipe : Recipe
            With the delta of this attempt.
        """
        return (
            f"the server with the public key {self.server}, which issued the seed after the "
            f"commitment {self.commitment}, as attempt {self.attempt} of this client; the "
            f"attempt has delta {_plain(recipe.delta)} of the {_plain(self.granted)} for all "
            f"attempts"
        )

    def problem(self, payload: bytes, recipe: Recipe) -> str | None:
        """Return what is wrong with the receipt, or None.

        Parameters
        ----------
        payload : bytes
            From `seed_payload`.
        recipe : Recipe
            As in the certificate.
        """
        try:
            expected = attempt_delta(self.granted, self.attempt, recipe.first_share)
        except CertificateError as error:
            return str(error)
        if recipe.delta != expected:
            return (
                f"attempt {self.attempt} of delta {self.granted} has {expected}, but the "
                f"record says {recipe.delta}"
            )
        if not verify(self.server, payload, self.signature):
            return f"the seed was not issued for this by the server {self.server}"
        return None


def seed_payload(
    *,
    client: str,
    public_key: str,
    bundle: str,
    recipe: Recipe,
    support_size: int,
    seed: str,
    receipt: SeedReceipt,
    labels: str | None = None,
) -> bytes:
    """Return the bytes that a server signs: canonical JSON.

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
        The receipt; its signature does not take part.
    labels : str, optional
        Digest of the client's own labels, if it committed to some.

    Returns
    -------
    bytes
        Canonical JSON (RFC 8785) in UTF-8.
    """
    own = {} if labels is None else {"labels": labels}
    return canonical_json(
        own
        | {
            "format": SEED_FORMAT,
            "client": client,
            "public_key": public_key,
            "bundle": bundle,
            "recipe": recipe.to_config(),
            "support_size": support_size,
            "seed": seed,
            "attempt": receipt.attempt,
            "commitment": receipt.commitment,
            "granted": receipt.granted,
            "server": receipt.server,
        }
    )


def _plain(value: float) -> str:
    return f"{Decimal(str(value)):f}"
