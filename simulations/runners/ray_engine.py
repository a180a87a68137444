"""The Ray runner: Flower's simulation backend with as many actors as cores."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fedcert.errors import RunError
from fedcert.simulations.runners.flower_internals import RayGrid, ray_backend, run_server

__all__ = ["run_with_ray"]

_PATIENCE = 5.0  # seconds


def run_with_ray(
    server_app: ServerApp, client_app: ClientApp, *, nodes: int, gpus: float = 0.0
) -> None:
    """Run both apps on one-core Ray actors and leave nothing running.

    Ray listens on all network interfaces whatever it is told; see docs/privacy.md.

    Parameters
    ----------
    server_app : ServerApp
        Flower's ServerApp.
    client_app : ClientApp
        Flower's ClientApp.
    nodes : int
        Number of virtual nodes.
    gpus : float (default: 0)
        Share of a GPU that each actor asks for; with one there are only as many actors as
        the GPUs take.
    """
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise RunError(
            "the Ray runner needs Ray: pip install 'fedcert[simulation]', "
            "or run with --runner inprocess"
        ) from error
    _check_cluster(os.environ.get("RAY_ADDRESS", ""))
    # An empty folder: Ray's workers put theirs first on the import path, where a user's own
    # `fedcert` or `clients` folder would shadow the package.
    with tempfile.TemporaryDirectory(prefix="fedcert-ray-") as folder:
        actors = min(os.cpu_count() or 1, nodes)
        with (
            ray_backend(client_app, actors=actors, gpus=gpus, folder=Path(folder)) as backend,
            RayGrid(backend, nodes=nodes) as grid,
        ):
            run_server(server_app, grid)


def _check_cluster(address: str) -> None:
    """Raise `RunError` if nobody answers where a cluster should be: Ray would go on trying."""
    try:
        place = urlsplit(address if "://" in address else f"//{address}")
        if place.hostname is None or place.port is None:  # none, "auto", "local"
            return
        with socket.create_connection((place.hostname, place.port), timeout=_PATIENCE):
            return
    except (OSError, ValueError) as error:
        raise RunError(
            f"RAY_ADDRESS = {address!r} in the environment, and no Ray cluster answers there "
            f"({error}); start it, or unset RAY_ADDRESS to run on this machine alone"
        ) from error
