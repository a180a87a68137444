"""What a measurement ran on: machine, versions, memory."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

__all__ = [
    "PeakMemory",
    "Sampler",
    "describe_machine",
    "give_back_memory",
    "own_mib",
    "resident_mib",
    "versions",
]

_PACKAGES = (
    "fedcert",
    "flwr",
    "ray",
    "torch",
    "transformers",
    "peft",
    "numpy",
    "scipy",
)


def describe_machine() -> dict[str, Any]:
    """Return processor, cores and memory."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count() or 1,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


class Sampler(ABC):
    """Looks at something again and again, in a thread of its own, until its block ends.

    Parameters
    ----------
    interval : float
        Seconds between two looks.
    """

    def __init__(self, *, interval: float) -> None:
        self._interval = interval
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @abstractmethod
    def look(self) -> None:
        """Look once."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.look()
            if self._done.wait(self._interval):
                return


class PeakMemory(Sampler):
    """Samples the resident memory of this process and its children.

    Memory that processes share is counted once for each of them, so the figure is an upper
    estimate.

    Attributes
    ----------
    peak_mib : float
        The largest sum seen, MiB.
    own_peak_mib : float
        The largest seen of this process alone, MiB.
    """

    def __init__(self, *, interval: float = 0.5) -> None:
        super().__init__(interval=interval)
        self.peak_mib = self.own_peak_mib = 0.0
        self._process = psutil.Process()

    def look(self) -> None:
        """Take the memory of now into the peaks."""
        self.peak_mib = max(self.peak_mib, resident_mib(self._process))
        self.own_peak_mib = max(self.own_peak_mib, own_mib(self._process))


def own_mib(process: psutil.Process | None = None) -> float:
    """Return the resident memory of a process, by default this one, MiB."""
    return float((process or psutil.Process()).memory_info().rss) / 2**20


def resident_mib(process: psutil.Process | None = None) -> float:
    """Return the resident memory of a process (by default this one) and its children, MiB."""
    process = process or psutil.Process()
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_info().rss
        except psutil.Error:  # it ended meanwhile
            continue
    return total / 2**20


def give_back_memory() -> None:
    """Collect garbage and hand free memory back to the system, where the C library can."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
