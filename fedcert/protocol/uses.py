"""What earlier uses of examples mean: whether they are the same observations, what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from fedcert.data.examples import Examples

__all__ = [
    "CERTIFICATE",
    "REPEATS_ARE_NEW",
    "TRAINING",
    "UNLABELED",
    "Use",
    "Uses",
    "found_again",
    "one_use_again",
    "rows_of",
    "same_words",
    "spent_words",
]

CERTIFICATE = "a certificate"
"""What a commitment spends its examples on."""

REPEATS_ARE_NEW = "--repeats-are-new, or repeats-are-new=true in a node's configuration"
"""How one states that spent inputs came up again, in a message."""

Use = tuple[str, str]
"""Purpose and claim."""

Uses = list[Use | None]
"""Of each example purpose and claim of its use; None if it has none."""

TRAINING = "training"
"""What purposes of a client's training examples begin with."""

UNLABELED: Use = ("being read without labels", "")
"""The use of an input that has a part in making an adapter; it belongs to no claim."""

_CHANCE = 0.001


def one_use_again(uses: Uses, examples: Examples, spent: Mapping[Use, int]) -> bool:
    """Say whether examples must be the observations of one earlier use, whatever is stated.

    Frequent inputs come up again, but then also among themselves, so what counts are inputs
    that the examples have once. There are two signs.

    * More than half of the examples are one earlier use. Of two samples of one size at most a
      quarter is expected to be alone in the second and in the first as well.
    * A use has more of its inputs once here than independent examples bring. Of m examples an
      input that each of them has with probability p is alone among them with probability
      m p (1 - p)^(m - 1), at most (1 - 1/m)^(m - 1); a binomial tail below 0.001 is a sign.
      This one finds a use in a longer file.

    Parameters
    ----------
    uses : list
        Of each example what it was spent on.
    examples : Examples
        The examples.
    spent : Mapping
        How many inputs each use has.

    Returns
    -------
    bool
        Whether they are. All training is one use: a node's training examples are divided, such
        as among a warm start and an upload.
    """
    once = zip(uses, examples.occurrences(), strict=True)
    counts = Counter(_whole(use) for use, times in once if use is not None and times == 1)
    sizes: Counter[Use] = Counter()
    for use, count in spent.items():
        sizes[_whole(use)] += count
    return 2 * max(counts.values(), default=0) > len(examples) or any(
        found_again(count, size=sizes[use], among=len(examples))
        for use, count in counts.items()
    )


def found_again(count: int, *, size: int, among: int) -> bool:
    """Say whether a use has more of its inputs once among examples than chance brings.

    Parameters
    ----------
    count : int
        How many of its inputs occur exactly once among the examples.
    size : int
        How many inputs the use has.
    among : int
        m, how many examples there are.

    Returns
    -------
    bool
        Whether that many have probability below 0.001 for independent examples.
    """
    if not count:
        return False
    alone = (1 - 1 / among) ** (among - 1)
    return bool(binom.sf(count - 1, size, alone) < _CHANCE)


def _whole(use: Use) -> Use:
    return (TRAINING, "") if use[0].startswith(TRAINING) else use


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
        f"inputs just came up again, keep every one and state it with {REPEATS_ARE_NEW}: "
        "without them the rest would be no sample of your distribution, and the certificate "
        "false more often than it says"
    )


def same_words(uses: Uses) -> str:
    """Say that examples are those of an earlier use, whatever is stated of them."""
    return (
        f"{_listed(uses)}. Too many of them were there together, so these are no new "
        "observations, whatever is stated: inputs that are that frequent would come up more "
        "than once here, too. Collect fresh examples, or leave out exactly the rows that were "
        "used, and no others"
    )
