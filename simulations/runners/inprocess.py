"""The in-process runner: every client in the calling thread, for tests and debugging."""

from __future__ import annotations

from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fedcert.simulations.runners.flower_internals import LocalGrid, run_server

__all__ = ["run_in_process"]


def run_in_process(
    server_app: ServerApp, client_app: ClientApp, *, nodes: int, gpus: float = 0.0
) -> None:
    """Run both apps here; nothing is started and no port is opened.

    Parameters
    ----------
    server_app : ServerApp
        Flower's ServerApp.
    client_app : ClientApp
        Flower's ClientApp.
    nodes : int
        Number of virtual nodes.
    gpus : float (default: 0)
        Without effect: one process has what there is.
    """
    run_server(server_app, LocalGrid(client_app, nodes=nodes))
