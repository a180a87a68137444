"""What earlier uses of examples mean: whether they are the same observations, what to do."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from fedcert.data.examples import Examples

__all__ = [
    "CERTIFICATE",
    "TRAINING",
    "UNLABELED",
    "Uses",
    "mostly_one_use",
    "rows_of",
    "same_words",
    "spent_words",
]

CERTIFICATE = "a certificate"
"""What a commitment spends its examples on."""

Uses = list[tuple[str, str] | None]
"""Of each example purpose and claim of its use; None if it has none."""

TRAINING = "training"
"""What purposes of a client's training examples begin with."""

UNLABELED = ("being read without labels", "")
"""The use of an input that has a part in making an adapter; it belongs to no claim."""


def mostly_one_use(uses: Uses, examples: Examples) -> bool:
    """Say whether more than half of the examples look like those of one earlier use.

    All training is one use: a node's training examples are divided, such as among a warm start
    and an upload.

    Frequent inputs come up again, but then also among themselves. Of two samples of one size at
    most a quarter is expected to be alone in the second and in the first as well, so more than
    half are the same observations (docs/theory.md).
    """
    once = zip(uses, examples.occurrences(), strict=True)
    counts = Counter(
        TRAINING if use[0].startswith(TRAINING) else use
        for use, times in once
        if use is not None and times == 1
    )
    return 2 * max(counts.values(), default=0) > len(examples)


def rows_of(uses: Uses) -> npt.NDArray[np.int64]:
    """Return the places of examples that have a use."""
    return np.flatnonzero([use is not None for use in uses])


def _listed(uses: Uses) -> str:
    purposes = {use[0] for use in uses if use is not None}
    known = sum(use is not None for use in uses)
    committed = CERTIFICATE in purposes
    hint = " (or committed to: then give the server's answer, --seed)" if committed else ""
    return (
        f"{known} of the {len(uses)} examples are already spent on: "
        f"{', '.join(sorted(purposes))}{hint}"
    )


def spent_words(uses: Uses) -> str:
    """Say what examples were spent on, and what to do."""
    return (
        f"{_listed(uses)}. A certificate needs examples that nothing else has depended on (a "
        "new label does not make a new example), or, for a retry, exactly the same examples "
        "and recipe; collect fresh ones. If these are fresh, drawn at random, and frequent "
        "inputs just came up again, keep every one and state it with --repeats-are-new: "
        "without them the rest would be no sample of your distribution, and the certificate "
        "false more often than it says"
    )


def same_words(uses: Uses) -> str:
    """Say that examples are those of an earlier use, whatever is stated of them."""
    return (
        f"{_listed(uses)}. Most of them were there together, so these are no new observations, "
        "whatever is stated: inputs that are that frequent would come up more than once here, "
        "too. Collect fresh examples"
    )
