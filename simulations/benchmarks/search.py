"""``make bench-search``: how fast candidates are scored, against the plain PEFT loop.

Everything that is compared runs side by side in one process, in turn, and the table holds
medians of ratios; absolute times of a shared machine mean little.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from fedcert.adapters import AdaptedModel, AdapterSpace
from fedcert.data.examples import Examples
from fedcert.priors import GaussianPrior, LatentSpace
from fedcert.randomness import derive_seed, keyed_generator
from fedcert.runs.machine import PeakMemory, describe_machine, versions
from fedcert.search import BatchedScorer, ReferenceScorer, search
from fedcert.simulations.benchmarks.dropping import exhaustive_search, measure_dropping
from fedcert.simulations.benchmarks.finetuning import measure_finetuning
from fedcert.simulations.benchmarks.options import without_options
from fedcert.simulations.benchmarks.publishing import publish, say
from fedcert.simulations.benchmarks.search_cases import Case, cases
from fedcert.simulations.benchmarks.search_page import search_page

__all__ = ["documents", "main"]

REPEATS = 5
TOLERANCE = 1e-4


def main() -> None:
    """Measure, and render after each part: the last two train pools, which takes an hour."""
    record: dict[str, Any] = {
        "command": "make bench-search",
        "seed": 0,
        "machine": describe_machine(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "repeats": REPEATS,
        # First, before anything else has grown the process.
        "memory": _memory(next(cases())),
    }
    parts = {
        "table": lambda: [_measure(case) for case in cases()],
        "dropping": measure_dropping,
        "new_client_vs_finetune": measure_finetuning,
    }
    for name, measure in parts.items():
        record[name] = measure()
        publish("search", record, documents(record))


def documents(record: dict[str, Any]) -> dict[str, str]:
    """Return what is rendered from a record, by path below ``docs/``."""
    return {"searching.md": search_page(record)}


def _measure(case: Case) -> dict[str, Any]:
    """Time one model, depth and n, in turn with the plain loop and a square product."""
    say(f"{case.model}, last {case.layers} layers, n = {case.examples}")
    task, examples = case.load()
    prior = _prior(task.space)
    vectors = prior.sample(derive_seed("bench"), count=case.candidates)
    model = task.model()
    batched = _scorer(model, case)
    plain = ReferenceScorer(task, margin_tolerance=TOLERANCE)
    runs = {
        "peft": lambda: plain.score(vectors[: case.plain], examples),
        "batched": lambda: _search(prior, model, examples, case),
        "gemm": _gemm,
    }
    batched.score(vectors[:8], examples)  # warm up, self-check included
    times = _in_turn(runs)
    work = _flops(lambda: batched.score(vectors[:32], examples)) / 32
    expected = plain.score(vectors[: case.plain], examples)
    scores = batched.score(vectors[: case.plain], examples)
    ratios = [
        (p / case.plain) / (t / case.candidates)
        for p, t in zip(times["peft"], times["batched"], strict=True)
    ]
    shares = [
        (work * case.candidates / t) / (2 * 2048**3 / g)
        for t, g in zip(times["batched"], times["gemm"], strict=True)
    ]
    return {
        "model": case.model,
        "layers": case.layers,
        "n": case.examples,
        "mode": f"exhaustive {case.precision}",
        "candidates": case.candidates,
        "speedup_vs_peft": statistics.median(ratios),
        "ms_per_candidate": 1e3 * statistics.median(times["batched"]) / case.candidates,
        "gemm_share": statistics.median(shares),
        "largest_loss_difference": float(np.abs(expected.losses - scores.losses).max()),
        "labels_changed": float((expected.wrong != scores.wrong).mean()),
        "note": model.note,
    }


def _search(
    prior: GaussianPrior,
    model: AdaptedModel,
    examples: Examples,
    case: Case,
) -> Any:
    # A scorer of its own: the frozen layers are part of what a new client pays for.
    return exhaustive_search(
        prior,
        _scorer(model, case),
        examples,
        seed=derive_seed("bench"),
        candidates=case.candidates,
    )


def _scorer(model: AdaptedModel, case: Case) -> BatchedScorer:
    return BatchedScorer(model, margin_tolerance=TOLERANCE, precision=case.precision)


def _prior(space: AdapterSpace) -> GaussianPrior:
    """Return a Gaussian over the space; what it draws does not matter for the time."""
    generator = keyed_generator("bench pool")
    return GaussianPrior(
        LatentSpace.of(0.3 * generator.normal(size=(64, space.dimension)), size=16)
    )


def _in_turn(runs: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(REPEATS):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - started)
    return times


def _gemm() -> None:
    square = torch.ones(2048, 2048)
    _ = square @ square


def _flops(run: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def _memory(case: Case) -> dict[str, Any]:
    """Measure how much memory a search of 100,000 candidates adds."""
    import psutil

    task, examples = case.load()
    model = task.model()
    before = psutil.Process().memory_info().rss / 2**20
    with PeakMemory(interval=0.05) as memory:
        scorer = BatchedScorer(model, margin_tolerance=TOLERANCE)
        search(
            _prior(model.space),
            scorer,
            examples,
            seed=derive_seed("bench"),
            candidates=100_000,
        )
    return {"model": case.model, "candidates": 100_000, "peak_mib": memory.peak_mib - before}


if __name__ == "__main__":
    without_options("search", __doc__)
    main()
