"""Committing to a support set, and the seed of who commits to no server."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcert.bundles import Bundle
from fedcert.certificates import Certificate, Recipe, Unlabeled, check_issuable, points_of
from fedcert.data.examples import Examples
from fedcert.data.orders import in_drawn_order
from fedcert.label_set import LabelSet
from fedcert.personalization.requirements import (
    check_duplicates,
    check_size,
    names_of,
    recipe_for,
)
from fedcert.personalization.unlabeled import check_unlabeled
from fedcert.protocol.commitment import Commitment
from fedcert.protocol.device import DeviceState
from fedcert.protocol.seeds import recipe_for_attempt
from fedcert.randomness import derive_seed

__all__ = ["candidate_seed", "commit_to", "in_certified_order", "order_seed"]


def candidate_seed(
    bundle_digest: str,
    client: str,
    support_size: int,
    labels: LabelSet | None = None,
    unlabeled: Unlabeled | None = None,
) -> str:
    """Derive the seed of an unwitnessed certificate's candidates and of its split.

    It follows from public things, so that neither client nor verifier has a choice. Without
    a commitment to a server a client could still try other names: certificates made this
    way say that they are unwitnessed.

    Parameters
    ----------
    bundle_digest : str
        Digest of the bundle, 64 hexadecimal digits.
    client : str
        Stable id of the client.
    support_size : int
        Number of examples, n.
    labels : LabelSet, optional
        The client's own, if the bundle leaves them to clients.
    unlabeled : Unlabeled, optional
        Inputs without labels, if it gives some: others go with another seed, so that none can
        be tried for long on the examples that certify.

    Returns
    -------
    str
        256 bits in hexadecimal.
    """
    own = [] if labels is None else [labels.digest]
    if unlabeled is not None:
        own.append(f"unlabeled {unlabeled.digest}")
    return derive_seed("candidates", bundle_digest, client, support_size, *own)


def order_seed(
    recipe: Recipe,
    seed: str,
    *,
    client: str,
    support_size: int,
    labels: LabelSet | None = None,
    witnessed: bool,
) -> str:
    """Return what decides in which order the examples are, and so which of them certify.

    That is the seed, unless it is an unwitnessed certificate's at one of several operating
    points: these put the examples into one order, so that a policy which takes the adapters
    of two of them can be certified on examples that chose neither.

    Parameters
    ----------
    recipe : Recipe
        How the support set is spent.
    seed : str
        The candidates'.
    client : str
        Stable id of the client.
    support_size : int
        Number of examples, n.
    labels : LabelSet, optional
        The client's own, if the bundle leaves them to clients.
    witnessed : bool
        Whether a server issued the seed.

    Returns
    -------
    str
        256 bits in hexadecimal, for `fedcert.data.orders.in_drawn_order`.
    """
    point = points_of(recipe.promises)
    if witnessed or point is None:
        return seed
    return candidate_seed(point.family, client, support_size, labels)


def in_certified_order(certificate: Certificate, examples: Examples) -> Examples:
    """Return a support set in the order that the seed of its certificate draws."""
    seed = order_seed(
        certificate.recipe,
        certificate.candidate.seed,
        client=certificate.client,
        support_size=certificate.support_size,
        labels=certificate.label_set,
        witnessed=certificate.protocol is not None,
    )
    return in_drawn_order(examples, seed)


def commit_to(
    bundle: Bundle,
    examples: Examples,
    *,
    client: str,
    key: Ed25519PrivateKey,
    state: DeviceState,
    retry: bool = False,
    duplicates_are_real: bool = False,
    repeats_are_new: bool = False,
    labels: LabelSet | None = None,
    unlabeled: Examples | None = None,
) -> Commitment:
    """Commit to a support set, for a server that will answer with a seed.

    Parameters
    ----------
    bundle, examples, client, key
        As in `personalize`.
    state : DeviceState
        Where the client keeps what it has spent, and its salts.
    retry : bool (default: False)
        Ask for another seed for the same examples, at a smaller delta.
    duplicates_are_real, repeats_are_new : bool (default: False)
        The client's statements, as in `personalize`.
    labels : LabelSet, optional
        The client's own, if the bundle leaves them to clients: `Task.label_set`.
    unlabeled : Examples, optional
        Inputs without labels, as in `personalize`.

    Returns
    -------
    Commitment
        What goes to the server; the salts stay in `state`.

    Raises
    ------
    CertificateError
        If no certificate could name this client.
    DataError
        If the examples are empty or of one class, or an input occurs more than once.
    RefusalError
        If they are too few or already spent, or among the inputs without labels.
    """
    names = names_of(bundle, labels)
    recipe = recipe_for(bundle, examples, names)
    check_size(names, recipe_for_attempt(recipe, 1), len(examples))
    check_issuable(client, names, recipe)
    check_duplicates(examples, duplicates_are_real)
    check_unlabeled(bundle, examples, unlabeled, repeats_are_new=repeats_are_new)
    return state.commit(
        examples,
        client=client,
        key=key,
        bundle=bundle.digest,
        recipe=recipe,
        retry=retry,
        repeats_are_new=repeats_are_new,
        labels=labels,
        unlabeled=unlabeled,
    )
