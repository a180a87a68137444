"""``make bench-scale``: speed and memory of a search by the size of the base model.

Each row is measured in a process of its own, with one thread. On the processor seconds are
those that the process computed, so that others on the machine count for little.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedcert.devices import AUTO, resolve_device
from fedcert.errors import FedcertError
from fedcert.runs.machine import describe_machine, versions
from fedcert.simulations.benchmarks.publishing import publish, say
from fedcert.simulations.benchmarks.scale_case import ScaleCase
from fedcert.simulations.benchmarks.scale_models import DECODER, MINILM, VIT
from fedcert.simulations.benchmarks.scale_page import scale_page
from fedcert.simulations.benchmarks.scale_sharing import shared_by_two
from fedcert.simulations.clinc import FILE
from fedcert.simulations.sources import data_file, minilm

__all__ = ["documents", "main"]

REPEATS = 3
_PACKAGE = "fedcert.simulations.benchmarks"
# Precision, and candidates of a turn with one adapted layer and with two.
_SIZES = (
    (MINILM, "float32", 64, (256, 16)),
    (VIT, "float32", 4, (256, 8)),
    (DECODER, "float32", 4, (256, 8)),
    (DECODER, "bfloat16", 4, (256, 8)),
    (DECODER, "int8", 4, (256, 8)),
)


def main(arguments: list[str] | None = None) -> None:
    """Measure and render."""
    parser = argparse.ArgumentParser(description="speed and memory by the base model's size")
    parser.add_argument("--device", default=AUTO, help="where it computes (default: auto)")
    try:
        device = resolve_device(parser.parse_args(arguments).device)
        # What MiniLM's rows need, asked for before minutes go into the others.
        data_file("bench-scale", "", FILE)
        minilm("bench-scale")
    except FedcertError as error:
        sys.exit(f"error: {error}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        say("saving models of random weights")
        _module("scale_models", str(folder))
        table = [_row(case, folder) for case in _cases(str(device))]
        say("loading one model in two processes")
        sharing = shared_by_two(folder)
    record = {
        "command": "make bench-scale",
        "seed": 0,
        "machine": describe_machine(),
        "versions": versions(),
        "repeats": REPEATS,
        "table": table,
        "sharing": sharing,
    }
    # What a GPU takes is no figure of the processor.
    name = "scale" if device.type == "cpu" else f"scale-{device.type}"
    publish(name, record, documents(record, name))


def documents(record: dict[str, Any], name: str = "scale") -> dict[str, str]:
    """Return what is rendered from a record, by path below ``docs/``."""
    return {f"{name}.md": scale_page(record)}


def _cases(device: str) -> list[ScaleCase]:
    return [
        ScaleCase(model, layers, precision, examples, candidates, REPEATS, device)
        for model, precision, examples, counts in _SIZES
        for layers, candidates in enumerate(counts, start=1)
    ]


def _row(case: ScaleCase, folder: Path) -> dict[str, Any]:
    say(f"{case.model} in {case.precision}, last {case.layers} layers")
    printed = _module("scale_case", json.dumps(asdict(case)), str(folder)).splitlines()[-1]
    say(printed)
    row: dict[str, Any] = json.loads(printed)
    return row


def _module(name: str, *words: str) -> str:
    """Run a module of this package in a process of its own and return what it prints."""
    done = subprocess.run(  # noqa: S603  (the words are made above)
        [sys.executable, "-m", f"{_PACKAGE}.{name}", *words],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name} {' '.join(words)} failed: {done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
