"""Issuing: the only place where a bound enters a certificate."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcert import __version__
from fedcert.certificates.promises import Outcome
from fedcert.certificates.receipt import SeedReceipt
from fedcert.certificates.recipes import Choice, FirstStage, Recipe
from fedcert.certificates.record import (
    Candidate,
    Certificate,
    Digests,
    Signature,
    encode_vector,
)
from fedcert.certificates.sample import Sample
from fedcert.certificates.unlabeled import Unlabeled
from fedcert.certificates.verification import verify_record
from fedcert.certificates.wording import TEMPLATES, whole_ledger
from fedcert.errors import CertificateError
from fedcert.records import members_of
from fedcert.records.signing import ALGORITHM, public_hex

__all__ = ["check_client", "check_issuable", "issue"]

_LONGEST_ID = 256


def check_client(client: str) -> None:
    """Make sure that a client's id can be written into certificates, and told from others.

    Raises
    ------
    CertificateError
        If it is empty, too long, has spaces around it, or holds what cannot be seen.
    """
    plain = isinstance(client, str) and client.isprintable() and client == client.strip()
    if not plain or not 0 < len(client) <= _LONGEST_ID:
        raise CertificateError(
            f"{client!r} is no client id: give a stable name of 1 to {_LONGEST_ID} characters "
            "that can be seen, without spaces around it"
        )


def check_issuable(client: str, labels: Sequence[str], recipe: Recipe) -> None:
    """Make sure that `issue` will not refuse, before any example is spent.

    Parameters
    ----------
    client : str
        Stable id of the client.
    labels : sequence of str
        Names of the labels.
    recipe : Recipe
        How the support set will be spent.

    Raises
    ------
    CertificateError
        If the client's id or the labels cannot be written, the recipe certifies something else
        than an adapter, or it promises more than its delta allows.
    """
    check_client(client)
    members_of({"labels": list(labels)}, "bundle", {"labels": tuple[str, ...]})
    if len(set(labels)) < max(len(labels), 2):
        raise CertificateError("a certificate needs two or more labels, all of them distinct")
    recipe.require_exportable()
    for promise in recipe.promises:
        promise.check_delta(recipe.total_delta)


def issue(
    *,
    client: str,
    recipe: Recipe,
    errors: int,
    certified_on: int,
    support_size: int,
    labels: Sequence[str],
    index: int,
    seed: str,
    vector: npt.NDArray[np.floating[Any]],
    digests: Digests,
    key: Ed25519PrivateKey,
    first_stage: FirstStage | None = None,
    protocol: SeedReceipt | None = None,
    sample: Sample | None = None,
    label_texts: tuple[tuple[str, ...], ...] | None = None,
    promises: tuple[Outcome, ...] = (),
    unlabeled: Unlabeled | None = None,
) -> Certificate:
    """Compute the bound, write the record, and sign it.

    The caller gives counts, never a bound: it follows from them and the recipe. Whether
    the examples were spent before, or are too few, is for the caller to refuse first.

    Parameters
    ----------
    client : str
        Stable id of the client whose distribution is meant.
    recipe : Recipe
        How the support set was spent.
    errors : int
        Wrong labels among the certifying examples, counted with the exported adapter.
    certified_on : int
        Number of certifying examples that were counted, failed ones included.
    support_size : int
        Number of all examples, n.
    labels : sequence of str
        Names of the K labels.
    index : int
        Number of the chosen hypothesis, from 0 to ``recipe.hypotheses - 1``.
    seed : str
        The candidates' 256-bit seed, 64 hexadecimal digits.
    vector : numpy.ndarray
        The candidate's coordinates, shape (d,).
    digests : Digests
        Which bundle, adapter, and examples are meant.
    key : Ed25519PrivateKey
        The client's key.
    first_stage : FirstStage or None
        What the choosing examples said, for a recipe whose weights follow from it
        (default: None).
    protocol : SeedReceipt or None
        From the server that saw the commitment and then issued the seed; None makes the
        certificate say that it is unwitnessed (default: None).
    sample : Sample or None
        What the support set holds out of the ordinary (default: None).
    label_texts : tuple of tuple of str, or None
        The texts of the client's own labels; None if the labels are the bundle's
        (default: None).
    promises : tuple of Outcome
        What became of the recipe's promises, in their order (default: none).
    unlabeled : Unlabeled or None
        Inputs without labels that had a part in making the adapter (default: None).

    Returns
    -------
    Certificate
        One that passes `verify_record`.

    Raises
    ------
    CertificateError
        If the arguments contradict each other or cannot be written, or the recipe
        certifies something else than an adapter.
    """
    errors, certified_on = operator.index(errors), operator.index(certified_on)
    support_size = operator.index(support_size)
    recipe.require_exportable()
    choice = Choice(
        index=operator.index(index), first_stage=first_stage, number=recipe.number_of(seed)
    )
    recipe.check_choice(choice, support_size)
    bound = recipe.bound(errors, certified_on, choice)
    sample = None if sample == Sample() else sample
    unsigned = Certificate(
        client=client,
        errors=errors,
        certified_on=certified_on,
        support_size=support_size,
        bound=bound,
        delta=recipe.total_delta,
        recipe=recipe,
        ledger=whole_ledger(recipe, support_size),
        labels=tuple(labels),
        candidate=Candidate(index=choice.index, seed=seed, vector=encode_vector(vector)),
        digests=digests,
        witness=None if protocol is None else protocol.witness(recipe),
        library=f"fedcert {__version__}",
        statement="",
        assumptions=(),
        signature=Signature(algorithm=ALGORITHM, public_key=public_hex(key), value=""),
        first_stage=first_stage,
        protocol=protocol,
        sample=sample,
        label_texts=label_texts,
        promises=promises or None,
        unlabeled=unlabeled,
    )
    if [p.kind for p in recipe.promises] != [outcome.kind for outcome in promises]:
        raise CertificateError("the outcomes are not those of the recipe's promises")
    words = TEMPLATES[0]
    worded = replace(
        unsigned,
        statement=words.statement(unsigned),
        assumptions=words.assumptions(unsigned),
    )
    return _checked(worded.signed(key))


def _checked(certificate: Certificate) -> Certificate:
    # What leaves here must be what every verifier accepts; a device that signs something
    # else has spent its examples for nothing.
    if failures := verify_record(certificate).failures:
        raise CertificateError(
            f"this certificate would not verify: {'; '.join(c.detail for c in failures)}"
        )
    return certificate
