"""Time and memory of fitting and sampling, by pool size and dimension."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from typing import Any

from fedcert.machine import PeakMemory
from fedcert.priors import DiffusionPrior
from fedcert.priors.base import FloatArray
from fedcert.randomness import derive_seed, keyed_generator

__all__ = ["measure_scale"]

SIZES = ((2_000, 10_000), (10_000, 2_600), (100_000, 2_600))
SAMPLES = 10_000
# Tasks differ by this many yes-or-no attributes, each along a direction of its own.
ATTRIBUTES = 10
_CHUNK = 1_000


def measure_scale() -> list[dict[str, Any]]:
    """Measure each size in a fresh process, so that peaks are its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        return pool.starmap(_measure, SIZES, chunksize=1)


def _measure(count: int, dimension: int) -> dict[str, Any]:
    with PeakMemory(interval=0.05) as idle:
        time.sleep(0.2)
    with PeakMemory(interval=0.05) as memory:
        started = time.perf_counter()
        prior = DiffusionPrior.fit_chunks(lambda: _synthetic(count, dimension), seed=0)
        fitted = time.perf_counter()
        prior.sample(derive_seed("scale"), count=SAMPLES)
        sampled = time.perf_counter()
    return {
        "pool": count,
        "d": dimension,
        "latent": prior.noise_width,
        "fit_seconds": fitted - started,
        "sample_seconds": sampled - fitted,
        "samples": SAMPLES,
        "peak_mib_above_idle": memory.peak_mib - idle.peak_mib,
        "prior_mib": sum(array.nbytes for array in prior.tensors().values()) / 2**20,
    }


def _synthetic(count: int, dimension: int) -> Iterator[FloatArray]:
    """Yield adapters near the corners of a box with small noise, chunk by chunk."""
    axes = keyed_generator("scale/axes").standard_normal((ATTRIBUTES, dimension))
    for first in range(0, count, _CHUNK):
        generator = keyed_generator("scale", first)
        size = min(_CHUNK, count - first)
        corners = generator.choice([-1.0, 1.0], size=(size, ATTRIBUTES))
        yield corners @ axes + 0.5 * generator.standard_normal((size, dimension))
