"""Watching a certified adapter on newly labeled examples, across calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedcert.certificates import Certificate
from fedcert.certificates.monitoring import RiskWatch
from fedcert.data.examples import Examples
from fedcert.errors import ProtocolError
from fedcert.protocol.spent import SpentLedger

__all__ = ["Watched", "watch_examples"]


@dataclass(frozen=True)
class Watched:
    """What one call found.

    Attributes
    ----------
    watch : RiskWatch
        The state after it.
    counted : int
        New examples that were counted.
    seen : int
        Examples that were left out, since they had been counted before.
    spent : int
        Examples that were left out, since the adapter or the certificate depends on them.
    """

    watch: RiskWatch
    counted: int
    seen: int
    spent: int


def watch_examples(
    certificate: Certificate,
    examples: Examples,
    *,
    ledger: SpentLedger,
    alpha: float,
    count_wrong: Callable[[Examples], npt.NDArray[np.bool_]],
) -> Watched:
    """Count new examples, in order, against a certificate's claim.

    Parameters
    ----------
    certificate : Certificate
        Its bound is the claim.
    examples : Examples
        In the order in which they came, labeled regardless of the prediction.
    ledger : SpentLedger
        Keeps the state. What is counted here is spent: no certificate may rest on it.
    alpha : float
        Probability of a false alarm, ever.
    count_wrong : callable
        Tells for each of the given examples whether the adapter's prediction is wrong.

    Raises
    ------
    ProtocolError
        If the watch began with another alpha.
    """
    purpose = f"monitoring {certificate.digest[:16]}"
    kept = ledger.state(purpose)
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
    fresh: list[int] = []
    seen = spent = 0
    new: set[str] = set()
    digests = examples.input_digests("")
    for row, known in enumerate(ledger.purposes(examples)):
        if known == purpose or digests[row] in new:
            seen += 1
        elif known is not None:
            spent += 1
        else:
            fresh.append(row)
            new.add(digests[row])
    chosen = examples.take(np.array(fresh, dtype=np.int64))
    if fresh:
        watch = watch.updated(bool(wrong) for wrong in count_wrong(chosen))
        ledger.mark_with_state(chosen, purpose, name=purpose, state=watch.to_object())
    return Watched(watch, len(fresh), seen, spent)
