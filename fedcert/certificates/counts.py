"""Tables of right and wrong predictions, and what a recipe makes of them.

Everything here takes many episodes at once, one a row, so that the code which replays a
recipe on one client's examples is the code whose validity is tested on 10,000 of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.arrays import FloatArray
from fedcert.errors import CertificateError

__all__ = ["Counts", "ErrorTable", "Refined", "Selection", "lowest"]

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class ErrorTable:
    """How M candidates do on N examples of one client, in permuted order.

    Parameters
    ----------
    wrong : numpy.ndarray
        Which predictions count as errors, bool, shape (M, N).
    losses : numpy.ndarray
        The losses that break ties between equal counts, shape (M, N).
    test_risk : numpy.ndarray
        The candidates' risks, exact or measured on test examples, shape (M,).
    test_wrong : numpy.ndarray or None
        Wrong predictions on T test examples, bool, shape (M, T). Only the risk of a
        majority vote needs them (default: None).
    """

    wrong: BoolArray
    losses: FloatArray
    test_risk: FloatArray
    test_wrong: BoolArray | None = None

    def __post_init__(self) -> None:
        if self.wrong.ndim != 2 or self.wrong.dtype != np.bool_:
            raise CertificateError(
                f"wrong must be bool of shape (M, N), not {self.wrong.dtype} of shape "
                f"{self.wrong.shape}"
            )
        rows = len(self.wrong)
        _require_shape("losses", self.losses, self.wrong.shape)
        _require_shape("test_risk", self.test_risk, (rows,))
        if self.test_wrong is not None and len(self.test_wrong) != rows:
            raise CertificateError(
                f"test_wrong must have {rows} rows, not {len(self.test_wrong)}"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Refined:
    """What was made with the help of the choosing examples, on the certifying ones.

    Parameters
    ----------
    wrong : numpy.ndarray
        Errors of H hypotheses on the m certifying examples, bool, shape (H, m).
    test_risk : numpy.ndarray
        Their risks, shape (H,).
    losses : numpy.ndarray or None
        Their losses on the same examples, shape (H, m), which break ties (default: None).
    """

    wrong: BoolArray
    test_risk: FloatArray
    losses: FloatArray | None = None

    def __post_init__(self) -> None:
        if self.wrong.ndim != 2 or self.wrong.dtype != np.bool_:
            raise CertificateError(
                f"the refined hypotheses' wrong must be bool of shape (H, m), not "
                f"{self.wrong.dtype} of shape {self.wrong.shape}"
            )
        _require_shape("test_risk", self.test_risk, self.wrong.shape[:1])
        if self.losses is not None:
            _require_shape("losses", self.losses, self.wrong.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class Counts:
    """Error counts of H hypotheses in E episodes: all that a recipe may look at.

    Parameters
    ----------
    choosing : numpy.ndarray
        Errors on the choosing examples, int, shape (E, H).
    certifying : numpy.ndarray
        Errors on the certifying examples, int, shape (E, H).
    losses : numpy.ndarray
        Sums of the losses on the choosing examples, shape (E, H).
    chosen_on : int
        Number of choosing examples.
    certified_on : int
        Number of certifying examples, m.
    certifying_losses : numpy.ndarray or None
        Sums of the losses on the certifying examples, shape (E, H) (default: None).
    numbers : numpy.ndarray or None
        What randomized bounds take from the seeds, shape (E,); None for bounds that are not
        randomized (default: None).
    """

    choosing: IntArray
    certifying: IntArray
    losses: FloatArray
    chosen_on: int
    certified_on: int
    certifying_losses: FloatArray | None = None
    numbers: FloatArray | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """What a recipe certifies in E episodes.

    Parameters
    ----------
    bounds : numpy.ndarray
        Shape (E,).
    errors : numpy.ndarray
        Errors on the certifying examples, float, shape (E,): a count for an adapter, an
        expected count for a randomized predictor.
    index : numpy.ndarray or None
        The chosen hypothesis, int, shape (E,); None where there is no single one.
    posterior : numpy.ndarray or None
        Probabilities of the hypotheses, shape (E, H), if `index` is None.
    """

    bounds: FloatArray
    errors: FloatArray
    index: IntArray | None = None
    posterior: FloatArray | None = None

    def averaged(self, risks: npt.NDArray[np.floating[Any]]) -> FloatArray:
        """Return the chosen hypothesis's risk, or the posterior's mean, shape (E,).

        Parameters
        ----------
        risks : numpy.ndarray
            The hypotheses' risks, shape (H,), or (E, H) if they differ by episode.
        """
        if self.posterior is not None:
            mean: FloatArray = (self.posterior * risks).sum(axis=1)
            return mean
        assert self.index is not None
        episodes = np.arange(len(self.bounds))
        shape = (len(episodes), risks.shape[-1])
        chosen: FloatArray = np.broadcast_to(risks, shape)[episodes, self.index]
        return chosen


def lowest(values: npt.NDArray[Any], losses: FloatArray | None) -> IntArray:
    """Return each row's position of the lowest (value, loss, position), shape (E,).

    Without losses equal values go by their positions.
    """
    leading = values == values.min(axis=1, keepdims=True)
    ties = np.zeros(values.shape) if losses is None else losses
    # A leader that fails to evaluate somewhere has an infinite loss, and leads all the same.
    finite = np.minimum(ties, np.finfo(np.float64).max)
    positions: IntArray = np.where(leading, finite, np.inf).argmin(axis=1)
    return positions


def _require_shape(name: str, array: npt.NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise CertificateError(f"{name} must have shape {shape}, not {array.shape}")
