"""The Ray runner: Flower's simulation backend with as many actors as cores."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fedcert.errors import RunError
from fedcert.simulations.runners.flower_internals import RayGrid, ray_backend, run_server

__all__ = ["run_with_ray"]


def run_with_ray(server_app: ServerApp, client_app: ClientApp, *, nodes: int) -> None:
    """Run both apps on one-core Ray actors and leave nothing running.

    Ray listens on all network interfaces whatever it is told; see docs/privacy.md.
    """
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise RunError(
            "the Ray runner needs Ray: pip install 'fedcert[simulation]', "
            "or run with --runner inprocess"
        ) from error
    # An empty folder: Ray's workers put theirs first on the import path, where a user's own
    # `fedcert` or `clients` folder would shadow the package.
    with tempfile.TemporaryDirectory(prefix="fedcert-ray-") as folder:
        actors = min(os.cpu_count() or 1, nodes)
        with (
            ray_backend(client_app, actors=actors, folder=Path(folder)) as backend,
            RayGrid(backend, nodes=nodes) as grid,
        ):
            run_server(server_app, grid)
