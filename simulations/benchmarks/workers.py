"""Parts of a benchmark side by side on Ray; what they measure comes back through the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fedcert.errors import RunError
from fedcert.threads import torch_threads

__all__ = ["side_by_side"]


def side_by_side(
    parts: Iterable[Callable[[], object]],
    *,
    workers: int,
    on_part: Callable[[int], None] = lambda _done: None,
) -> None:
    """Run parts of a benchmark on Ray, each with one thread and a core of its own.

    Results are not returned: a part remembers them in the cache, where the benchmark finds
    them when it goes through the same parts itself.

    Parameters
    ----------
    parts : iterable of callables
        Each runs in a process of its own; the order is kept as far as cores are free.
    workers : int
        Cores to use at once, if Ray has not been started by the caller.
    on_part : callable
        Called with the number of parts that are done.

    Raises
    ------
    RunError
        If Ray is missing, or a part fails; parts that were done stay in the cache.
    """
    try:
        import ray
    except ImportError as error:
        raise RunError(
            "running side by side needs Ray: pip install 'fedcert[simulation]', or give "
            "--workers 1"
        ) from error

    def run(part: Callable[[], object]) -> None:
        with torch_threads(1):
            part()

    started = not ray.is_initialized()
    if started:
        ray.init(num_cpus=workers, include_dashboard=False, logging_level="ERROR")
    try:
        task = ray.remote(num_cpus=1, max_retries=0)(run)
        _await([task.remote(part) for part in parts], on_part)
    finally:
        if started:
            ray.shutdown()


def _await(waiting: Sequence[Any], on_part: Callable[[int], None]) -> None:
    import ray

    done = 0
    while waiting:
        ready, waiting = ray.wait(waiting, num_returns=1)
        try:
            ray.get(ready)
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise RunError(f"a part of the benchmark failed: {reason}") from error
        done += len(ready)
        on_part(done)
