"""Inputs without labels that had a part in making an adapter: how many, and which."""

from __future__ import annotations

from dataclasses import dataclass

from fedcert.records import Digest

__all__ = ["Unlabeled"]


@dataclass(frozen=True, kw_only=True)
class Unlabeled:
    """Inputs without labels, as a certificate and an opening name them.

    They are fixed before the seed is drawn: whoever could still exchange them would know which
    examples certify, and try one set of inputs after the other on these.

    Parameters
    ----------
    count : int
        How many there are.
    salt : str
        What the digest is keyed by, 64 hexadecimal digits. The server sees the digest without
        it; of an unwitnessed certificate it is the bundle's digest, which leaves no choice.
    digest : str
        `fedcert.data.Examples.inputs_digest` of them under the salt.
    """

    count: int
    salt: Digest
    digest: Digest

    def assumption(self) -> str:
        """Return what must be true of them for a certificate to mean what it says."""
        return (
            f"Inputs without labels, {self.count} of them, had a part in making the adapter; "
            "they were fixed before the seed was known, and none of them is an observation "
            "of the support set."
        )
