"""Everything that touches Flower's internals, in one place.

Flower's public way to run an app is the command ``flwr run``. To run one from Python there
are its simulation engine, deprecated but working, and the grid below, which needs no engine
at all.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.task_identity import TaskIdentity

__all__ = ["LocalGrid", "run_on_ray"]

_FIRST_NODE = 100


class LocalGrid(Grid):
    """Runs the ClientApp in the calling thread: no Ray, no port, no other process.

    Parameters
    ----------
    client_app : ClientApp
        What the virtual nodes run.
    nodes : int
        How many there are; node i has partition-id i.
    """

    def __init__(self, client_app: ClientApp, *, nodes: int) -> None:
        # Flower refuses to make messages outside a run of its own.
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
        self._app = client_app
        self._sent = 0
        self._waiting: dict[str, Message] = {}
        self._contexts = {
            _FIRST_NODE + i: Context(
                1,
                _FIRST_NODE + i,
                {"partition-id": i, "num-partitions": nodes},
                RecordDict(),
                {},
            )
            for i in range(nodes)
        }

    @property
    def run(self) -> Any:
        """There is no run."""
        return None

    def set_run(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Refuse: messages are made with Flower's `Message`."""
        raise NotImplementedError("make messages with flwr.app.Message")

    def get_node_ids(self) -> Iterable[int]:
        """Return the virtual nodes' ids."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep messages until their replies are pulled."""
        ids = []
        for message in messages:
            self._sent += 1
            message_id = str(self._sent)
            message.metadata.__dict__["_message_id"] = message_id
            self._waiting[message_id] = message
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Run the first waiting message and return its reply."""
        for message_id in message_ids:
            if message_id in self._waiting:
                return [self._run(self._waiting.pop(message_id))]
        return []

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Run all messages, one after the other."""
        ids = self.push_messages(messages)
        return [reply for i in ids for reply in self.pull_messages([i])]

    def _run(self, message: Message) -> Message:
        try:
            return self._app(message, self._contexts[message.metadata.dst_node_id])
        except Exception as error:  # as Flower's engines do
            return Message(Error(2, repr(error)), reply_to=message)


def run_on_ray(
    server_app: ServerApp, client_app: ClientApp, *, nodes: int, actors: int, folder: Path
) -> None:
    """Run apps on Flower's simulation engine with Ray; exceptions of the server come through.

    Parameters
    ----------
    server_app, client_app : ServerApp, ClientApp
        The apps.
    nodes : int
        Virtual nodes.
    actors : int
        Ray actors, one CPU each.
    folder : Path
        Ray's workers run here; it must hold no folder that could shadow a package.
    """
    from flwr.simulation import run_simulation

    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    logger = logging.getLogger("flwr")
    before, level = Path.cwd(), logger.level
    logger.setLevel(logging.ERROR)
    os.chdir(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            run_simulation(
                server_app,
                client_app,
                num_supernodes=nodes,
                backend_config={
                    "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
                    "init_args": {
                        "num_cpus": actors,
                        "include_dashboard": False,
                        "log_to_driver": False,
                        "object_store_memory": 200 * 2**20,
                    },
                },
            )
    finally:
        os.chdir(before)
        logger.setLevel(level)
        _stop_ray()


def _stop_ray() -> None:
    import ray

    if ray.is_initialized():
        ray.shutdown()
