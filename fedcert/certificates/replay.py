"""Replaying recipes on a table of right and wrong predictions.

For planning and benchmarks: a replay says what a recipe would have certified. Support sets
nest, so one table serves every n. A replay is not a certificate: who picks n or the recipe by
these figures must not certify on the same examples. NumPy and SciPy only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fedcert.certificates.counts import ErrorTable, Refined
from fedcert.certificates.randomized import EVENLY
from fedcert.certificates.recipes.base import Choice, Recipe
from fedcert.certificates.recipes.session import TableSession
from fedcert.errors import CertificateError

__all__ = [
    "ErrorTable",
    "Refined",
    "ReplayedBound",
    "disjoint_parts",
    "mean_bound",
    "mean_of",
    "replay",
]


@dataclass(frozen=True, kw_only=True)
class ReplayedBound:
    """What a recipe would have certified.

    Attributes
    ----------
    bound : float
        The certified risk.
    risk : float
        The risk of what was certified, from the table; NaN where the table cannot tell.
    errors : float
        Errors on the certifying examples; the expected number for a randomized predictor.
    trials : int
        Number of certifying examples.
    index : int or None
        The chosen hypothesis: a candidate (`Recipe.candidate_of`) or a refined one; None if no
        single one is certified.
    """

    bound: float
    risk: float
    errors: float
    trials: int
    index: int | None


def replay(
    recipe: Recipe,
    table: ErrorTable,
    n: int,
    refined: Refined | None = None,
    *,
    number: float = 1.0,
) -> ReplayedBound:
    """Play a recipe on the first n examples of a table.

    Parameters
    ----------
    recipe : Recipe
        The recipe, of any kind, also one that cannot be issued.
    table : ErrorTable
        Its first ``recipe.candidates`` rows and first n columns are used.
    n : int
        Size of the support set, from 1 to the number of columns.
    refined : Refined or None
        What was made from the choosing examples, on the certifying ones: needed exactly if
        ``recipe.refines`` (default: None).
    number : float
        What a randomized bound takes from the seed (default: 1).

    Returns
    -------
    ReplayedBound
        Bound, risk, and counts of what the recipe would have certified.

    Raises
    ------
    CertificateError
        If the table is too small, or `refined` is missing, not needed, or ill-shaped.
    """
    columns = table.wrong.shape[1]
    if not 1 <= n <= columns:
        raise CertificateError(f"n must be from 1 to the table's {columns} examples, not {n}")
    if not recipe.selects_from_counts():
        return _replay_choice(recipe, table, n, number)
    counts, risks = recipe.counts_and_risks(table, n, refined)
    if recipe.randomized:
        counts = replace(counts, numbers=np.array([number]))
    selection = recipe.select(counts)
    index = None if selection.index is None else int(selection.index[0])
    trials = counts.certified_on
    if index is not None:
        trials = recipe.certifies_on(Choice(index=index), n).size
    return ReplayedBound(
        bound=float(selection.bounds[0]),
        risk=recipe.risk_of(selection, table, risks),
        errors=float(selection.errors[0]),
        trials=trials,
        index=index,
    )


def _replay_choice(recipe: Recipe, table: ErrorTable, n: int, number: float) -> ReplayedBound:
    """Let the recipe choose by itself, on the table."""
    session = TableSession(table, candidates=recipe.candidates, n=n, number=number)
    chosen = recipe.choose(session)
    row = session.rows_of(chosen.vector[None])
    span = recipe.certifies_on(chosen.choice, n)
    errors = int(table.wrong[row, span.as_slice()].sum())
    return ReplayedBound(
        bound=recipe.bound(errors, span.size, replace(chosen.choice, number=number)),
        risk=float(table.test_risk[row][0]),
        errors=errors,
        trials=span.size,
        index=chosen.index,
    )


def mean_bound(
    recipe: Recipe, table: ErrorTable, n: int, refined: Refined | None = None
) -> float:
    """Return the mean of what a recipe would have certified on disjoint parts of a table.

    How many errors fall on a few certifying examples is mostly chance. One client's further
    examples tell that chance apart from the recipe, at no more cost than counting. So does a
    mean over the numbers that a randomized bound may take from the seed.

    Parameters
    ----------
    recipe : Recipe
        The recipe, of any kind.
    table : ErrorTable
        As in `replay`; its columns are cut into parts of n, and a rest is left out.
    n : int
        Size of the support set, from 1 to the number of columns.
    refined : Refined or None
        As in `replay`, but on the examples after the choosing ones, as many as there are:
        what was made from one choosing part certifies on disjoint parts (default: None).

    Returns
    -------
    float
        A mean of bounds, in (0, 1].

    Raises
    ------
    CertificateError
        As in `replay`.
    """
    if refined is None:
        parts = [
            ErrorTable(
                wrong=table.wrong[:, part],
                losses=table.losses[:, part],
                test_risk=table.test_risk,
                test_wrong=table.test_wrong,
            )
            for part in disjoint_parts(table.wrong.shape[1], n)
        ] or [table]
        return mean_of([_expected(recipe, part, n, None) for part in parts])
    size = recipe.certifying(n).size
    tested = [
        Refined(wrong=refined.wrong[:, part], test_risk=refined.test_risk)
        for part in disjoint_parts(refined.wrong.shape[1], size)
    ] or [refined]
    return mean_of([_expected(recipe, table, n, part) for part in tested])


def _expected(recipe: Recipe, table: ErrorTable, n: int, refined: Refined | None) -> float:
    numbers = EVENLY if recipe.randomized else (1.0,)
    return mean_of([replay(recipe, table, n, refined, number=u).bound for u in numbers])


def mean_of(bounds: list[float]) -> float:
    """Return the mean of some bounds."""
    # A sum may round to below the lowest bound that there can be.
    return float(np.clip(np.mean(bounds), min(bounds), max(bounds)))


def disjoint_parts(count: int, size: int) -> list[slice]:
    """Cut `count` positions into consecutive parts of one size; a rest is left out."""
    starts = range(0, count - size + 1, size) if size >= 1 else ()
    return [slice(start, start + size) for start in starts]
