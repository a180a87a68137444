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
from fedcert.protocol.uses import Uses, found_again, one_use_again

__all__ = ["Watched", "watch_examples", "watch_left_behind", "watch_so_far"]


# Stands among the ids of observations for those that were counted without one.
_UNNAMED = ""
# Ends of the names of states from before, the latest first: of watches that looked after every
# row of a call, in an order that was drawn, and of those that counted each input once.
_OLDER = (", by observation", "")
_LEAVE_OUT = (
    "Leave out exactly the rows that were used, row by row, and no other row for its input: "
    "the rest would be no sample of what the certificate speaks about"
)


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
        Whether an older watch was left behind, which counted each input once, or took every
        row for a look.
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
    in_order: bool = False,
) -> Watched:
    """Count new observations against a certificate's claim.

    The lowest bound of all looks is taken, and an alarm at any of them is one. Of a file that
    is sorted by label, or by anything else that says how hard a row is, the first rows are no
    sample of what the certificate speaks about; nor are they in an order that is drawn, of a
    file that ends where its outcomes said that it should. So a call is one look, at all of its
    new rows together.

    Parameters
    ----------
    certificate : Certificate
        The certificate, whose bound is the claim.
    examples : Examples
        Labeled regardless of the prediction.
    ledger : SpentLedger
        Keeps the state. What is counted here is spent: no certificate may rest on it.
    alpha : float
        Probability of a false alarm, ever.
    count_wrong : callable
        Tells for each of the given examples whether the adapter's prediction is wrong.
    ids : sequence of str, optional
        What tells observations apart, one for each example: each id counts once, ever.
    rows_are_new : bool (default: False)
        The user's statement that every example is an observation of its own. Without it, an
        input that something else is spent on is refused, and without ids one that occurs twice:
        nobody can tell whether it came up again, or a row was given again.
    in_order : bool (default: False)
        The user's statement that the examples came one after the other as they stand: each of
        them is a look then, by which drift is noticed sooner.

    Returns
    -------
    Watched
        The state of the watch, and what was counted.

    Raises
    ------
    ProtocolError
        If the watch began with another alpha, or another call counted meanwhile.
    DataError
        If there is not one id for each example.
    RefusalError
        If inputs occur again and nothing says what that means, or the examples are those that
        the certificate rests on, or that were counted before; nothing is counted then.
    """
    purpose, name = _names(certificate)
    kept = ledger.state(name)
    before = None if kept is None else RiskWatch.from_object(kept)
    watch = before or RiskWatch(bound=certificate.bound, alpha=alpha)
    if watch.alpha != alpha:
        raise ProtocolError(
            f"this watch began with alpha = {watch.alpha:g}; a level that is chosen after "
            f"looking means nothing: go on with --alpha {watch.alpha:g}"
        )
    rows = _new_rows(ledger, name, ids, len(examples))
    chosen = examples.take(rows)
    [unnamed] = ledger.known_rows(name, [_UNNAMED])
    uses, spent = ledger.uses(chosen), ledger.inputs()
    elsewhere = [None if use is None or use[0] == purpose else use for use in uses]
    if one_use_again(elsewhere, chosen, spent):
        raise RefusalError(_the_same(elsewhere))
    if before is not None:
        _refuse_counted_again(uses, chosen, purpose, counted=spent.get((purpose, ""), 0))
    if not rows_are_new:
        _refuse_what_is_spent(elsewhere)
        if ids is None or unnamed:
            _refuse_what_occurs_again(uses, chosen, ids_help=not unnamed)
    if len(rows):
        watch = watch.updated(map(bool, count_wrong(chosen)), in_order=in_order)
        counted = [_UNNAMED] if ids is None else [ids[row] for row in rows]
        ledger.mark_with_state(
            chosen,
            purpose,
            name=name,
            state=watch.to_object(),
            after=kept,
            rows=counted,
        )
    restarted = before is None and watch_left_behind(certificate, ledger=ledger) is not None
    return Watched(watch, len(rows), len(examples) - len(rows), restarted)


def watch_so_far(certificate: Certificate, *, ledger: SpentLedger) -> RiskWatch | None:
    """Return the state of a certificate's watch, or None if nothing was counted."""
    kept = ledger.state(_names(certificate)[1])
    return None if kept is None else RiskWatch.from_object(kept)


def watch_left_behind(certificate: Certificate, *, ledger: SpentLedger) -> RiskWatch | None:
    """Return the state of an older watch, which counted otherwise, or None if there is none."""
    purpose, _ = _names(certificate)
    for suffix in _OLDER:
        if (kept := ledger.state(f"{purpose}{suffix}")) is not None:
            return RiskWatch.from_object(kept)
    return None


def _names(certificate: Certificate) -> tuple[str, str]:
    """Return what the examples of a watch are spent on, and the name of its state."""
    purpose = f"monitoring {certificate.digest[:16]}"
    return purpose, f"{purpose}, by look"


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


def _the_same(elsewhere: Uses) -> str:
    """Say that examples are what the adapter or its certificate rests on."""
    return (
        f"{_spent_on(elsewhere)}. Too many of them were there together, so these are the same "
        "observations, not new ones, whatever is stated; what the adapter or its certificate "
        f"rests on says nothing about drift. {_LEAVE_OUT}"
    )


def _spent_on(elsewhere: Uses) -> str:
    purposes = sorted({use[0] for use in elsewhere if use is not None})
    count = sum(use is not None for use in elsewhere)
    return (
        f"{count} of the {len(elsewhere)} examples have an input that is already spent on: "
        f"{', '.join(purposes)}"
    )


def _refuse_counted_again(
    uses: Uses, examples: Examples, purpose: str, *, counted: int
) -> None:
    """Raise `RefusalError` for rows that this watch has counted, under ids of another writing.

    A watch has more inputs than the examples in time, so that many of them may be known.
    """
    once = examples.occurrences() == 1
    again = sum(
        use is not None and use[0] == purpose and bool(alone)
        for use, alone in zip(uses, once, strict=True)
    )
    if found_again(again, size=counted, among=len(examples)):
        raise RefusalError(
            f"{again} of the {counted} inputs that this watch has counted occur once in these "
            f"{len(examples)} examples: they are the same rows, with other ids or with none. "
            "Write ids as they were the first time (1 is not 1.0, nor 001), or give those rows "
            "alone that were not given before, with --rows-are-new"
        )


def _refuse_what_is_spent(elsewhere: Uses) -> None:
    """Raise `RefusalError` for inputs that the adapter or its certificate may rest on."""
    if any(use is not None for use in elsewhere):
        raise RefusalError(
            f"{_spent_on(elsewhere)}. Where these are rows that were used there, they must not "
            f"count. {_LEAVE_OUT}. Where these inputs came up again, the rows count: say "
            "--rows-are-new"
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
