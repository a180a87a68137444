"""Watching a certified adapter: a betting test that may be looked at any time.

The hypothesis is that every prediction, given all before it, is wrong with probability at
most B. A gambler who starts with 1 and bets the fraction that is right for an error rate q
multiplies his wealth by q/B at an error and by (1 - q)/(1 - B) otherwise. Under the
hypothesis this is a supermartingale for every q > B, and so is the mean over a grid of q
(Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B
2024). By Ville's inequality the wealth ever reaches 1/alpha with probability at most alpha,
however long one watches and whenever one stops.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fedcert.errors import SettingsError
from fedcert.records import OrAbsent, Record

__all__ = ["RiskWatch"]

_GRID = 64
# More than the rounding errors of a sum over millions of examples in float64.
_SLACK = 1e-6


@dataclass(frozen=True, kw_only=True)
class RiskWatch(Record):
    """The state of one watch; `updated` gives the next.

    Parameters
    ----------
    bound : float
        B, the certified risk, in (0, 1].
    alpha : float
        Probability of a false alarm, ever, in (0, 1).
    errors, trials : int
        Wrong predictions so far, and all of them (default: 0).
    peak : float
        Largest natural logarithm of the wealth so far (default: 0).
    alarm_at : int or None
        Number of the example at which the wealth first reached 1/alpha (default: None).
    outcomes : str or None
        The last outcomes in their order, ``0`` right and ``1`` wrong: all of them, unless the
        watch began before they were kept. ``r`` and ``w`` say the same of an example after
        which nobody looked. None, and absent from the JSON form, if there are none (default:
        None).
    """

    what = "watch"

    bound: float
    alpha: float
    errors: int = 0
    trials: int = 0
    peak: float = 0.0
    alarm_at: int | None = None
    outcomes: OrAbsent[str] = None

    def __post_init__(self) -> None:
        if not 0 < self.bound <= 1:
            raise SettingsError(f"a bound lies in (0, 1], not {self.bound}")
        if not 0 < self.alpha < 1:
            raise SettingsError(f"alpha must lie between 0 and 1, not {self.alpha}")
        if not 0 <= self.errors <= self.trials:
            raise SettingsError(f"there cannot be {self.errors} errors in {self.trials}")
        errors, trials = self._kept()
        if trials > self.trials or not 0 <= self.errors - errors <= self.trials - trials:
            raise SettingsError("the outcomes of a watch do not fit its counts")

    @property
    def log_wealth(self) -> float:
        """Natural logarithm of the e-value: the wealth after all examples so far.

        It depends on the counts alone, so nothing is lost by keeping only those.
        """
        if self.bound == 1:
            return 0.0  # no error rate exceeds it: there is nothing to bet on
        rates = _rates(self.bound)
        logs = self.errors * np.log(rates / self.bound) + (self.trials - self.errors) * (
            np.log1p(-rates) - math.log1p(-self.bound)
        )
        largest = float(np.max(logs))
        return largest + math.log(float(np.mean(np.exp(logs - largest))))

    @property
    def untenable(self) -> bool:
        """Whether the counts, as they are now, give an alarm."""
        return self.log_wealth >= _SLACK - math.log(self.alpha)

    @property
    def alarmed(self) -> bool:
        """Whether the claim was ever untenable; an alarm does not go away."""
        return self.alarm_at is not None

    def updated(self, wrong: Iterable[bool], *, in_order: bool = True) -> RiskWatch:
        """Take predictions in the order in which their examples came.

        Parameters
        ----------
        wrong : iterable of bool
            Whether each prediction was wrong. Examples must be labeled regardless of the
            prediction, and count once.
        in_order : bool (default: True)
            Whether the examples came in this very order, so that each is a look. Otherwise all
            of them together are one: in an order that they did not come in, what is wagered
            part of the way is no game that is fair, and whoever ends such a batch by its
            outcomes finds false alarms and false bounds in it.

        Returns
        -------
        RiskWatch
            The state after all of them.
        """
        said = ["1" if each else "0" for each in wrong]
        if not in_order:
            said[:-1] = ["w" if mark == "1" else "r" for mark in said[:-1]]
        return self._played("".join(said))

    def again(self) -> RiskWatch:
        """Return the state that the kept outcomes give from the beginning on."""
        start = RiskWatch(bound=self.bound, alpha=self.alpha)
        return start._played(self.outcomes or "")

    def _played(self, marks: str) -> RiskWatch:
        state = self
        for mark in marks:
            is_wrong, looked = mark in "1w", mark in "01"
            state = replace(
                state,
                errors=state.errors + is_wrong,
                trials=state.trials + 1,
                outcomes=None,
            )
            if looked:
                first = state.untenable and not state.alarmed
                state = replace(
                    state,
                    peak=max(state.peak, state.log_wealth),
                    alarm_at=state.trials if first else state.alarm_at,
                )
        return replace(state, outcomes=(self.outcomes or "") + marks or None)

    def counts(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return errors and trials at every look of which they are known, the first included.

        Returns
        -------
        tuple of numpy.ndarray
            Int, shape (T + 1,) for T looks.
        """
        marks = self.outcomes or ""
        wrong = np.array([mark in "1w" for mark in marks], dtype=np.int64)
        looks = np.array([True, *(mark in "01" for mark in marks)])
        errors = self.errors - wrong.sum() + np.concatenate([[0], np.cumsum(wrong)])
        trials = self.trials - len(wrong) + np.arange(len(wrong) + 1)
        return errors.astype(np.int64)[looks], trials.astype(np.int64)[looks]

    def _kept(self) -> tuple[int, int]:
        """Return errors and trials of the outcomes."""
        marks = self.outcomes or ""
        if set(marks) - set("01rw"):
            raise SettingsError("the outcomes of a watch are written as 0 and 1, or r and w")
        return marks.count("1") + marks.count("w"), len(marks)


def _rates(bound: float) -> npt.NDArray[np.float64]:
    """Return the alternatives to bet on: dense near the bound, and up to almost 1."""
    # Squares, since a small excess needs a small bet and most drifts are no catastrophe.
    steps = (np.arange(1, _GRID + 1) / (_GRID + 1)) ** 2
    return np.asarray(bound + (1.0 - bound) * steps, dtype=np.float64)
