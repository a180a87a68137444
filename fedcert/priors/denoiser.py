"""The denoiser of the diffusion prior: a Gaussian anchor plus a learned correction.

In whitened latents the best denoiser of a Gaussian is known: its v-prediction (Salimans &
Ho, arXiv 2202.00512) is zero everywhere. The network therefore predicts v and starts at
zero: untrained it samples the Gaussian prior (up to the sampler's steps, which stretch it by
a third of a percent), and training can only add what held-out adapters confirm. Weight
generators that start from nothing tend to replay their pool (Zeng et al., arXiv 2506.07998)
or to do worse than the Gaussian; with a hundred adapters a plain network did both.

Several networks are trained at once as one batch, each on its own part of the pool.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

__all__ = ["Denoiser", "NoiseSchedule", "add_noise", "velocity"]


@dataclass(frozen=True)
class NoiseSchedule:
    """The variance-preserving schedule of DDPM (Ho et al., arXiv 2006.11239), in float64.

    In float32 the schedule alone would move candidates by 5e-6 between instruction sets.
    """

    steps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02

    @cached_property
    def alphas_cumprod(self) -> npt.NDArray[np.float64]:
        """Fraction of the variance that is signal after each step, shape ``(steps,)``."""
        betas = np.linspace(self.beta_start, self.beta_end, self.steps, dtype=np.float64)
        return np.asarray(np.cumprod(1 - betas), dtype=np.float64)


def add_noise(
    clean: torch.Tensor, noise: torch.Tensor, alphas_cumprod: torch.Tensor
) -> torch.Tensor:
    """Return sqrt(a) x + sqrt(1 - a) e (Ho et al., arXiv 2006.11239, equation 4).

    Parameters
    ----------
    clean, noise : torch.Tensor
        x and e, of one shape.
    alphas_cumprod : torch.Tensor
        a, the share of the variance that is signal, of a shape that broadcasts to it.

    Returns
    -------
    torch.Tensor
        Of the same shape.
    """
    return alphas_cumprod.sqrt() * clean + (1 - alphas_cumprod).sqrt() * noise


def velocity(
    clean: torch.Tensor, noise: torch.Tensor, alphas_cumprod: torch.Tensor
) -> torch.Tensor:
    """Return v = sqrt(a) e - sqrt(1 - a) x, which a denoiser predicts.

    It is that of Salimans and Ho (arXiv 2202.00512, section 4).

    Parameters
    ----------
    clean, noise, alphas_cumprod : torch.Tensor
        As in `add_noise`.

    Returns
    -------
    torch.Tensor
        Of the same shape.
    """
    return alphas_cumprod.sqrt() * noise - (1 - alphas_cumprod).sqrt() * clean


class Denoiser(nn.Module):
    """K small networks that predict v from a noisy latent and its time.

    v(x, t) = A^T (strength * f(A x, t)), where A has one direction per row and the scalar
    function f(s, t) = sum_i o_i(t) tanh(g_i(t) s + b_i(t)) is shared by all directions.
    The sharing is what makes it learnable: every adapter gives one example of f per
    direction. ``strength`` lets a direction stay Gaussian.

    Parameters
    ----------
    directions : torch.Tensor
        A at the start, one per network: shape ``(K, c, q)``.
    schedule : NoiseSchedule
        What the times mean.
    units : int (default: 8)
        Terms of f.
    context : int (default: 32)
        Width of the layer that turns the time into g, b and o.
    generator : torch.Generator, optional
        Draws the initial weights of that layer.
    """

    def __init__(
        self,
        directions: torch.Tensor,
        *,
        schedule: NoiseSchedule,
        units: int = 8,
        context: int = 32,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        copies, count, _ = directions.shape
        times = _time_features(torch.from_numpy(schedule.alphas_cumprod))
        self.register_buffer("_times", times, persistent=False)
        features = times.shape[1]
        start = torch.randn(copies, features, context, generator=generator) / features**0.5
        # Gains from soft to sharp, so that the terms differ before training.
        gains = torch.linspace(-0.5, 1.5, units).expand(copies, 1, units)
        self.directions = nn.Parameter(directions.clone())
        self.strength = nn.Parameter(torch.ones(copies, 1, count))
        self.gain = nn.Parameter(gains.clone())
        self.bias = nn.Parameter(torch.zeros(copies, 1, units))
        self.output = nn.Parameter(torch.zeros(copies, 1, units))
        self.time_in = nn.Parameter(start)
        self.time_bias = nn.Parameter(torch.zeros(copies, 1, context))
        self.time_out = nn.Parameter(torch.zeros(copies, context, 3 * units))

    _times: torch.Tensor

    @property
    def copies(self) -> int:
        """K, how many networks there are."""
        return self.directions.shape[0]

    def forward(self, noisy: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        """Predict v with each network.

        Parameters
        ----------
        noisy : torch.Tensor
            Shape ``(K, count, q)``.
        steps : torch.Tensor
            Integer times, shape ``(K, count)``, or ``(K, 1)`` for one time for all.

        Returns
        -------
        torch.Tensor
            Shape ``(K, count, q)``.
        """
        times = self._times[steps].to(noisy.dtype)
        context = nn.functional.silu(torch.baddbmm(self.time_bias, times, self.time_in))
        gain, shift, scale = torch.bmm(context, self.time_out).chunk(3, dim=-1)
        gain, shift = torch.exp(gain + self.gain), shift + self.bias
        output = torch.exp(scale) * self.output
        along = torch.bmm(noisy, self.directions.transpose(1, 2))[..., None]
        # In place, as far as gradients allow: arrays of this size are what sampling waits for.
        switched = (gain[:, :, None] * along).add_(shift[:, :, None]).tanh_()
        corrected = (switched * output[:, :, None]).sum(dim=-1) * self.strength
        return torch.bmm(corrected, self.directions)

    def mean_prediction(self, noisy: torch.Tensor, step: int) -> torch.Tensor:
        """Average the networks' predictions at one time, ``(count, q)`` in and out."""
        copied = noisy.expand(self.copies, *noisy.shape)
        # One time for all: what depends on it alone is computed once.
        steps = torch.full((self.copies, 1), step, dtype=torch.long, device=noisy.device)
        predicted: torch.Tensor = self(copied, steps)
        return predicted.mean(dim=0)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the weights as float32 arrays."""
        return {
            f"denoiser.{name}": tensor.detach().float().cpu().numpy()
            for name, tensor in self.named_parameters()
        }

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, npt.NDArray[Any]], *, schedule: NoiseSchedule
    ) -> Self:
        """Rebuild from `arrays`; sizes follow from the shapes. The result is float64."""
        network = cls(
            torch.from_numpy(arrays["denoiser.directions"].copy()),
            schedule=schedule,
            units=arrays["denoiser.gain"].shape[-1],
            context=arrays["denoiser.time_bias"].shape[-1],
        )
        state = {
            name: torch.from_numpy(arrays[f"denoiser.{name}"].copy())
            for name, _ in network.named_parameters()
        }
        network.load_state_dict(state)
        return network.double().requires_grad_(False)


def _time_features(alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """Describe each time by its noise level, smoothly; shape ``(steps, 6)``."""
    level = 0.5 * torch.log(alphas_cumprod / (1 - alphas_cumprod))
    features = [
        level / 3,
        (level / 3) ** 2,
        torch.tanh(level),
        alphas_cumprod,
        alphas_cumprod.sqrt(),
        (1 - alphas_cumprod).sqrt(),
    ]
    return torch.stack(features, dim=1)
