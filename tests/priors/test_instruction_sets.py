"""Candidates are the same on machines with other instruction sets, far within 1e-6."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from fedcert.priors import DiffusionPrior, DiffusionTraining

from .pools import cube_pool
from .prior_suite import SEED

PROGRAM = """
import json
import sys
import numpy as np
import torch
from fedcert.priors import prior_from_parts

with np.load(sys.argv[1]) as tensors:
    prior = prior_from_parts("diffusion", json.loads(sys.argv[4]), dict(tensors))
np.save(sys.argv[2], prior.sample(sys.argv[3], count=100))
print(torch.backends.cpu.get_cpu_capability())
"""
OLDER = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
}


def test_candidates_agree_between_instruction_sets(tmp_path: Path) -> None:
    """Measured: 4e-15; 5e-6 if the sampler's schedule stays in float32."""
    training = DiffusionTraining(max_steps=100, batch_size=64, check_every=50)
    prior = DiffusionPrior.fit(cube_pool(96), seed=0, training=training)
    assert prior.report.best_step > 0
    saved, out = tmp_path / "prior.npz", tmp_path / "out.npy"
    np.savez(saved, **prior.tensors())
    config = json.dumps(prior.config())
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(saved), str(out), SEED, config],
        env=os.environ | OLDER,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "DEFAULT"
    here, there = prior.sample(SEED, count=100), np.load(out)
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-12)
