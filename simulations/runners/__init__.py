"""Runners: the same apps on Ray, or in the calling thread.

A runner is a function of (server_app, client_app, *, nodes); both give the same results.
"""

from collections.abc import Callable

from fedcert.simulations.runners.inprocess import run_in_process
from fedcert.simulations.runners.ray_engine import run_with_ray

__all__ = ["RUNNERS"]

RUNNERS: dict[str, Callable[..., None]] = {"ray": run_with_ray, "inprocess": run_in_process}
