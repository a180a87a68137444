"""The certificate: a signed, self-contained record of one bound.

The record holds everything that is needed to compute the bound again. Its JSON form is a
contract: keys and meanings of ``fedcert.certificate/1`` never change.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.atomic import write_atomically
from fedcert.canonical import canonical_json, digest_json
from fedcert.certificates.bounds import chance_of
from fedcert.certificates.receipt import SeedReceipt, seed_payload
from fedcert.certificates.recipes import Choice, FirstStage, LedgerEntry, Recipe
from fedcert.certificates.sample import Sample
from fedcert.certificates.signing import ALGORITHM
from fedcert.certificates.strict_json import LARGEST, Fields, parse_json
from fedcert.errors import CertificateError, DataError
from fedcert.label_set import LabelSet

__all__ = ["FORMAT", "Candidate", "Certificate", "Digests", "Signature", "encode_vector"]

FORMAT = "fedcert.certificate/1"
"""Name and version of the JSON form."""

_OPTIONAL = ("first_stage", "protocol", "sample", "label_texts")

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
    seed: str
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

    bundle: str
    base_model: str
    space: str
    prior: str
    adapter: str
    support: str


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

    algorithm: str
    public_key: str
    value: str


@dataclass(frozen=True, kw_only=True)
class Certificate:
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
        Probability with which the certificate may be false.
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
        Over `unsigned_payload`.
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
    """

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
    first_stage: FirstStage | None = None
    protocol: SeedReceipt | None = None
    sample: Sample | None = None
    label_texts: tuple[tuple[str, ...], ...] | None = None

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

    def to_object(self) -> dict[str, Any]:
        """Return the JSON object."""
        members = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in _OPTIONAL:
            del members[name]
        if self.first_stage is not None:
            profile = list(self.first_stage.profile)
            members["first_stage"] = {"errors": self.first_stage.errors, "profile": profile}
        if self.protocol is not None:
            members["protocol"] = self.protocol.to_object()
        if self.sample is not None:
            members["sample"] = self.sample.to_object()
        if self.label_texts is not None:
            members["label_texts"] = [list(texts) for texts in self.label_texts]
        return members | {
            "format": FORMAT,
            "recipe": self.recipe.to_config(),
            "ledger": [asdict(entry) for entry in self.ledger],
            "labels": list(self.labels),
            "candidate": asdict(self.candidate),
            "digests": asdict(self.digests),
            "assumptions": list(self.assumptions),
            "signature": asdict(self.signature),
        }

    @property
    def digest(self) -> str:
        """Identity of the record, its signature included."""
        return digest_json(self.to_object())

    def receipt_payload(self) -> bytes:
        """Return the bytes that the server signed when it issued the seed.

        Raises
        ------
        CertificateError
            If no server took part.
        """
        if self.protocol is None:
            raise CertificateError("this certificate is unwitnessed")
        return seed_payload(
            client=self.client,
            public_key=self.signature.public_key,
            bundle=self.digests.bundle,
            recipe=self.recipe,
            support_size=self.support_size,
            seed=self.candidate.seed,
            receipt=self.protocol,
            labels=None if self.label_set is None else self.label_set.digest,
        )

    def unsigned_payload(self) -> bytes:
        """Return the signed bytes: canonical JSON without the signature's value."""
        content = self.to_object()
        del content["signature"]["value"]
        return canonical_json(content)

    def to_json(self) -> str:
        """Return JSON for people to read: sorted keys, an indent of two.

        The signature covers the canonical form, so the layout of this text is free.
        """
        content = self.to_object()
        text = json.dumps(
            content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False
        )
        return f"{text}\n"

    @staticmethod
    def from_json(content: bytes | str) -> Certificate:
        """Read a certificate strictly; this checks its form, not its claim.

        Raises
        ------
        CertificateError
            If the text is damaged, or a field is unknown, missing, repeated, ill-typed,
            or not finite; the message names the field.
        """
        return Certificate.from_object(parse_json(content, "certificate"))

    @staticmethod
    def from_object(value: object) -> Certificate:
        """Read a certificate from a JSON value; see `from_json`."""
        return _from_object(value)

    def write(self, path: Path) -> None:
        """Write `to_json` to a file, in full or not at all."""
        write_atomically(path, self.to_json().encode())

    @staticmethod
    def read(path: Path) -> Certificate:
        """Read a certificate from a file; see `from_json`.

        Raises
        ------
        CertificateError
            Also if there is no such file, it cannot be read, or it is larger than any
            certificate is.
        """
        try:
            with path.open("rb") as file:
                content = file.read(LARGEST + 1)
        except OSError as error:
            raise CertificateError(
                f"cannot read the certificate {path}: {error.strerror}"
            ) from error
        if len(content) > LARGEST:
            raise CertificateError(f"the certificate {path} has more than {LARGEST:,} bytes")
        return Certificate.from_json(content)


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


def _names(cls: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(cls))


def _from_object(value: object) -> Certificate:
    # Before anything else, so that a later format is named as such.
    if isinstance(value, dict) and value.get("format", FORMAT) != FORMAT:
        raise CertificateError(
            f"certificate.format is {value['format']!r}; this version reads {FORMAT!r}"
        )
    present = [key for key in _OPTIONAL if isinstance(value, dict) and key in value]
    known = [name for name in _names(Certificate) if name not in _OPTIONAL]
    read = Fields(value, "certificate", ("format", *known, *present))
    return Certificate(
        client=read.text("client"),
        errors=read.integer("errors"),
        certified_on=read.integer("certified_on"),
        support_size=read.integer("support_size"),
        bound=read.number("bound"),
        delta=read.number("delta"),
        recipe=_recipe(read.raw("recipe")),
        ledger=_ledger(read.array("ledger")),
        labels=_labels(read.texts("labels")),
        candidate=_candidate(read.raw("candidate")),
        digests=_digests(read.raw("digests")),
        witness=read.optional_text("witness"),
        library=read.text("library"),
        statement=read.text("statement"),
        assumptions=read.texts("assumptions"),
        signature=_signature(read.raw("signature")),
        first_stage=(
            _first_stage(read.raw("first_stage")) if "first_stage" in present else None
        ),
        protocol=(
            SeedReceipt.from_object(read.raw("protocol"), read.path("protocol"))
            if "protocol" in present
            else None
        ),
        sample=_sample(read) if "sample" in present else None,
        label_texts=_label_texts(read) if "label_texts" in present else None,
    )


def _label_texts(read: Fields) -> tuple[tuple[str, ...], ...]:
    config = {"names": list(read.texts("labels")), "texts": read.array("label_texts")}
    try:
        found = LabelSet.from_config(config)
    except DataError as error:
        raise CertificateError(f"{read.path('label_texts')}: {error}") from error
    if found.to_config() != config:
        raise CertificateError(f"{read.path('label_texts')} must hold arrays of texts")
    return found.texts


def _sample(read: Fields) -> Sample:
    return Sample.from_object(
        read.raw("sample"),
        read.path("sample"),
        errors=read.integer("errors"),
        support_size=read.integer("support_size"),
    )


def _recipe(value: object) -> Recipe:
    try:
        recipe = Recipe.from_config(value)
    except CertificateError as error:
        raise CertificateError(f"certificate.recipe: {error}") from error
    if recipe.to_config() != value:
        # What was signed has to be spelled out: a default may differ elsewhere. What came
        # later than the format is spelled out only where it says something new.
        raise CertificateError(
            "certificate.recipe leaves out an argument, or says what goes without saying"
        )
    return recipe


def _ledger(values: list[Any]) -> tuple[LedgerEntry, ...]:
    read = [
        Fields(value, f"certificate.ledger[{position}]", _names(LedgerEntry))
        for position, value in enumerate(values)
    ]
    return tuple(LedgerEntry(entry.text("purpose"), entry.number("delta")) for entry in read)


def _labels(labels: tuple[str, ...]) -> tuple[str, ...]:
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise CertificateError("certificate.labels must name two or more distinct labels")
    return labels


def _candidate(value: object) -> Candidate:
    read = Fields(value, "certificate.candidate", _names(Candidate))
    vector = read.text("vector")
    _decoded_vector(vector, read.path("vector"))
    return Candidate(
        index=read.integer("index"), seed=read.hexadecimal("seed", 64), vector=vector
    )


def _first_stage(value: object) -> FirstStage:
    read = Fields(value, "certificate.first_stage", _names(FirstStage))
    return FirstStage(errors=read.integer("errors"), profile=read.integers("profile"))


def _digests(value: object) -> Digests:
    read = Fields(value, "certificate.digests", _names(Digests))
    return Digests(**{name: read.hexadecimal(name, 64) for name in _names(Digests)})


def _signature(value: object) -> Signature:
    read = Fields(value, "certificate.signature", _names(Signature))
    algorithm = read.text("algorithm")
    if algorithm != ALGORITHM:
        raise CertificateError(
            f"{read.path('algorithm')} must be {ALGORITHM!r}, not {algorithm!r}"
        )
    return Signature(
        algorithm=algorithm,
        public_key=read.hexadecimal("public_key", 64),
        value=read.hexadecimal("value", 128),
    )
