"""What a certificate says, in plain words: versioned templates that its fields fill in.

Verification checks the fields, and that the words are what a known template makes of them, so
nobody can sign true numbers under a stronger sentence. A template that certificates were made
with never changes: to say something in better words, put a new one at the head of `TEMPLATES`
and leave the others as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from fedcert.certificates.bounds import chance_of, confidence
from fedcert.certificates.promises import share_of
from fedcert.certificates.randomized import LEAST
from fedcert.certificates.recipes import LedgerEntry, Recipe
from fedcert.certificates.record import Certificate
from fedcert.errors import CertificateError

__all__ = [
    "FIRST_ASSUMPTIONS",
    "TEMPLATES",
    "Template",
    "promised",
    "whole_ledger",
]

FIRST_ASSUMPTIONS = (
    "The support set is an i.i.d. sample of the client's own distribution; in particular "
    "it was not balanced by class.",
    "The support set and the recipe were fixed before any candidate was scored, and the "
    "seed of the candidates was drawn without regard to the examples.",
    "The examples were used for nothing else that the candidates depend on: not for an "
    "upload, a warm start, normalization statistics, selection, planning, or an earlier "
    "certificate.",
    "Near-duplicates among the examples, other devices of the same person, and what the "
    "base model saw in pretraining are outside what can be checked.",
    "To anybody who does not have the examples, the examples, their labels, and the count "
    "of errors are the signer's word.",
    "The certificate speaks for itself alone: N certificates that are to hold together "
    "each need delta/N, with N fixed beforehand.",
)
"""The words of the first version: certificates that carry them verify as before."""

_SIZE = "How many examples there are was fixed beforehand, without regard to their labels."
_WORD = (
    "To anybody who does not have the examples, the examples, their labels, and the count of "
    "errors are the signer's word"
)
_UNCONDITIONAL = (
    "The probability is that of the whole procedure before the examples are drawn, not of "
    "this outcome: among certificates picked for a low bound, more than delta may be false."
)
_PREDICTOR = (
    "The bound speaks about the adapter on the named base model in the precision in which its "
    "errors were counted, float32 unless the base model is quantized, with inputs encoded, and "
    "cut off where they are too long, as the bundle says; otherwise labels can change."
)

_OWN_LABELS = (
    "The names of the labels, and the texts that stand for them, are the client's own and were "
    "fixed without a look at the examples; every label that can occur is named."
)

_UNWITNESSED = (
    "This certificate is unwitnessed: nothing outside this device shows that the seed and "
    "the examples were not tried several times."
)


def _statement(certificate: Certificate) -> str:
    """Say what the certificate claims, in plain English."""
    return _said(certificate, _own_delta(certificate.recipe))


def _second_statement(certificate: Certificate) -> str:
    # It said "all of delta" where promises have a part of it.
    return _said(certificate, ())


def _said(certificate: Certificate, own_delta: tuple[str, ...]) -> str:
    recipe, sample, witness = certificate.recipe, certificate.sample, certificate.witness
    return " ".join(
        (
            f"With probability at least {confidence(certificate.delta)} over the draw of the "
            f"support set and of the seed, this adapter's probability of a wrong label on a "
            f"fresh example of the client's own distribution is at most "
            f"{certificate.bound:.6f}.",
            f"It was wrong on {certificate.errors} of the {certificate.certified_on} "
            f"certifying examples.",
            *(() if sample is None else sample.statements()),
            recipe.statement(certificate.support_size),
            *own_delta,
            *((_randomized(certificate.choice.number),) if recipe.randomized else ()),
            f"A prediction whose margin over the runner-up logit is not above "
            f"{Decimal(str(recipe.margin_tolerance)):f} counts as an error, and so does an "
            f"example that fails to evaluate.",
            _against_chance(certificate.bound, len(certificate.labels)),
            *promised(certificate),
            _UNWITNESSED if witness is None else f"Witnessed by: {witness}.",
        )
    )


def whole_ledger(recipe: Recipe, n: int) -> tuple[LedgerEntry, ...]:
    """Return where delta goes, promises included, and what came with it for nothing."""
    randomized = LedgerEntry(
        "lower the bound by a random number that is drawn with the seed", 0.0
    )
    return (
        *recipe.ledger(n),
        *((randomized,) if recipe.randomized else ()),
        *(
            LedgerEntry(promise.purpose(), share_of(promise, recipe.delta))
            for promise in recipe.promises
        ),
    )


def promised(certificate: Certificate) -> tuple[str, ...]:
    """Return what a certificate promises beside its bound, in the order of its recipe."""
    recipe, n = certificate.recipe, certificate.support_size
    outcomes = certificate.promises or ()
    if [p.kind for p in recipe.promises] != [outcome.kind for outcome in outcomes]:
        raise CertificateError("the record does not hold what its recipe promises")
    return tuple(
        promise.words(outcome, recipe.ground(promise, certificate.choice, n))
        for promise, outcome in zip(recipe.promises, outcomes, strict=True)
    )


def _first_assumptions(certificate: Certificate) -> tuple[str, ...]:
    # They had no words for what came later.
    later = (
        certificate.sample is not None
        or certificate.label_texts is not None
        or certificate.promises is not None
        or certificate.unlabeled is not None
    )
    return () if later else FIRST_ASSUMPTIONS


def _assumptions(certificate: Certificate) -> tuple[str, ...]:
    """Return what must be true for a certificate to mean what it says, a sentence each."""
    before, after = FIRST_ASSUMPTIONS[:4], FIRST_ASSUMPTIONS[5:]
    unlabeled = certificate.unlabeled
    own = _also_the_signers_word(
        certificate.recipe, certificate.support_size, beside=unlabeled is not None
    )
    if certificate.promises is not None:
        own += ", and so is whatever was counted, or chosen, for what else it promises"
    stated = () if certificate.sample is None else certificate.sample.assumptions()
    named = () if certificate.label_texts is None else (_OWN_LABELS,)
    read = () if unlabeled is None else (unlabeled.assumption(),)
    words = (_UNCONDITIONAL, _PREDICTOR, *named, *stated, *read)
    return (*before, f"{_WORD}{own}.", *after, *words)


def _assumptions_with_size(certificate: Certificate) -> tuple[str, ...]:
    # Constant predictors, and a center that is wrong on one class, err by the labels alone:
    # whoever labels until they do not has found an n at which the bound is false.
    sample, *others = _assumptions(certificate)
    return (sample, _SIZE, *others)


def _also_the_signers_word(recipe: Recipe, n: int, *, beside: bool) -> str:
    """Say what else only the examples can show; see `fedcert.verification`."""
    if recipe.refines:
        inputs = " and the inputs without labels" if beside else ""
        return f", and so is that the adapter was made from the choosing examples{inputs} alone"
    if recipe.has_first_stage:
        return (
            ", and so is the first stage: how many errors each candidate makes on the "
            "examples that weight"
        )
    if recipe.pays_for_choosing(n):
        return ""
    return ", and so is that the certifying examples had no part in the choice"


def _own_delta(recipe: Recipe) -> tuple[str, ...]:
    """Say what delta the bound is computed with, where that is not the whole certificate's."""
    if not any(promise.share for promise in recipe.promises):
        return ()
    own, total = (f"{Decimal(str(delta)):f}" for delta in (recipe.delta, recipe.total_delta))
    return (f"That is the delta of the bound alone, {own}: promises have the rest of {total}.",)


def _randomized(number: float) -> str:
    # All digits that matter: whoever computes the bound again by hand needs them.
    return (
        f"The bound uses a random number drawn with the seed: {number!r}, from "
        f"{LEAST:g} to 1; of the probability to see as many errors as were counted only that "
        f"share is taken into account. A seed with another number would have given another "
        f"bound for the same errors, never one above the bound without such a number."
    )


def _against_chance(bound: float, labels: int) -> str:
    guessing = (
        f"Guessing among the {labels} labels is wrong with probability {labels - 1}/{labels}"
    )
    if bound < chance_of(labels):
        return f"{guessing}, so the bound is better than chance."
    return f"{guessing}, so the bound says no more than chance."


@dataclass(frozen=True)
class Template:
    """One version of the words.

    Attributes
    ----------
    version : int
        From 1 on.
    statement : callable
        What a certificate claims.
    assumptions : callable
        What must be true for that, a sentence each, in a fixed order.
    """

    version: int
    statement: Callable[[Certificate], str]
    assumptions: Callable[[Certificate], tuple[str, ...]]


TEMPLATES = (
    Template(4, _statement, _assumptions_with_size),
    Template(3, _statement, _assumptions),
    Template(2, _second_statement, _assumptions),
    Template(1, _statement, _first_assumptions),
)
"""The known templates; certificates are issued in the words of the first."""
