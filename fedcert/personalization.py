"""Personalizing a new client: bundle and labeled examples in, adapter and certificate out.

The order of the steps carries the validity of the certificate (docs/theory.md): the recipe
follows from n alone, seed and candidates from the bundle and the client's name, the split
from the seed and the content of the examples; only then is anything scored.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcert.adapters.forward import AdaptedModel
from fedcert.adapters.peft_format import write_peft_adapter
from fedcert.atomic import replaced_folder
from fedcert.bundle import Bundle
from fedcert.certificates import Certificate, Digests, Recipe, issue
from fedcert.data.examples import Examples
from fedcert.errors import BundleError, DataError, RefusalError
from fedcert.randomness import derive_seed, keyed_generator
from fedcert.search import BatchedScorer, exported_wrong, search

__all__ = ["Personalization", "candidate_seed", "in_drawn_order", "personalize"]


@dataclass(frozen=True)
class Personalization:
    """What a new client leaves with.

    Attributes
    ----------
    certificate : Certificate
        Also written to ``certificate.json``.
    adapter : Path
        A PEFT adapter folder.
    seconds : float
        Wall time from examples to certificate.
    """

    certificate: Certificate
    adapter: Path
    seconds: float


def candidate_seed(bundle_digest: str, client: str, support_size: int) -> str:
    """Derive the seed of a client's candidates and of its split.

    It follows from public things, so that neither client nor verifier has a choice. Without
    a server's commitment a client could still try other names: certificates made this way
    say that they are unwitnessed.
    """
    return derive_seed("candidates", bundle_digest, client, support_size)


def in_drawn_order(examples: Examples, seed: str) -> Examples:
    """Put examples into the order that decides which of them choose and which certify.

    The order follows from the seed and the examples' content, not from the order in which
    the client listed them.
    """
    order = keyed_generator("support order", seed).permutation(len(examples))
    return examples.canonical_order(seed).take(order)


def personalize(
    bundle: Bundle,
    model: AdaptedModel,
    examples: Examples,
    *,
    client: str,
    key: Ed25519PrivateKey,
    folder: Path,
    on_scored: Callable[[int], None] = lambda _count: None,
) -> Personalization:
    """Choose the best candidate for a support set and certify it.

    Parameters
    ----------
    bundle : Bundle
        What the federation published.
    model : AdaptedModel
        The bundle's base model in the bundle's space.
    examples : Examples
        The support set: an i.i.d. sample of the client's own distribution, used for nothing
        else before.
    client : str
        Stable id of the client.
    key : Ed25519PrivateKey
        Signs the certificate.
    folder : Path
        Gets ``adapter/`` and ``certificate.json``.
    on_scored : callable
        Told how many more candidates have been scored, now and then.

    Raises
    ------
    DataError
        If the examples are empty or of one class.
    RefusalError
        If there are too few examples for a certificate to say anything.
    """
    started = time.perf_counter()
    if model.space.digest != bundle.space.digest:
        raise BundleError("the model was set up for another adapter space than the bundle's")
    recipe = _recipe_for(bundle, examples)
    seed = candidate_seed(bundle.digest, client, len(examples))
    ordered = in_drawn_order(examples, seed)
    choosing = recipe.choosing(len(examples)).as_slice()
    certifying = recipe.certifying(len(examples)).as_slice()
    tolerance = recipe.margin_tolerance
    winner = search(
        bundle.prior,
        BatchedScorer(model, bundle.inputs, margin_tolerance=tolerance),
        ordered.take(choosing),
        seed=seed,
        candidates=recipe.candidates,
        on_scored=on_scored,
    )
    # Adapter and certificate take their places together: on a full disk the old pair stays.
    with replaced_folder(folder / "adapter") as staging:
        adapter_digest = write_peft_adapter(
            bundle.space, winner.vector, staging, base_name=model.base.name
        )
        # Counted anew with the adapter that is handed out, not with the search's arithmetic.
        wrong = exported_wrong(
            model.base,
            staging,
            ordered.take(certifying),
            spec=bundle.inputs,
            margin_tolerance=tolerance,
        )
        certificate = issue(
            client=client,
            recipe=recipe,
            errors=int(np.sum(wrong)),
            certified_on=len(wrong),
            support_size=len(examples),
            labels=bundle.labels,
            index=winner.index,
            seed=seed,
            vector=winner.vector,
            digests=Digests(
                bundle=bundle.digest,
                base_model=bundle.base_digest,
                space=bundle.space.digest,
                prior=bundle.prior.digest,
                adapter=adapter_digest,
                support=examples.multiset_digest(seed),
            ),
            key=key,
        )
        certificate.write(folder / "certificate.json")
    return Personalization(certificate, folder / "adapter", time.perf_counter() - started)


def _recipe_for(bundle: Bundle, examples: Examples) -> Recipe:
    size = len(examples)
    if size == 0:
        raise DataError("the support set is empty; a certificate needs labeled examples")
    if len(np.unique(examples.labels)) < 2:
        name = bundle.labels[int(examples.labels[0])]
        raise DataError(
            f"all {size} support examples have the label {name!r}; label a random sample of "
            "what the model will meet, in which every class can occur"
        )
    recipe = bundle.recipes.recipe_for(size)
    needed = recipe.smallest_n(1 - 1 / len(bundle.labels))
    if size < needed:
        raise RefusalError(
            f"{size} examples are too few: even without an error the bound of the recipe "
            f"{recipe.kind!r} would be no better than guessing; label at least {needed}"
        )
    return recipe
