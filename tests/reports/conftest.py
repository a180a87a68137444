"""A plausible run, small enough to render in a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import beta


def _bound(errors: int, examples: int, level: float) -> float:
    return float(beta.ppf(1 - level, errors + 1, examples - errors))


def plausible_results(*, clients: int = 20, seed: int = 0) -> dict[str, Any]:
    """Make results that look like those of the digits scenario."""
    generator = np.random.default_rng(seed)
    rows = [_client(generator, index) for index in range(clients)]
    pool = generator.normal(size=(96, 2)) * (3.0, 1.4)
    held_out = generator.normal(size=(32, 2)) * (3.0, 1.4)
    samples = generator.normal(size=(300, 2)) * (2.9, 1.4)
    return {
        "format": "fedcert.results/1",
        "scenario": "digits",
        "description": "Each client tells one writer's favorite digit from all others. "
        "128 clients taught the server a prior; 20 new ones use it.",
        "seed": 0,
        "command": "fedcert simulate digits --clients 128 --new-clients 20 --seed 0",
        "machine": {"cpu": "AMD EPYC 7B13", "cores": 2, "memory_gib": 24.0},
        "versions": {"fedcert": "0.1.0", "torch": "2.9.1", "flwr": "1.41.0"},
        "labels": ["other", "mine"],
        "chance": 0.5,
        "delta": 0.05,
        "clients": rows,
        "bound_by_n": _bound_by_n(),
        "prior": {
            "kind": "diffusion",
            "adapter_dimension": 162,
            "latent_dimension": 9,
            "pool_size": 96,
            "choice": "A diffusion model over 9 directions was chosen: on held-out "
            "adapters its best-of-100 risk is 0.142, and that of a Gaussian 0.171.",
            "projection": {
                "pool": pool.tolist(),
                "held_out": held_out.tolist(),
                "samples": samples.tolist(),
            },
            "nearest": {
                "samples": generator.gamma(9, 0.11, size=300).tolist(),
                "held_out": generator.gamma(9, 0.113, size=32).tolist(),
                "ratio": 0.97,
                "threshold": 0.5,
                "passed": True,
            },
        },
        "profiles": _profiles(),
        "communication": {
            "upload_bytes_per_client": 1290,
            "download_bytes_per_new_client": 90_000,
            "upload_bytes": 206_400,
            "download_bytes": 1_800_000,
        },
        "timings": [
            {"phase": "pretrain base model", "seconds": 7.1},
            {"phase": "train upstream clients", "seconds": 41.0},
            {"phase": "fit prior", "seconds": 12.4},
            {"phase": "plan recipes", "seconds": 5.9},
            {"phase": "serve new clients", "seconds": 24.3},
        ],
        "failures": [
            {
                "phase": "train",
                "cause": "loss became infinite at step 12",
                "clients": 3,
                "named": ["digits-0001", "digits-0004"],
            }
        ],
        "statement": "With probability at least 95% over the draw of the support set, this "
        "adapter's error on the client's own data distribution is at most the bound.",
        "assumptions": [
            "The support set is an independent sample of the client's distribution.",
            "The support set was fixed before any candidate was scored.",
            "Near-duplicates and data seen in pretraining are outside what can be checked.",
        ],
        "digests": {"bundle": "9f2c" * 16, "prior": "71ab" * 16},
        "peak_rss_mib": 900,
    }


def _client(generator: np.random.Generator, index: int) -> dict[str, Any]:
    n = int(generator.choice([16, 32, 64, 128]))
    risk = float(generator.beta(2, 28))
    recipe, candidates = ("union", 1000) if n <= 32 else ("split", 1000)
    certified_on = n if recipe == "union" else n // 2
    errors = int(generator.binomial(certified_on, 0.6 * risk))
    level = 0.05 / (candidates if recipe == "union" else 1)
    name = f"digits-{160 + index:04d}"
    return {
        "client": name,
        "n": n,
        "recipe": recipe,
        "candidates": candidates,
        "errors": errors,
        "certified_on": certified_on,
        "bound": _bound(errors, certified_on, level),
        "test_error": int(generator.binomial(397, risk)) / 397,
        "test_examples": 397,
        "seconds": round(float(generator.uniform(0.8, 1.6)), 2),
        "certificate": f"clients/{name}/certificate.json",
        "verified": True,
    }


def _bound_by_n() -> list[dict[str, Any]]:
    rows = []
    for recipe in ("union", "split", "STEEL as published"):
        for n in (16, 32, 64, 128, 256):
            error = 0.055 + 0.25 / n
            bound = {
                "union": _bound(round(0.05 * n), n, 5e-5),
                "split": _bound(round(0.06 * n / 2), n // 2, 0.05),
                "STEEL as published": min(1.0, 0.05 + float(np.sqrt(np.log(2e4) / (2 * n)))),
            }[recipe]
            rows.append({"recipe": recipe, "n": n, "bound": bound, "test_error": error})
    return rows


def _profiles() -> list[dict[str, Any]]:
    floors = {"diffusion": 0.05, "gaussian": 0.08, "jitter": 0.086, "pool": 0.13}
    return [
        {
            "prior": prior,
            "best_of": [
                {"m": m, "risk": floor + 0.3 / (1 + np.log10(m)) ** 1.6, "se": 0.006}
                for m in (1, 3, 10, 30, 100, 300, 1000)
            ],
        }
        for prior, floor in floors.items()
    ]


@pytest.fixture
def results() -> dict[str, Any]:
    """The results of a plausible run with 8 new clients, which render quickly."""
    return plausible_results(clients=8)


@pytest.fixture
def make_results() -> Callable[..., dict[str, Any]]:
    """Make the results of a run with any number of new clients."""
    return plausible_results
