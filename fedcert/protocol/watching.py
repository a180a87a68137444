"""Watching a certified adapter on newly labeled examples, across calls.

The certificate speaks about the client's distribution D, so what is counted must be a sample of
D: observations, each of them once. Which inputs came before must not decide what counts. If an
input that had been seen were left out, the rest would be a sample of D given unseen inputs, a
distribution that the certificate says nothing about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedcert.certificates import Certificate
from fedcert.certificates.monitoring import RiskWatch
from fedcert.data.examples import Examples
from fedcert.errors import DataError, ProtocolError, RefusalError
from fedcert.protocol.spent import SpentLedger
from fedcert.protocol.uses import Uses, mostly_one_use

__all__ = ["Watched", "watch_examples"]


# Stands among the ids of observations for those that were counted without one.
_UNNAMED = ""


@dataclass(frozen=True)
class Watched:
    """What one call found.

    Attributes
    ----------
    watch : RiskWatch
        The state after it.
    counted : int
        New observations, which were counted.
    seen : int
        Observations that had been counted before, by their ids.
    restarted : bool
        Whether an older watch was left behind, which counted each input once.
    """

    watch: RiskWatch
    counted: int
    seen: int
    restarted: bool


def watch_examples(
    certificate: Certificate,
    examples: Examples,
    *,
    ledger: SpentLedger,
    alpha: float,
    count_wrong: Callable[[Examples], npt.NDArray[np.bool_]],
    ids: Sequence[str] | None = None,
    rows_are_new: bool = False,
) -> Watched:
    """Count new observations, in order, against a certificate's claim.

    Parameters
    ----------
    certificate : Certificate
        The certificate, whose bound is the claim.
    examples : Examples
        In the order in which they came, labeled regardless of the prediction.
    ledger : SpentLedger
        Keeps the state. What is counted here is spent: no certificate may rest on it.
    alpha : float
        Probability of a false alarm, ever.
    count_wrong : callable
        Tells for each of the given examples whether the adapter's prediction is wrong.
    ids : sequence of str, optional
        What tells observations apart, one for each example: each id counts once, ever.
    rows_are_new : bool (default: False)
        The user's statement that every example is an observation of its own. Without it, and
        without ids, an input that occurs twice is refused: nobody can tell whether it came up
        again, or a row was given again.

    Returns
    -------
    Watched
        The state of the watch, and what was counted.

    Raises
    ------
    ProtocolError
        If the watch began with another alpha.
    DataError
        If there is not one id for each example.
    RefusalError
        If inputs occur again and nothing says what that means, or most of the examples are
        those that the certificate rests on; nothing is counted then.
    """
    purpose = f"monitoring {certificate.digest[:16]}"
    name = f"{purpose}, by observation"
    kept = ledger.state(name)
    watch = (
        RiskWatch(bound=certificate.bound, alpha=alpha)
        if kept is None
        else RiskWatch.from_object(kept)
    )
    if watch.alpha != alpha:
        raise ProtocolError(
            f"this watch began with alpha = {watch.alpha:g}; a level that is chosen after "
            f"looking means nothing: go on with --alpha {watch.alpha:g}"
        )
    rows = _new_rows(ledger, name, ids, len(examples))
    chosen = examples.take(rows)
    [unnamed] = ledger.known_rows(name, [_UNNAMED])
    uses = ledger.uses(chosen)
    _refuse_the_same(uses, chosen, purpose)
    if not rows_are_new and (ids is None or unnamed):
        _refuse_what_occurs_again(uses, chosen, ids_help=not unnamed)
    if len(rows):
        watch = watch.updated(bool(wrong) for wrong in count_wrong(chosen))
        counted = [_UNNAMED] if ids is None else [ids[row] for row in rows]
        ledger.mark_with_state(
            chosen, purpose, name=name, state=watch.to_object(), rows=counted
        )
    restarted = kept is None and ledger.state(purpose) is not None
    return Watched(watch, len(rows), len(examples) - len(rows), restarted)


def _new_rows(
    ledger: SpentLedger, name: str, ids: Sequence[str] | None, count: int
) -> npt.NDArray[np.int64]:
    """Return which examples are observations that were not counted before."""
    if ids is None:
        return np.arange(count)
    if len(ids) != count:
        raise DataError(f"{len(ids)} ids do not fit {count} examples; give one for each")
    known = ledger.known_rows(name, ids)
    first = {row_id: row for row, row_id in reversed(list(enumerate(ids)))}
    return np.array(
        [row for row, row_id in enumerate(ids) if not known[row] and first[row_id] == row],
        dtype=np.int64,
    )


def _refuse_the_same(uses: Uses, examples: Examples, purpose: str) -> None:
    """Raise `RefusalError` for what the adapter or its certificate rests on."""
    elsewhere = [None if use is None or use[0] == purpose else use for use in uses]
    if mostly_one_use(elsewhere, examples):
        shared = sum(use is not None for use in elsewhere)
        raise RefusalError(
            f"{shared} of the {len(examples)} examples are already spent on: "
            f"{', '.join(sorted({use[0] for use in elsewhere if use is not None}))}. These are "
            "the same observations, not new ones; what the adapter or its certificate rests on "
            "says nothing about drift"
        )


def _refuse_what_occurs_again(uses: Uses, examples: Examples, *, ids_help: bool) -> None:
    """Raise `RefusalError` for what may be no new observation.

    Rows that were counted without ids may be given again with them, and no id tells.
    """
    again = (examples.occurrences() > 1) | np.array([use is not None for use in uses], bool)
    if not again.any():
        return
    advice = (
        "If inputs come up again in your data, each row counts: say --rows-are-new, or name "
        "the column that tells rows apart with --id-column, which also lets a file grow"
        if ids_help
        else "This watch has counted rows without ids, so no id says whether a row was counted "
        "already: give those rows alone that were not given before, with --rows-are-new"
    )
    raise RefusalError(
        f"{int(again.sum())} of the {len(examples)} examples have an input that occurs more "
        f"than once here, or occurred before. {advice}. Do not take repeated inputs out: what "
        "is left would be no sample of what the certificate speaks about"
    )
