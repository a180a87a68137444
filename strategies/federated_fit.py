"""Fitting a diffusion prior from sums over clients: no adapter reaches the server.

The fit is a dialogue. The server asks a question, each client answers from its own adapter
with arrays, and only the *sum* of the answers is used, so that secure aggregation could hide
every single one. Questions are, in order: mean and variance of each coordinate; principal
directions, by subspace iteration; independent directions, by FastICA; then rounds of local
training of the denoiser, whose mean change goes through an outer Nesterov momentum as in
DiLoCo (Douillard et al., arXiv 2311.08105). Some clients only judge when to stop.

Without secure aggregation the first answer *is* the adapter, and the others determine it:
sums protect nobody from a server that looks at their terms. There is no formal privacy.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from fedcert.arrays import FloatArray
from fedcert.errors import PriorError
from fedcert.priors import DiffusionPrior, LatentSpace
from fedcert.priors.components import orthonormal
from fedcert.priors.denoiser import Denoiser
from fedcert.priors.diffusion import FitReport
from fedcert.randomness import derive_seed, keyed_generator, small_seed

__all__ = ["Dialogue", "FederatedTraining", "Question", "federated_fit", "most_questions"]

Arrays = dict[str, npt.NDArray[Any]]
Dialogue = Generator["Question", tuple[Arrays, int], DiffusionPrior]
"""Yields questions, takes the sum of the answers and how many there were."""


@dataclass(frozen=True)
class FederatedTraining:
    """How the federated fit goes about it.

    Parameters
    ----------
    sketch : int (default: 24)
        Width of the subspace iteration; no more directions than this can be found.
    power_rounds, component_rounds : int (default: 8, 25)
        Rounds of subspace iteration and of FastICA.
    denoising_rounds : int (default: 60)
        Rounds of local training at most.
    judge_every, patience : int (default: 5, 20)
        Rounds between looks at the judges' loss, and without a better one.
    local_steps, local_batch : int (default: 8, 128)
        A client's steps per round, and noisy versions of its adapter per step.
    local_rate : float (default: 5e-3)
        Of the clients' AdamW.
    outer_rate, outer_momentum : float (default: 0.7, 0.9)
        Of the server's Nesterov momentum.
    """

    sketch: int = 24
    power_rounds: int = 8
    component_rounds: int = 25
    denoising_rounds: int = 60
    judge_every: int = 5
    patience: int = 20
    local_steps: int = 8
    local_batch: int = 128
    local_rate: float = 5e-3
    outer_rate: float = 0.7
    outer_momentum: float = 0.9


@dataclass(frozen=True)
class Question:
    """What the server asks in one round.

    Attributes
    ----------
    kind : str
        Which sum it wants.
    words : Mapping[str, Any]
        Settings of the answer: a JSON object.
    arrays : dict
        What the answer depends on besides the adapter.
    expects : Mapping[str, tuple of int]
        Shapes of the answer's arrays.
    of : str
        Who is asked: the clients that the prior is fitted to, or the judges.
    """

    kind: str
    words: Mapping[str, Any]
    arrays: Arrays
    expects: Mapping[str, tuple[int, ...]]
    of: Literal["fit", "judges"] = "fit"


def most_questions(training: FederatedTraining) -> int:
    """Return how many rounds a fit can take."""
    looks = training.denoising_rounds // training.judge_every + 1
    rounds = training.power_rounds + training.component_rounds + training.denoising_rounds
    return 3 + rounds + looks


def federated_fit(*, dimension: int, seed: int, training: FederatedTraining) -> Dialogue:
    """Fit a diffusion prior by asking for sums.

    Parameters
    ----------
    dimension : int
        d, the number of coordinates of an adapter.
    seed : int
        Of every start, and of the clients' noise.
    training : FederatedTraining
        How to go about it.

    Returns
    -------
    Dialogue
        A generator that yields questions, receives sums, and returns the prior.

    Raises
    ------
    PriorError
        If the clients' adapters do not differ.
    """
    latent = yield from _latent_space(dimension, seed, training)
    directions = yield from _components(latent, seed, training)
    start = torch.from_numpy(directions[None]).float()
    generator = torch.Generator().manual_seed(small_seed("federated denoiser", seed))
    network = Denoiser(start, schedule=DiffusionPrior.schedule, generator=generator)
    arrays, report = yield from _denoiser(latent, network.arrays(), seed, training)
    denoiser = Denoiser.from_arrays(arrays, schedule=DiffusionPrior.schedule)
    return DiffusionPrior(latent, denoiser, report=report)


def _latent_space(
    dimension: int, seed: int, training: FederatedTraining
) -> Generator[Question, tuple[Arrays, int], LatentSpace]:
    total, count = yield Question("mean", {}, {}, {"sum": (dimension,)})
    mean = total["sum"] / count
    total, count = yield Question("variance", {}, {"mean": mean}, {"sum": mean.shape})
    variance = total["sum"] / count
    # A coordinate that never varies stays put; its mean is rounded.
    varies = variance > 1e-20 * (1 + mean**2)
    scale = np.where(varies, np.sqrt(variance), 1.0)
    if not varies.any():
        raise PriorError("the clients' adapters do not differ: there is nothing to fit")
    standard = {"mean": mean, "scale": scale}
    width = min(training.sketch, dimension, count)
    start = keyed_generator("federated directions", seed).standard_normal((dimension, width))
    basis = np.linalg.qr(start * varies[:, None])[0]
    for _ in range(training.power_rounds):
        total, _ = yield Question(
            "power", {}, standard | {"basis": basis}, {"sum": basis.shape}
        )
        basis = np.linalg.qr(total["sum"])[0]
    total, count = yield Question(
        "gram", {}, standard | {"basis": basis}, {"sum": (width, width)}
    )
    values, vectors = np.linalg.eigh(total["sum"] / count)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    size = _gap(np.sqrt(values), most=max(2, count // 3))
    rows = (basis @ vectors[:, :size]).T
    sign = np.sign(rows[np.arange(size), np.abs(rows).argmax(axis=1)])
    return LatentSpace(mean, scale, rows * sign[:, None], np.sqrt(values[:size]))


def _gap(values: FloatArray, *, most: int) -> int:
    """Return where the spectrum falls by the largest ratio, among the first `most` values."""
    head = np.maximum(values[: most + 1], 1e-9 * values[0])
    return int(np.argmax(head[:-1] / head[1:])) + 1 if len(head) > 1 else 1


def _components(
    latent: LatentSpace, seed: int, training: FederatedTraining
) -> Generator[Question, tuple[Arrays, int], FloatArray]:
    """Run FastICA on sums; latents are white, as it wants them."""
    generator = keyed_generator("federated components", seed)
    directions = orthonormal(generator.standard_normal((latent.size, latent.size)))
    for _ in range(training.component_rounds):
        arrays = {**latent.tensors(), "directions": directions}
        total, count = yield Question("components", {}, arrays, {"sum": directions.shape})
        directions = orthonormal(total["sum"] / count - 3 * directions)
    return directions


def _denoiser(
    latent: LatentSpace, weights: Arrays, seed: int, training: FederatedTraining
) -> Generator[Question, tuple[Arrays, int], tuple[Arrays, FitReport]]:
    """Train by federated averaging until the judges' loss stops falling."""

    def ask(kind: str, step: int, of: Literal["fit", "judges"]) -> Question:
        words = {
            "seed": derive_seed("federated noise", seed, step),
            "steps": training.local_steps,
            "batch": training.local_batch,
            "rate": training.local_rate,
        }
        shapes = {name: array.shape for name, array in weights.items()}
        expects = shapes if kind == "denoise" else {"loss": (1,)}
        return Question(kind, words, {**latent.tensors(), **weights}, expects, of)

    total, count = yield ask("judge", 0, "judges")
    anchor = best = float(total["loss"][0]) / count
    best_step, best_weights = 0, weights
    momentum = {name: np.zeros_like(array) for name, array in weights.items()}
    for step in range(1, training.denoising_rounds + 1):
        total, count = yield ask("denoise", step, "fit")
        for name in weights:
            change = total[name] / count
            momentum[name] = training.outer_momentum * momentum[name] + change
            ahead = training.outer_momentum * momentum[name] + change
            moved = weights[name] + training.outer_rate * ahead
            weights = weights | {name: moved.astype(np.float32)}
        if step % training.judge_every == 0:
            # The same noise each time: what changes is the network.
            total, count = yield ask("judge", 0, "judges")
            loss = float(total["loss"][0]) / count
            if loss < best:
                best, best_step, best_weights = loss, step, weights
        if step - best_step >= training.patience:
            break
    return best_weights, FitReport(anchor, best, best_step)
