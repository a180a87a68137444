"""What personalizing takes on a device: seconds to start, and memory, in fresh processes."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

__all__ = ["measure_footprint", "personalize_in_a_process"]

UNWANTED = ("flwr", "ray", "grpc", "matplotlib", "sklearn", "datasets", "pandas")
"""Libraries that a device does not need; a process that imports one starts later."""

# On Linux. Imports what the command needs, then runs it, and writes down what both took.
_CHILD = """
import json, sys, time
from pathlib import Path
report, arguments = Path(sys.argv[1]), sys.argv[2:]
def peak():
    # Not ru_maxrss: after a fork that begins at what the parent had in memory.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
started = time.perf_counter()
import fedcert.cli.personalize, fedcert.personalization, fedcert.adapters, peft
imported, after_imports = time.perf_counter() - started, peak()
from fedcert.cli import main
sys.argv = ["fedcert", *arguments]
status = 0
try:
    main()
except SystemExit as ended:
    status = ended.code or 0
report.write_text(json.dumps({
    "status": status,
    "import_seconds": round(imported, 3),
    "personalize_seconds": round(time.perf_counter() - started - imported, 3),
    "after_imports_mib": round(after_imports, 1),
    "peak_rss_mib": round(peak(), 1),
    "modules": sorted({name.partition(".")[0] for name in sys.modules}),
}))
"""


def measure_footprint(*, runs: int = 3) -> dict[str, Any]:
    """Measure a device's commands on a tiny model, each in processes of its own.

    Parameters
    ----------
    runs : int (default: 3)
        Processes of each kind; the figures are those of the fastest, memory the largest.

    Returns
    -------
    dict
        ``help_seconds``, ``import_seconds``, ``personalize_seconds`` (imports aside),
        ``after_imports_mib``, ``peak_rss_mib``, and ``unwanted``: which of `UNWANTED` were
        imported all the same. What a base model adds is its weights, twice.
    """
    with tempfile.TemporaryDirectory() as name:
        parties = _parties(Path(name) / "device")
        helps = [_seconds_of("personalize", "--help") for _ in range(runs)]
        rows = [
            personalize_in_a_process(
                Path(name) / f"run-{index}",
                data=parties.data,
                bundle=parties.bundle,
                base=parties.base,
            )
            for index in range(runs)
        ]
    seconds = ("import_seconds", "personalize_seconds")
    sizes = ("after_imports_mib", "peak_rss_mib")
    return {
        "help_seconds": round(min(helps), 3),
        **{key: min(row[key] for row in rows) for key in seconds},
        **{key: max(row[key] for row in rows) for key in sizes},
        "unwanted": sorted({name for row in rows for name in row["unwanted"]}),
    }


def personalize_in_a_process(
    folder: Path, *options: object, data: Path, bundle: Path, base: Path
) -> dict[str, Any]:
    """Personalize in a fresh process, in a state of its own; return what it took.

    Parameters
    ----------
    folder : Path
        Gets the key, the state, and the result.
    *options : object
        More words for ``fedcert personalize``.
    data, bundle, base : Path
        Examples, bundle (a folder or an archive), and base model.

    Returns
    -------
    dict
        As `measure_footprint`, with ``status`` and ``error``, what the command said.
    """
    folder.mkdir(parents=True)
    report = folder / "footprint.json"
    words = (
        *("personalize", data, "--bundle", bundle),
        *("--base-model", base, "--client", "device"),
        *("--key", folder / "device.key", "--output", folder / "out", *options),
    )
    done = _process("-c", _CHILD, report, *words)
    if not report.exists():
        raise RuntimeError(f"the process died: {done.stderr[-500:]}")
    row: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    modules = set(row.pop("modules"))
    return row | {"unwanted": sorted(modules & set(UNWANTED)), "error": done.stderr.strip()}


def _parties(folder: Path) -> Any:
    """Make a device's files as the tests do; benchmarks run in a checkout."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
    parties = importlib.import_module("faults.device_rig").Parties
    return parties.make(folder)


def _seconds_of(*words: object) -> float:
    started = time.perf_counter()
    _process("-m", "fedcert.cli", *words)
    return time.perf_counter() - started


def _process(*words: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    return subprocess.run(  # noqa: S603 - the words are made above
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        env=environment,
        cwd="/",
        check=False,
        timeout=300,
    )


if __name__ == "__main__":
    print(json.dumps(measure_footprint(), indent=2))
