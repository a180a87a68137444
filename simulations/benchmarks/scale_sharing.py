"""How much of a base model two processes share, on Linux.

Nodes load it by the same function, whether they are virtual ones in Ray's actors or
SuperNodes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from fedcert.arrays import FloatArray
from fedcert.randomness import keyed_generator
from fedcert.search import BatchedScorer
from fedcert.simulations.benchmarks.scale_models import DECODER, task_and_examples

__all__ = ["shared_by_two"]

_MEASURES = {
    "rss_mib": ("Rss",),
    "pss_mib": ("Pss",),
    "own_mib": ("Private_Clean", "Private_Dirty"),
}


def shared_by_two(folder: Path) -> dict[str, Any]:
    """Load the decoder in two processes that score candidates, and look at their memory.

    Parameters
    ----------
    folder : Path
        Where `fedcert.simulations.benchmarks.scale_models.save_random_models` saved it.

    Returns
    -------
    dict
        ``alone`` and ``together``: what a process has in memory (``rss_mib``), the same with
        each shared page divided among those that share it (``pss_mib``), and what it shares
        with none (``own_mib``); the larger of two.
    """
    running: list[subprocess.Popen[str]] = []
    found: dict[str, Any] = {"model": DECODER}
    try:
        for name in ("alone", "together"):
            running.append(_started(folder))
            rows = [_memory(process.pid) for process in running]
            found[name] = {key: max(row[key] for row in rows) for key in _MEASURES}
    finally:
        for process in running:
            process.communicate("\n")
    return found


def _started(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(  # noqa: S603  (the words are made here)
        [sys.executable, "-m", "fedcert.simulations.benchmarks.scale_sharing", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None  # it is a pipe
    if process.stdout.readline() != "ready\n":
        raise RuntimeError("a process that loads the decoder died")
    return process


def _memory(process: int) -> dict[str, float]:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    kib = {name: int(rest.split()[0]) for name, _, rest in (x.partition(":") for x in lines)}
    return {key: sum(kib[name] for name in names) / 1024 for key, names in _MEASURES.items()}


def _hold(folder: Path) -> None:
    task, examples = task_and_examples(
        DECODER, folder, layers=1, precision="float32", examples=4, device="cpu"
    )
    vectors: FloatArray = keyed_generator("bench scale").normal(size=(8, task.space.dimension))
    BatchedScorer(task.model(), margin_tolerance=1e-4).score(vectors, examples)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()


if __name__ == "__main__":
    _hold(Path(sys.argv[1]))
