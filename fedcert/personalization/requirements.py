"""What a support set, and the model for it, must be before anything is done with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedcert.adapters.forward import AdaptedModel
from fedcert.bundles import Bundle
from fedcert.certificates import Recipe
from fedcert.data.examples import Examples
from fedcert.errors import BundleError, DataError, RefusalError
from fedcert.label_set import LabelSet

__all__ = ["check_duplicates", "check_model", "check_size", "names_of", "recipe_for"]


def check_model(bundle: Bundle, model: AdaptedModel) -> None:
    """Raise `BundleError` if a model is another one than the bundle's."""
    if model.space.digest != bundle.space.digest:
        raise BundleError("the model was set up for another adapter space than the bundle's")
    if model.task.inputs.to_config() != bundle.inputs.to_config():
        raise BundleError("the model was set up for other inputs than the bundle's")
    if model.base.takes_labels != bundle.takes_labels:
        # Trying phrasings on the examples that certify would be a search nobody paid for.
        raise BundleError(
            "the labels' names decide what this base model predicts, and the bundle does not "
            "leave them to clients, so no commitment would hold them; publish it without labels"
            if model.base.takes_labels
            else "the bundle leaves the labels to clients, and this base model has its own"
        )


def names_of(bundle: Bundle, labels: LabelSet | None) -> tuple[str, ...]:
    """Return the names of the labels, the client's own if the bundle leaves them to it."""
    if bundle.takes_labels and labels is None:
        raise DataError(
            "the bundle leaves the labels to you: name all that can occur, in an order that "
            "stays, before you look at the examples"
        )
    if labels is not None and not bundle.takes_labels:
        raise DataError(f"the labels are the bundle's: {', '.join(bundle.labels)}")
    return bundle.labels if labels is None else labels.names


def recipe_for(bundle: Bundle, examples: Examples, names: Sequence[str]) -> Recipe:
    """Return the bundle's recipe for as many examples.

    Parameters
    ----------
    bundle : Bundle
        It has the recipe table.
    examples : Examples
        The support set.
    names : sequence of str
        The labels.

    Returns
    -------
    Recipe
        It follows from the number of examples alone.

    Raises
    ------
    DataError
        If there are no examples, or all have one label.
    RefusalError
        If they are too few.
    """
    size = len(examples)
    if size == 0:
        raise DataError("the support set is empty; a certificate needs labeled examples")
    # Where the names define the task, examples of one label say something as well.
    if len(np.unique(examples.usable.labels)) < 2 and not bundle.takes_labels:
        # Not which one: a node's server gets these words.
        raise DataError(
            f"all {size} support examples have the same label, from which nothing is learned; "
            "fix a larger number, and label a fresh random sample of that size of what the "
            "model will meet"
        )
    recipe = bundle.recipes.recipe_for(size)
    check_size(names, recipe, size)
    return recipe


def check_duplicates(examples: Examples, are_real: bool) -> int:
    """Return how many inputs are not alone; refuse them unless the client stands for them."""
    count = examples.duplicates
    if count and not are_real:
        raise DataError(
            f"{count} of the {len(examples)} support examples have an input that occurs more "
            "than once among them, up to case and spacing. Copies (a file joined with itself, "
            "a class that was filled up) are no independent examples, and a certificate on "
            "them would be false: go back to the sample as it was drawn. If these inputs "
            "really were drawn more than once, keep them all and state it: "
            "--duplicates-are-real, or duplicates-are-real=true in a node's configuration. "
            "Taking out repeats of what was drawn makes a certificate false as well"
        )
    return count


def check_size(names: Sequence[str], recipe: Recipe, size: int) -> None:
    """Refuse a support set with which no outcome would say more than guessing.

    Parameters
    ----------
    names : sequence of str
        The labels.
    recipe : Recipe
        How the examples would be spent.
    size : int
        Number of examples, n.

    Raises
    ------
    RefusalError
        It says how many are needed.
    """
    needed = recipe.smallest_n(1 - 1 / len(names))
    if size < needed:
        raise RefusalError(
            f"{size} examples are too few: even without an error the bound of the recipe "
            f"{recipe.kind!r} would be no better than guessing; label at least {needed}"
        )
