"""What a certificate rests on, fixed before anything is scored: recipe, seed, statements."""

from __future__ import annotations

from dataclasses import dataclass

from fedcert.bundles import Bundle
from fedcert.certificates import Recipe, Unlabeled, check_issuable
from fedcert.certificates.receipt import SeedReceipt
from fedcert.data.examples import Examples
from fedcert.errors import ProtocolError
from fedcert.label_set import LabelSet
from fedcert.personalization.committing import candidate_seed, order_seed
from fedcert.personalization.requirements import (
    check_duplicates,
    check_size,
    names_of,
    recipe_for,
)
from fedcert.personalization.unlabeled import check_unlabeled, without_server
from fedcert.protocol.device import DeviceState
from fedcert.protocol.seeds import SeedGrant

__all__ = ["Authorized", "Statements", "authorize"]


@dataclass(frozen=True)
class Statements:
    """What a client states of its support set; the certificate repeats it.

    Attributes
    ----------
    duplicates_are_real : bool
        Inputs that occur more than once were drawn more than once, and none was copied.
    repeats_are_new : bool
        Spent inputs came up again in new observations. With a grant, it was made with the
        commitment.
    """

    duplicates_are_real: bool = False
    repeats_are_new: bool = False


@dataclass(frozen=True, kw_only=True)
class Authorized:
    """What may be done with a support set.

    Attributes
    ----------
    names : tuple of str
        The labels.
    label_texts : tuple or None
        What is embedded for each of them, if they are the client's own.
    recipe : Recipe
        How the examples are spent.
    seed : str
        Decides the candidates.
    order : str
        Decides which of the examples certify.
    receipt : SeedReceipt or None
        The server's word about the seed; None without a server.
    duplicates, repeats : int
        How many examples the client's statements are about.
    unlabeled : Unlabeled or None
        What names the inputs without labels that have a part in the adapter.
    """

    names: tuple[str, ...]
    label_texts: tuple[tuple[str, ...], ...] | None
    recipe: Recipe
    seed: str
    order: str
    receipt: SeedReceipt | None
    duplicates: int
    repeats: int
    unlabeled: Unlabeled | None


def authorize(
    bundle: Bundle,
    examples: Examples,
    *,
    client: str,
    labels: LabelSet | None,
    stated: Statements,
    state: DeviceState | None,
    grant: SeedGrant | None,
    unlabeled: Examples | None,
) -> Authorized:
    """Check a support set, and spend it.

    Parameters
    ----------
    bundle, examples, client, state, grant, unlabeled
        As in `fedcert.personalization.personalize`, which also lists what is raised.
    labels : LabelSet or None
        The client's own, if the bundle leaves them to clients.
    stated : Statements
        What the client says of the examples.

    Returns
    -------
    Authorized
        All that the certificate follows from, but for what is counted.
    """
    names = names_of(bundle, labels)
    recipe, receipt = recipe_for(bundle, examples, names), None
    check_issuable(client, names, recipe)
    duplicates = check_duplicates(examples, stated.duplicates_are_real)
    # Where a commitment was made, the statement was made with it.
    repeats = check_unlabeled(
        bundle,
        examples,
        unlabeled,
        repeats_are_new=stated.repeats_are_new or grant is not None,
    )
    if grant is None:
        recipe = recipe.unwitnessed()
        check_size(names, recipe, len(examples))
        read = without_server(unlabeled, bundle.digest)
        seed = candidate_seed(bundle.digest, client, len(examples), labels, read)
        if state is not None:
            repeats = state.spend_unwitnessed(
                examples,
                client=client,
                bundle=bundle.digest,
                recipe=recipe,
                repeats_are_new=stated.repeats_are_new,
                labels=labels,
                unlabeled=unlabeled,
            )
    else:
        if state is None:
            raise ProtocolError("a seed can be used only with the state that committed")
        opening = state.accept(
            grant,
            examples,
            bundle=bundle.digest,
            client=client,
            server=bundle.server,
            labels=labels,
            unlabeled=unlabeled,
        )
        read = opening.unlabeled
        repeats = state.spent.stated_new(opening.commitment.claim)
        recipe, seed, receipt = grant.recipe, grant.seed, grant.receipt
        check_size(names, recipe, len(examples))
    order = order_seed(
        recipe,
        seed,
        client=client,
        support_size=len(examples),
        labels=labels,
        witnessed=grant is not None,
    )
    return Authorized(
        names=names,
        label_texts=None if labels is None else labels.texts,
        recipe=recipe,
        seed=seed,
        order=order,
        receipt=receipt,
        duplicates=duplicates,
        repeats=repeats,
        unlabeled=read,
    )
