"""Inputs without labels that a client gives: who may, and which."""

from __future__ import annotations

import numpy as np

from fedcert.bundles import Bundle
from fedcert.certificates import Unlabeled
from fedcert.data.examples import Examples
from fedcert.errors import BundleError, DataError, RefusalError
from fedcert.protocol.uses import REPEATS_ARE_NEW, UNLABELED, one_use_again
from fedcert.search.learning import reads_inputs

__all__ = ["check_unlabeled", "overlap", "takes_unlabeled", "without_server"]


def takes_unlabeled(bundle: Bundle, size: int) -> bool:
    """Return whether a bundle's rule for so many examples can use inputs without labels."""
    return bundle.recipes.recipe_for(size).follows_method and reads_inputs(bundle.prior)


def without_server(unlabeled: Examples | None, bundle: str) -> Unlabeled | None:
    """Return what names inputs without labels where nobody has committed to any.

    Parameters
    ----------
    unlabeled : Examples or None
        The inputs.
    bundle : str
        Digest of the bundle, which is the salt: a fresh one would be tried like a seed.
    """
    if unlabeled is None:
        return None
    return Unlabeled(count=len(unlabeled), salt=bundle, digest=unlabeled.inputs_digest(bundle))


def overlap(examples: Examples, unlabeled: Examples) -> tuple[int, bool]:
    """Return how many examples have an input that is among those without labels.

    And whether these must be the very same observations.
    """
    known = _known(unlabeled)
    uses = [
        UNLABELED if digest in known and readable else None
        for digest, readable in zip(examples.input_digests(""), examples.readable, strict=True)
    ]
    same = one_use_again(uses, examples, {UNLABELED: len(known)})
    return sum(use is not None for use in uses), same


def check_unlabeled(
    bundle: Bundle,
    examples: Examples,
    unlabeled: Examples | None,
    *,
    repeats_are_new: bool,
) -> int:
    """Refuse inputs without labels that serve nothing, or that certify as well.

    Parameters
    ----------
    bundle : Bundle
        What they are for.
    examples : Examples
        The support set.
    unlabeled : Examples or None
        The inputs; without any there is nothing to refuse.
    repeats_are_new : bool
        The client's statement that inputs which are in both were drawn more than once.

    Returns
    -------
    int
        How many examples have an input in common with them.

    Raises
    ------
    BundleError
        If the bundle has no use for them.
    DataError
        If none of them can be read, or they have another form than the examples.
    RefusalError
        If an input is in the support set as well, and that was not stated, or cannot be.
    """
    if unlabeled is None:
        return 0
    if not takes_unlabeled(bundle, len(examples)):
        raise BundleError(
            "the bundle has no use for inputs without labels: no method that reads inputs made "
            "it (fedcert methods); leave them out, and keep them for labeling"
        )
    _check_form(examples, unlabeled)
    count, most = overlap(examples, unlabeled)
    if most:
        raise RefusalError(
            f"{count} of the {len(examples)} support examples are among the inputs without "
            "labels: most of these are the same observations, whatever is stated. An adapter "
            "that was made from what certifies it has no certificate. Take the rows that were "
            "labeled out of the inputs without labels (these rows, and none that only read "
            "alike), never out of the support set; or collect other inputs"
        )
    if count and not repeats_are_new:
        raise RefusalError(
            f"{count} of the {len(examples)} support examples have an input that is among the "
            "inputs without labels as well. What certifies an adapter must have no part in "
            "making it: go back to how they were drawn, and take the rows that were labeled "
            "(these, and none that only read alike) out of the inputs without labels, never "
            "out of the support set. If frequent "
            f"inputs were just drawn again, keep them all and state it with {REPEATS_ARE_NEW}"
        )
    return count


def _check_form(examples: Examples, unlabeled: Examples) -> None:
    """Refuse what no reader of files gives: before anything is spent."""
    inputs = unlabeled.inputs[unlabeled.readable]
    if not len(inputs):
        raise DataError("none of the inputs without labels can be read, or there is none")
    found, wanted = (part.shape[1:] for part in (inputs, examples.inputs))
    if found != wanted or (inputs.dtype.kind == "O") != (examples.inputs.dtype.kind == "O"):
        raise DataError(
            f"the inputs without labels have the shape {found} ({inputs.dtype}), and those of "
            f"the examples {wanted} ({examples.inputs.dtype}): both are inputs of one task"
        )
    if inputs.dtype.kind == "f" and not np.isfinite(inputs).all():
        raise DataError("an input without label holds NaN or an infinity; leave it out")


def _known(unlabeled: Examples) -> set[str]:
    """Return digests of the inputs that can be read."""
    digests = zip(unlabeled.input_digests(""), unlabeled.readable, strict=True)
    return {digest for digest, readable in digests if readable}
