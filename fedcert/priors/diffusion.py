"""The diffusion prior: denoising diffusion in the latent space of the pool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from fedcert.arrays import FloatArray
from fedcert.devices import takes_float64
from fedcert.errors import PriorError
from fedcert.priors.base import Prior, check_pool
from fedcert.priors.components import independent_directions
from fedcert.priors.denoiser import Denoiser, NoiseSchedule, add_noise, velocity
from fedcert.priors.dpm_solver import solve
from fedcert.priors.latent import LatentSpace
from fedcert.randomness import keyed_generator, small_seed
from fedcert.threads import torch_threads

__all__ = ["DiffusionPrior", "DiffusionTraining", "FitReport"]


SMALLEST_POOL = 10
# Where directions start and when training stops are read off so many latents at most.
_MOST_JUDGED = 4096

# Steps of the coarse sampler, an eighth of the default.
_COARSE_STEPS = 5

_CPU = torch.device("cpu")
# Candidates at a time, whose activations stay in a processor's caches.
_CACHED_ROWS = 256


@dataclass(frozen=True)
class DiffusionTraining:
    """How the denoiser is trained.

    Parameters
    ----------
    folds : int (default: 5)
        Networks; each holds out its own fifth of the pool, and training stops where the
        mean loss on the held-out parts is lowest. The prior averages the networks.
    batch_size : int (default: 256)
        Noisy latents per step and network.
    learning_rate, weight_decay : float
        Learning rate of AdamW.
    max_steps : int (default: 2000)
        Steps at most.
    check_every : int (default: 50)
        Steps between looks at the held-out loss.
    patience : int (default: 600)
        Give up after so many steps without a better loss.
    averaging : float (default: 0.98)
        Decay of the moving average of the weights, which is what is kept.
    """

    folds: int = 5
    batch_size: int = 256
    learning_rate: float = 5e-3
    weight_decay: float = 1e-3
    max_steps: int = 2000
    check_every: int = 50
    patience: int = 600
    averaging: float = 0.98


@dataclass(frozen=True)
class FitReport:
    """What a fit found.

    Attributes
    ----------
    anchor_loss : float
        Held-out denoising loss of the Gaussian (v-prediction, mean square).
    best_loss : float
        The same of the kept networks; never above `anchor_loss`.
    best_step : int
        When it was reached; 0 means that the prior is the Gaussian.
    """

    anchor_loss: float
    best_loss: float
    best_step: int


class DiffusionPrior(Prior):
    """Diffusion over whitened latents, anchored at the Gaussian.

    Parameters
    ----------
    latent : LatentSpace
        Where the diffusion lives.
    denoiser : Denoiser
        The trained networks, float64.
    sampling_steps : int (default: 40)
        Steps of the DPM-Solver++ sampler (Lu et al., arXiv 2211.01095).
    report : FitReport, optional
        How the fit went.
    """

    kind = "diffusion"
    schedule = NoiseSchedule()

    def __init__(
        self,
        latent: LatentSpace,
        denoiser: Denoiser,
        *,
        sampling_steps: int = 40,
        report: FitReport,
    ) -> None:
        self._latent, self._denoiser = latent, denoiser
        self._sampling_steps, self.report = sampling_steps, report

    @classmethod
    def fit(
        cls,
        pool: FloatArray,
        *,
        seed: int,
        training: DiffusionTraining = DiffusionTraining(),
        on_step: Callable[[int, int], None] = lambda _done, _all: None,
        device: torch.device | None = None,
    ) -> Self:
        """Fit to a pool ``(N, d)``.

        Parameters
        ----------
        pool : numpy.ndarray
            At least 10 adapters.
        seed : int
            Draws the folds, the initial weights and the noise.
        training : DiffusionTraining
            Settings of the training.
        on_step : callable
            Called now and then with steps done and steps at most.
        device : torch.device, optional
            Where the networks are trained, by default on the CPU; noise is drawn there in any
            case.

        Returns
        -------
        DiffusionPrior
            The prior, with a report on where training stopped.
        """
        pool = check_pool(pool, at_least=SMALLEST_POOL)
        latent = LatentSpace.of(pool)
        # One thread: the products are small, and more threads only wait for each other.
        with torch_threads(1):
            place = _CPU if device is None or not takes_float64(device) else device
            run = _Training(latent.encode(pool), cls.schedule, training, seed, place)
            arrays, report = run.best(on_step)
        return cls(latent, Denoiser.from_arrays(arrays, schedule=cls.schedule), report=report)

    @property
    def dimension(self) -> int:
        """d, the number of coordinates of an adapter."""
        return self._latent.dimension

    @property
    def latent(self) -> LatentSpace:
        """The latent space that the diffusion lives in."""
        return self._latent

    @property
    def noise_width(self) -> int:
        """The latent size: the sampler itself draws nothing."""
        return self._latent.size

    def transform(self, noise: FloatArray) -> FloatArray:
        """Follow the probability-flow ODE from noise to latents, and decode them."""
        place = self._denoiser.directions.device
        rows = _CACHED_ROWS if place.type == "cpu" else max(1, len(noise))
        with torch.no_grad():
            latents = [
                solve(
                    self._denoiser.mean_prediction,
                    part,
                    schedule=self.schedule,
                    steps=self._sampling_steps,
                )
                for part in torch.split(torch.from_numpy(noise).to(place), rows)
            ]
        return self._latent.decode(torch.cat(latents).cpu().numpy())

    def center(self) -> FloatArray:
        """Return the pool's mean: where zero noise leads depends on the networks' last bits."""
        return self._latent.center()

    def axes(self) -> FloatArray:
        """Return the pool's directions, whose deviations are those of the samples' too."""
        return self._latent.axes()

    def coarse(self) -> DiffusionPrior:
        """Return the same diffusion with a coarse sampler."""
        steps = min(_COARSE_STEPS, self._sampling_steps)
        return DiffusionPrior(
            self._latent, self._denoiser, sampling_steps=steps, report=self.report
        )

    def on(self, device: torch.device) -> DiffusionPrior:
        """Return the same diffusion with its networks on a device that knows float64."""
        if device == self._denoiser.directions.device or not takes_float64(device):
            return self
        return DiffusionPrior(
            self._latent,
            deepcopy(self._denoiser).to(device),
            sampling_steps=self._sampling_steps,
            report=self.report,
        )

    def config(self) -> dict[str, Any]:
        """Return the sampler's steps and the fit's report."""
        return {"sampling_steps": self._sampling_steps, "report": asdict(self.report)}

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return the latent space and the networks."""
        return self._latent.tensors() | self._denoiser.arrays()

    @classmethod
    def from_parts(
        cls, config: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]
    ) -> Self:
        """Rebuild from the latent space, the networks and the settings.

        Raises
        ------
        PriorError
            If the sampler has no step, or more than the schedule.
        """
        steps = config["sampling_steps"]
        if type(steps) is not int or not 1 <= steps < cls.schedule.steps:
            raise PriorError(
                f"sampling_steps must be a number from 1 to {cls.schedule.steps - 1}, "
                f"not {steps!r}"
            )
        return cls(
            LatentSpace.from_tensors(tensors),
            Denoiser.from_arrays(tensors, schedule=cls.schedule),
            sampling_steps=steps,
            report=FitReport(**config["report"]),
        )


class _Training:
    """One run of training: K networks, each with its own held-out part."""

    def __init__(
        self,
        latents: FloatArray,
        schedule: NoiseSchedule,
        settings: DiffusionTraining,
        seed: int,
        device: torch.device,
    ) -> None:
        self.settings = settings
        self.alphas_cumprod = torch.from_numpy(schedule.alphas_cumprod).float()
        self.generator = torch.Generator().manual_seed(small_seed("diffusion", seed))
        order = keyed_generator("diffusion/folds", seed).permutation(len(latents))
        self.folds = np.array_split(order, settings.folds)
        self.latents = torch.from_numpy(latents).float()
        # The parts may differ in size by one: draw the same number of each, repeated so
        # often that the noise of the held-out loss is small beside its changes.
        judged = min(len(self.folds[-1]), _MOST_JUDGED)
        repeats = max(1, _MOST_JUDGED // judged)
        held = torch.stack([self._rows(fold[:judged]) for fold in self.folds])
        self.held_out = self._corrupt(held.repeat(1, repeats, 1))
        rest = [np.setdiff1d(order, fold) for fold in self.folds]
        smallest = min(len(rows) for rows in rest)
        self.kept = torch.stack([self._rows(rows[:smallest]) for rows in rest])
        # Each network looks for its directions in its own part: a network that had seen
        # its held-out adapters could not be judged by them.
        directions = [
            independent_directions(
                part[:_MOST_JUDGED].double().numpy(),
                generator=keyed_generator("diffusion/ica", seed, index),
            )
            for index, part in enumerate(self.kept)
        ]
        self.network = Denoiser(
            torch.from_numpy(np.stack(directions)).float(),
            schedule=schedule,
            generator=self.generator,
        ).to(device)
        # What no random number comes from goes along; noise is drawn on the CPU.
        self.kept = self.kept.to(device)
        noisy, steps, truth = self.held_out
        self.held_out = noisy.to(device), steps.to(device), truth.to(device)
        self.average = {k: p.detach().clone() for k, p in self.network.named_parameters()}

    def best(
        self, on_step: Callable[[int, int], None]
    ) -> tuple[dict[str, npt.NDArray[Any]], FitReport]:
        """Train until the held-out loss stops falling; return the best average weights."""
        settings = self.settings
        optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )
        anchor = self._held_out_loss()
        best_loss, best_step, best_arrays = anchor, 0, self._averaged_arrays()
        for step in range(1, settings.max_steps + 1):
            self._update(optimizer)
            if step % settings.check_every == 0:
                on_step(step, settings.max_steps)
                loss = self._held_out_loss()
                if loss < best_loss:
                    best_loss, best_step = loss, step
                    best_arrays = self._averaged_arrays()
            if step - best_step >= settings.patience:
                break
        return best_arrays, FitReport(anchor, best_loss, best_step)

    def _rows(self, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        return self.latents[torch.from_numpy(np.sort(rows))]

    def _corrupt(self, clean: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Add noise at random times; return noisy latents, times and the true v."""
        shape = clean.shape[:2]
        steps = torch.randint(len(self.alphas_cumprod), shape, generator=self.generator)
        noise = torch.randn(clean.shape, generator=self.generator).to(clean.device)
        alpha_bar = self.alphas_cumprod[steps][..., None].to(clean.device)
        noisy = add_noise(clean, noise, alpha_bar)
        return noisy, steps.to(clean.device), velocity(clean, noise, alpha_bar)

    def _update(self, optimizer: torch.optim.Optimizer) -> None:
        copies, count, _ = self.kept.shape
        shape = (copies, self.settings.batch_size)
        rows = torch.randint(count, shape, generator=self.generator).to(self.kept.device)
        network = torch.arange(copies, device=rows.device)[:, None]
        noisy, steps, truth = self._corrupt(self.kept[network, rows])
        # A sum over networks: each one gets the gradient that it would get alone.
        loss = (self.network(noisy, steps) - truth).square().mean(dim=(1, 2)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for name, parameter in self.network.named_parameters():
            self.average[name].lerp_(parameter.detach(), 1 - self.settings.averaging)

    def _held_out_loss(self) -> float:
        noisy, steps, truth = self.held_out
        with torch.no_grad():
            predicted = torch.func.functional_call(self.network, self.average, (noisy, steps))
        return float((predicted - truth).square().mean())

    def _averaged_arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {f"denoiser.{name}": t.cpu().numpy().copy() for name, t in self.average.items()}
