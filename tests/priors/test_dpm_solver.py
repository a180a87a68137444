"""The sampler: the same samples as when the first certificates were made, and the ODE's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fedcert.errors import PriorError
from fedcert.priors import DiffusionPrior, DiffusionTraining
from fedcert.priors.denoiser import NoiseSchedule
from fedcert.priors.dpm_solver import solve, solver_times

from .pools import cube_pool

# What diffusers 0.42.1 makes of `_predict`; priors were sampled with it at first.
REFERENCE = json.loads((Path(__file__).parent / "dpm_solver.json").read_text())
NOISE = torch.tensor(REFERENCE["noise"], dtype=torch.float64)


def _predict(x: torch.Tensor, step: int) -> torch.Tensor:
    """Predict v as a small network in closed form, so that there are no weights to store."""
    t = step / 999
    return 0.6 * torch.tanh((1 + t) * x + 0.3 * torch.roll(x, 1, dims=1)) - 0.2 * t * x


@pytest.mark.parametrize(
    "solution", REFERENCE["solutions"], ids=lambda s: f"{s['steps']}-steps"
)
def test_samples_are_those_of_the_first_certificates(solution: dict[str, list[int]]) -> None:
    steps = len(solution["times"])
    assert solver_times(NoiseSchedule(), steps).tolist() == solution["times"]
    data = solve(_predict, NOISE, schedule=NoiseSchedule(), steps=steps)
    # Certificates are verified to 1e-6. In float64 throughout 40 steps would be 3e-7 off.
    np.testing.assert_allclose(data, solution["data"], rtol=0, atol=1e-12)


def test_so_is_every_sample_on_the_way() -> None:
    seen: list[torch.Tensor] = []

    def watched(x: torch.Tensor, step: int) -> torch.Tensor:
        seen.append(x)
        return _predict(x, step)

    trajectory = REFERENCE["trajectory"]
    solve(watched, NOISE, schedule=NoiseSchedule(), steps=trajectory["steps"])
    np.testing.assert_allclose(torch.stack(seen), trajectory["samples"], rtol=0, atol=1e-12)


def test_more_steps_come_closer_at_second_order() -> None:
    """Data of variance 1/4: v is linear, and the ODE shrinks all noise to the data's scale."""
    schedule = NoiseSchedule()

    def linear(x: torch.Tensor, step: int) -> torch.Tensor:
        signal = float(schedule.alphas_cumprod[step])
        alpha, sigma = signal**0.5, (1 - signal) ** 0.5
        data = alpha * 0.25 * x / (0.25 * signal + 1 - signal)
        return (alpha * x - data) / sigma

    first = float(schedule.alphas_cumprod[-1])
    start = (0.25 * first + 1 - first) ** 0.5
    errors = [
        float(
            (solve(linear, NOISE, schedule=schedule, steps=n) - NOISE * 0.5 / start).abs().max()
        )
        for n in (10, 20, 40)
    ]
    assert errors[1] < errors[0] / 2
    assert errors[2] < errors[1] / 2
    assert errors[2] < 0.02


@pytest.mark.parametrize("steps", [0, -1, 1000, 2.5, True, "40", None])
def test_a_prior_with_no_such_steps_is_refused(steps: object) -> None:
    prior = DiffusionPrior.fit(cube_pool(24), seed=0, training=DiffusionTraining(max_steps=0))
    with pytest.raises(PriorError, match="sampling_steps must be a number from 1 to 999"):
        DiffusionPrior.from_parts(prior.config() | {"sampling_steps": steps}, prior.tensors())
