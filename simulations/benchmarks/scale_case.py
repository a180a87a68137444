"""One row of ``make bench-scale``, in a process of its own: its speed, and its memory."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedcert.adapters import AdaptedModel
from fedcert.data.examples import Examples
from fedcert.personalization.memory import ACTIVATIONS_MIB, COPIES, RESERVE_MIB
from fedcert.priors import GaussianPrior, LatentSpace
from fedcert.randomness import derive_seed, keyed_generator
from fedcert.runs.machine import Sampler
from fedcert.search import BatchedScorer, ReferenceScorer, search
from fedcert.search.session import CHUNK
from fedcert.simulations.benchmarks.scale_models import task_and_examples

__all__ = ["ScaleCase", "main"]

TOLERANCE = 1e-4
MIB = 2**20


@dataclass(frozen=True)
class ScaleCase:
    """What is measured.

    Attributes
    ----------
    model : str
        As in `fedcert.simulations.benchmarks.scale_models`.
    layers : int
        Adapted layers, counted from the top.
    precision : str
        ``"float32"``, ``"bfloat16"``, or ``"int8"``.
    examples : int
        n.
    candidates : int
        Scored in each turn.
    repeats : int
        Turns; one candidate of the plain loop in each.
    device : str (default: "auto")
        Where it computes.
    """

    model: str
    layers: int
    precision: str
    examples: int
    candidates: int
    repeats: int
    device: str = "auto"


class _OwnMemory(Sampler):
    """Watches what this process holds for itself, on Linux: what maps files is not counted."""

    def __init__(self) -> None:
        super().__init__(interval=0.005)
        self.peak_mib = 0.0

    def look(self) -> None:
        """Take the memory of now into the peak."""
        self.peak_mib = max(self.peak_mib, _status("RssAnon"))


def main() -> None:
    """Measure the case given as JSON, with the models of a folder; print JSON."""
    case, folder = ScaleCase(**json.loads(sys.argv[1])), Path(sys.argv[2])
    import peft  # noqa: F401  (libraries are no part of what a model takes)

    torch.set_num_threads(1)
    before = _status("RssAnon"), _status("VmRSS")
    with _OwnMemory() as memory:
        task, examples = task_and_examples(
            case.model,
            folder,
            layers=case.layers,
            precision=case.precision,
            examples=case.examples,
            device=case.device,
        )
        model = task.model()
        prior = _prior(task.space.dimension)
        scorer = BatchedScorer(model, margin_tolerance=TOLERANCE)
        _search(prior, scorer, examples, case)
        peak = _status("VmHWM")
    sizes = _sizes(model, examples)
    row = asdict(case) | {
        "device": str(model.device),
        "libraries_mib": before[1],
        "peak_mib": peak,
        "own_peak_mib": memory.peak_mib - before[0],
        "own_formula_mib": _formula(model, case, sizes["padded_tokens"]),
        "note": model.note,
        **sizes,
        **_speed(ReferenceScorer(task, margin_tolerance=TOLERANCE), model, examples, case),
    }
    sys.stdout.write(json.dumps(row) + "\n")


def _search(
    prior: GaussianPrior, scorer: BatchedScorer, examples: Examples, case: ScaleCase
) -> None:
    search(prior, scorer, examples, seed=derive_seed("scale"), candidates=case.candidates)


def _prior(dimension: int) -> GaussianPrior:
    pool = 0.3 * keyed_generator("bench pool").normal(size=(64, dimension))
    return GaussianPrior(LatentSpace.of(pool, size=16))


def _formula(model: AdaptedModel, case: ScaleCase, padded: int) -> float:
    """Return what docs/devices.md says that a process takes for itself, without a cache."""
    head = sum(4 * int(np.prod(tensor.shape)) for tensor in model.space.head)
    drawn = 8 * COPIES * model.space.dimension * min(case.candidates, CHUNK)
    kept = 20 * model.width * padded
    int8 = _in_int8(model)
    return ACTIVATIONS_MIB + RESERVE_MIB + (drawn + 2 * head + kept + int8) / MIB


def _sizes(model: AdaptedModel, examples: Examples) -> dict[str, Any]:
    inputs = model.task.encode(examples.take(slice(0, 1)))
    each = model.prepare(inputs).hidden.shape[1]
    mask = model.task.encode(examples).get("attention_mask")
    files = Path(model.base.name).glob("*.safetensors")
    return {
        "parameters": _in_int8(model) + sum(p.numel() for p in model.base.model.parameters()),
        "mapped_mib": sum(path.stat().st_size for path in files) / MIB,
        "dimension": model.space.dimension,
        "tokens": each * len(examples) if mask is None else int(mask.sum()),
        "padded_tokens": each * len(examples) if mask is None else mask.numel(),
    }


def _in_int8(model: AdaptedModel) -> int:
    """Return how many weights are in eight bits."""
    return sum(b.numel() for b in model.base.model.buffers() if b.dtype is torch.int8)


def _speed(
    plain: ReferenceScorer, model: AdaptedModel, examples: Examples, case: ScaleCase
) -> dict[str, Any]:
    """Time frozen layers, candidates, and the plain loop, in turn."""
    vectors = 0.3 * keyed_generator("bench scale").normal(
        size=(case.candidates, model.space.dimension)
    )
    turns = []
    for _ in range(case.repeats):
        # A scorer of its own: it keeps what the frozen layers gave.
        scorer = BatchedScorer(model, margin_tolerance=TOLERANCE)
        runs = (
            partial(scorer.score, vectors[:1], examples),
            partial(scorer.score, vectors[:1], examples),
            partial(scorer.score, vectors, examples),
            partial(plain.score, vectors[:1], examples),
        )
        first, one, many, loop = (_seconds(run, on=model.device) for run in runs)
        turns.append((first - one, many / case.candidates, loop))
    scores = scorer.score(vectors[:1], examples), plain.score(vectors[:1], examples)
    frozen, each, loop = (statistics.median(times) for times in zip(*turns, strict=True))
    ratios = sorted(loop / each for _, each, loop in turns)
    return {
        "frozen_seconds": frozen,
        "candidate_seconds": each,
        "plain_seconds": loop,
        "speedup_vs_peft": statistics.median(ratios),
        "speedup_range": [ratios[0], ratios[-1]],
        "largest_loss_difference": float(np.abs(scores[0].losses - scores[1].losses).max()),
    }


def _seconds(run: Callable[[], object], *, on: torch.device) -> float:
    """Return seconds of this process's one thread; on a GPU those of the clock."""
    if on.type != "cpu":
        started = time.perf_counter()
        run()  # scores come back to the processor, so it has been waited for
        return time.perf_counter() - started
    started = time.process_time()
    run()
    return time.process_time() - started


def _status(name: str) -> float:
    """Return a line of what Linux knows of this process, MiB."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.partition(f"{name}:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
