"""DPM-Solver++(2M), which follows a diffusion from noise to data in few steps.

Lu et al., arXiv 2211.01095, algorithm 2, in the paper's names: a noisy sample at time t is
x_t = alpha_t x_0 + sigma_t epsilon, and lambda_t = log(alpha_t / sigma_t) is half of its
log-SNR. From time s to time t, with h = lambda_t - lambda_s, the solver goes to

    x_t = (sigma_t / sigma_s) x_s - alpha_t (exp(-h) - 1) D

where D is what the network says x_0 is, extrapolated from the last two of its words. The
first step has one word only, and the last step ends at sigma = 0, where x_t = D whatever h
is: both are of first order, which is DDIM (arXiv 2010.02502).

Candidates of a certificate are drawn again by whoever verifies it, so the order of operations
is a contract: another one moves the sample by a rounding, which networks can enlarge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from fedcert.priors.denoiser import NoiseSchedule

__all__ = ["solve", "solver_times"]


class _Level(NamedTuple):
    """What a time means: scalars, float64."""

    alpha: torch.Tensor
    sigma: torch.Tensor
    half_log_snr: torch.Tensor


def solver_times(schedule: NoiseSchedule, steps: int) -> npt.NDArray[np.int64]:
    """Return the times that the network is asked at, from noise on, shape ``(steps,)``.

    They are evenly spaced, from the schedule's last time to the one before its first.
    """
    even = np.linspace(0, schedule.steps - 1, steps + 1)
    return even.round()[:0:-1].astype(np.int64)


def solve(
    predict: Callable[[torch.Tensor, int], torch.Tensor],
    noise: torch.Tensor,
    *,
    schedule: NoiseSchedule,
    steps: int,
) -> torch.Tensor:
    """Follow the probability-flow ODE from noise to data.

    Parameters
    ----------
    predict : callable
        Takes (noisy samples, time) and predicts v = alpha_t epsilon - sigma_t x_0 (Salimans
        & Ho, arXiv 2202.00512).
    noise : torch.Tensor
        Samples of the standard Gaussian, float64, one a row.
    schedule : NoiseSchedule
        What the times mean.
    steps : int
        How often the network is asked, from 1 to one less than the schedule has steps.

    Returns
    -------
    torch.Tensor
        One sample of data for each row of noise, float64.
    """
    times = solver_times(schedule, steps)
    levels = list(_levels(schedule, times))
    sample, words = noise, list[torch.Tensor]()
    for place, (time, level) in enumerate(zip(times, levels, strict=True)):
        v = predict(sample, int(time))
        words.append(level.alpha * sample - level.sigma * v)
        if place + 1 < steps:
            sample = _step(sample, words[-2:], levels[max(place - 1, 0) : place + 2])
    return words[-1]


def _levels(schedule: NoiseSchedule, times: npt.NDArray[np.int64]) -> Iterator[_Level]:
    alphas_cumprod = schedule.alphas_cumprod[times]
    ratios = np.sqrt((1 - alphas_cumprod) / alphas_cumprod)
    for noise_to_signal in torch.from_numpy(ratios):
        alpha = 1 / ((noise_to_signal**2 + 1) ** 0.5)
        sigma = noise_to_signal * alpha
        yield _Level(alpha, sigma, torch.log(alpha) - torch.log(sigma))


def _step(
    sample: torch.Tensor, words: list[torch.Tensor], levels: list[_Level]
) -> torch.Tensor:
    """Go to the last of the levels from the one before it."""
    start, end = levels[-2:]
    h = end.half_log_snr - start.half_log_snr
    shrink = end.alpha * (torch.exp(-h) - 1.0)
    # The sample itself goes on in float32, as it did when the first certificates were made:
    # in float64 throughout candidates would differ from theirs by 1e-6 and more.
    moved = (end.sigma / start.sigma) * sample.float() - shrink * words[-1]
    if len(words) < 2:
        return moved
    ratio = (start.half_log_snr - levels[0].half_log_snr) / h
    return moved - 0.5 * shrink * ((1.0 / ratio) * (words[-1] - words[-2]))
