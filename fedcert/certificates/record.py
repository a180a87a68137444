"""The certificate: a signed, self-contained record of one bound.

The record holds everything that is needed to compute the bound again. Its JSON form is a
contract: keys and meanings of ``fedcert.certificate/1`` never change.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fedcert.certificates.bounds import chance_of
from fedcert.certificates.promises import Outcome
from fedcert.certificates.receipt import IssuedSeed, SeedReceipt
from fedcert.certificates.recipes import Choice, FirstStage, LedgerEntry, Recipe
from fedcert.certificates.sample import Sample
from fedcert.certificates.unlabeled import Unlabeled
from fedcert.errors import CertificateError, DataError
from fedcert.label_set import LabelSet
from fedcert.records import Digest, OrAbsent, SignatureText, Signed

__all__ = ["FORMAT", "Candidate", "Certificate", "Digests", "Signature", "encode_vector"]

FORMAT = "fedcert.certificate/1"
"""Name and version of the JSON form."""

_VECTOR_DTYPE = np.dtype("<f8")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """The chosen candidate, so that it can be found again among the M.

    Parameters
    ----------
    index : int
        Its number, from 0 to M - 1; among the finalists if the recipe refines candidates.
    seed : str
        The 256-bit seed that all candidates were drawn from, as 64 hexadecimal digits.
    vector : str
        Its coordinates in the adapter space: base64 of little-endian float64 bytes.
    """

    index: int
    seed: Digest
    vector: str


@dataclass(frozen=True, kw_only=True)
class Digests:
    """SHA-256 digests of what the certificate speaks about, 64 hexadecimal digits each.

    Parameters
    ----------
    bundle : str
        The bundle: recipe table, prior, space, base model.
    base_model : str
        The base model's weights.
    space : str
        The adapter space.
    prior : str
        The prior that the candidates were drawn from.
    adapter : str
        The exported adapter's tensors.
    support : str
        The multiset of examples, keyed by the seed. It shows whether a given set is the
        certified one, so somebody who can guess all of the examples can confirm the guess.
    """

    bundle: Digest
    base_model: Digest
    space: Digest
    prior: Digest
    adapter: Digest
    support: Digest


@dataclass(frozen=True, kw_only=True)
class Signature:
    """Who made the claim.

    Parameters
    ----------
    algorithm : str
        ``"ed25519"``.
    public_key : str
        64 hexadecimal digits; signed along with the rest.
    value : str
        128 hexadecimal digits.
    """

    algorithm: Literal["ed25519"]
    public_key: Digest
    value: SignatureText


@dataclass(frozen=True, kw_only=True)
class Certificate(Signed):
    """One bound on one adapter's risk, with everything needed to compute it again.

    Make one with `fedcert.certificates.issue`; check one with
    `fedcert.certificates.verify_record`.

    Parameters
    ----------
    client : str
        Stable id of the client whose distribution is meant.
    errors : int
        Wrong labels among the certifying examples, k.
    certified_on : int
        Number of certifying examples, m.
    support_size : int
        Number of all examples, n.
    bound : float
        The certified risk, a multiple of 1e-6 in (0, 1].
    delta : float
        Probability with which the certificate, its promises included, may be false.
    recipe : Recipe
        How the support set was spent.
    ledger : tuple of LedgerEntry
        Where delta went.
    labels : tuple of str
        Names of the K labels.
    candidate : Candidate
        Which of the M candidates it is.
    digests : Digests
        Which bundle, adapter, and examples are meant.
    witness : str or None
        Who saw the commitment before the seed was drawn; None for "unwitnessed".
    library : str
        The software that issued it, with its version.
    statement : str
        The claim in plain words.
    assumptions : tuple of str
        What the claim rests on, in plain sentences.
    signature : Signature
        Over the `payload`.
    first_stage : FirstStage or None
        What the candidate's weight follows from; None, and absent from the JSON form, if
        the recipe does not weight candidates by the choosing examples (default: None).
    protocol : SeedReceipt or None
        The server's receipt of the seed; None, and absent from the JSON form, if no server
        took part (default: None).
    sample : Sample or None
        What the support set holds out of the ordinary; None, and absent from the JSON form,
        if nothing (default: None).
    label_texts : tuple of tuple of str, or None
        For each of the client's own labels the texts that stand for it: they decide what is
        predicted. None, and absent from the JSON form, if the labels are the bundle's
        (default: None).
    promises : tuple of Outcome, or None
        What became of the recipe's promises, in their order; None, and absent from the JSON
        form, if it makes none (default: None).
    unlabeled : Unlabeled or None
        Inputs without labels that had a part in making the adapter; None, and absent from the
        JSON form, if there are none (default: None).
    """

    what = "certificate"
    format = FORMAT
    signature_at = ("signature", "value")

    client: str
    errors: int
    certified_on: int
    support_size: int
    bound: float
    delta: float
    recipe: Recipe
    ledger: tuple[LedgerEntry, ...]
    labels: tuple[str, ...]
    candidate: Candidate
    digests: Digests
    witness: str | None
    library: str
    statement: str
    assumptions: tuple[str, ...]
    signature: Signature
    first_stage: OrAbsent[FirstStage] = None
    protocol: OrAbsent[SeedReceipt] = None
    sample: OrAbsent[Sample] = None
    label_texts: OrAbsent[tuple[tuple[str, ...], ...]] = None
    promises: OrAbsent[tuple[Outcome, ...]] = None
    unlabeled: OrAbsent[Unlabeled] = None

    @property
    def label_set(self) -> LabelSet | None:
        """The client's own labels; None if the labels are the bundle's."""
        return None if self.label_texts is None else LabelSet(self.labels, self.label_texts)

    @property
    def choice(self) -> Choice:
        """What the bound depends on, besides recipe and counts."""
        return Choice(
            index=self.candidate.index,
            first_stage=self.first_stage,
            number=self.recipe.number_of(self.candidate.seed),
        )

    @property
    def chance(self) -> float:
        """Risk of guessing among the labels, 1 - 1/K."""
        return chance_of(len(self.labels))

    @property
    def nonvacuous(self) -> bool:
        """Whether the bound is below chance."""
        return self.bound < self.chance

    @property
    def adapter_vector(self) -> npt.NDArray[np.float64]:
        """The candidate's coordinates, shape (d,), float64."""
        return _decoded_vector(self.candidate.vector, "certificate.candidate.vector")

    @property
    def grant(self) -> IssuedSeed:
        """What the server signed when it issued the seed.

        Raises
        ------
        CertificateError
            If no server took part.
        """
        if self.protocol is None:
            raise CertificateError("this certificate is unwitnessed")
        return IssuedSeed(
            client=self.client,
            public_key=self.signature.public_key,
            bundle=self.digests.bundle,
            recipe=self.recipe,
            support_size=self.support_size,
            seed=self.candidate.seed,
            receipt=self.protocol,
            labels=None if self.label_set is None else self.label_set.digest,
            unlabeled=None if self.unlabeled is None else self.unlabeled.digest,
        )

    def validate(self, path: str) -> None:
        """Raise `CertificateError` if members contradict each other."""
        _decoded_vector(self.candidate.vector, f"{path}.candidate.vector")
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels):
            raise CertificateError(f"{path}.labels must name two or more distinct labels")
        if self.sample is not None and not self.sample.fits(self.errors, self.support_size):
            raise CertificateError(f"{path}.sample does not fit the other counts")
        if self.unlabeled is not None and self.unlabeled.count < 1:
            raise CertificateError(f"{path}.unlabeled.count must be at least 1")
        try:
            _ = self.label_set
        except DataError as error:
            raise CertificateError(f"{path}.label_texts: {error}") from error


def encode_vector(vector: npt.NDArray[np.floating[Any]]) -> str:
    """Encode coordinates, shape (d,), as base64 of little-endian float64 bytes.

    Raises
    ------
    CertificateError
        If the array is not a finite, non-empty vector.
    """
    array = np.asarray(vector, dtype=_VECTOR_DTYPE)
    if array.ndim != 1 or array.size == 0:
        raise CertificateError(f"an adapter vector has shape (d,), not {array.shape}")
    if not np.isfinite(array).all():
        raise CertificateError("an adapter vector must be finite")
    return base64.b64encode(array.tobytes()).decode()


def _decoded_vector(text: str, path: str) -> npt.NDArray[np.float64]:
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise CertificateError(f"{path} must be base64") from None
    if not content or len(content) % _VECTOR_DTYPE.itemsize:
        raise CertificateError(f"{path} must hold a whole number of float64 values")
    vector = np.frombuffer(content, dtype=_VECTOR_DTYPE).astype(np.float64)
    if not np.isfinite(vector).all():
        raise CertificateError(f"{path} must be finite")
    return vector
