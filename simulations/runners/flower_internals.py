"""Everything that touches Flower's internals, in one place.

Flower's public way to run an app is the command ``flwr run``. To run one from Python there are
the two grids below. `LocalGrid` runs clients in the calling thread. `RayGrid` hands messages
straight to the Ray actors of Flower's simulation backend; Flower's own engine, which does the
same with a database of messages in between, goes through all open messages once for every
node, over and over, and with many nodes that takes more time than their clients do.
"""

from __future__ import annotations

import logging
import os
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.client_app import ClientAppException
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.task_identity import TaskIdentity

__all__ = ["LocalGrid", "RayGrid", "VirtualGrid", "Workers", "ray_backend", "run_server"]

_FIRST_NODE = 100
_CLIENT_RAISED, _WORKER_DIED = 2, 0  # Flower's codes
_OBJECT_STORE = 200 * 2**20
_PATH_VARIABLES = ("FEDCERT_CACHE", "FEDCERT_DATA", "HF_HOME", "HF_HUB_CACHE")
_LONGEST_END = 30.0  # seconds that a killed actor may take to be noticed


class WorkerDiedError(Exception):
    """A Ray worker died while it ran a client: killed for its memory, for instance."""


class VirtualGrid(Grid):
    """A grid of virtual nodes in this process: no port, no database.

    Parameters
    ----------
    nodes : int
        How many there are; node i has partition-id i.
    """

    def __init__(self, *, nodes: int) -> None:
        # Flower refuses to make messages outside a run of its own.
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
        self._sent = 0
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
        """Give messages their ids, and take them."""
        ids = []
        for message in messages:
            self._sent += 1
            message_id = str(self._sent)
            message.metadata.__dict__["_message_id"] = message_id
            self._take(message_id, message)
            ids.append(message_id)
        return ids

    @abstractmethod
    def _take(self, message_id: str, message: Message) -> None:
        """Keep a message, or begin with it."""


class LocalGrid(VirtualGrid):
    """Runs the ClientApp in the calling thread: no Ray, no other process.

    Parameters
    ----------
    client_app : ClientApp
        What the virtual nodes run.
    nodes : int
        How many there are.
    """

    def __init__(self, client_app: ClientApp, *, nodes: int) -> None:
        super().__init__(nodes=nodes)
        self._app = client_app
        self._waiting: dict[str, Message] = {}

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

    def _take(self, message_id: str, message: Message) -> None:
        self._waiting[message_id] = message

    def _run(self, message: Message) -> Message:
        try:
            return self._app(message, self._contexts[message.metadata.dst_node_id])
        except Exception as error:  # as Flower's engines do
            return Message(Error(_CLIENT_RAISED, repr(error)), reply_to=message)


class Workers(Protocol):
    """What a `RayGrid` hands messages to."""

    @property
    def num_workers(self) -> int:
        """How many messages it takes at once."""

    def process_message(self, message: Message, context: Context) -> tuple[Message, Context]:
        """Run a client, and return its reply and its state."""

    def stop(self) -> None:
        """End what runs; `process_message` raises then."""


class RayGrid(VirtualGrid):
    """Runs the ClientApp on the Ray actors of Flower's simulation backend.

    One thread per actor waits for its client; what a message costs does not depend on the
    number of nodes. Use it as a context manager, which ends the threads, and clients that run.

    Parameters
    ----------
    backend : Workers
        From `ray_backend`.
    nodes : int
        How many there are.
    """

    def __init__(self, backend: Workers, *, nodes: int) -> None:
        super().__init__(nodes=nodes)
        self._backend = backend
        self._queue: SimpleQueue[tuple[str, Message] | None] = SimpleQueue()
        self._replies: dict[str, Message] = {}
        self._arrival = threading.Condition()
        self._closing = False
        self._threads = [
            threading.Thread(target=self._serve, daemon=True)
            for _ in range(backend.num_workers)
        ]

    def __enter__(self) -> RayGrid:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # What is still queued is not begun, and what runs is ended: Ray must not be shut down
        # while a thread waits for it.
        self._closing = True
        for _thread in self._threads:
            self._queue.put(None)
        self._backend.stop()
        for thread in self._threads:
            thread.join(_LONGEST_END)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that have arrived."""
        with self._arrival:
            return [self._replies.pop(i) for i in message_ids if i in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages, and wait for their replies until all are in or time is up."""
        waiting = list(self.push_messages(messages))
        with self._arrival:
            self._arrival.wait_for(
                lambda: all(message_id in self._replies for message_id in waiting), timeout
            )
        return self.pull_messages(waiting)

    def _take(self, message_id: str, message: Message) -> None:
        self._queue.put((message_id, message))

    def _serve(self) -> None:
        while (item := self._queue.get()) is not None and not self._closing:
            message_id, message = item
            reply = self._answer(message)
            with self._arrival:
                self._replies[message_id] = reply
                self._arrival.notify_all()

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        try:
            reply, self._contexts[node] = self._backend.process_message(
                message, self._contexts[node]
            )
        except ClientAppException as error:
            return Message(Error(_CLIENT_RAISED, str(error)), reply_to=message)
        except Exception as error:  # its worker died, for instance
            return Message(Error(_WORKER_DIED, str(error)), reply_to=message)
        return reply


def run_server(server_app: ServerApp, grid: Grid) -> None:
    """Run a ServerApp on a grid in the calling thread; its exceptions come through."""
    server_app(grid, Context(1, 1, {}, RecordDict(), {}))


@contextmanager
def ray_backend(
    client_app: ClientApp, *, actors: int, folder: Path, gpus: float = 0.0
) -> Iterator[Workers]:
    """Start Ray with Flower's simulation backend, and stop it at the end.

    If the environment has ``RAY_ADDRESS``, that cluster is used, with an actor on each of its
    CPUs, and goes on running.

    Parameters
    ----------
    client_app : ClientApp
        What the actors run.
    actors : int
        Ray actors, one CPU each, on this machine.
    folder : Path
        Ray's workers run here if Ray is started; it must hold no folder that could shadow a
        package.
    gpus : float (default: 0)
        Share of a GPU that each actor asks for.

    Yields
    ------
    Workers
        The actors, which take messages.
    """
    import ray

    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    logger = logging.getLogger("flwr")
    before, level = Path.cwd(), logger.level
    inherited = {name: os.environ.get(name) for name in ("PYTHONPATH", *_PATH_VARIABLES)}
    for name in _PATH_VARIABLES:
        if inherited[name]:  # relative to this folder, and the workers have another one
            os.environ[name] = str(Path(str(inherited[name])).expanduser().absolute())
    # Flower logs every failure with its traceback; the replies say it in a line.
    logger.setLevel(logging.CRITICAL)
    os.chdir(folder)
    try:
        yield _build_backend(client_app, actors, gpus)
    finally:
        if ray.is_initialized():
            ray.shutdown()
        os.chdir(before)
        logger.setLevel(level)
        for name, value in inherited.items():  # the backend adds to PYTHONPATH
            _restore(name, value)


def _build_backend(client_app: ClientApp, actors: int, gpus: float) -> Workers:
    import ray
    from flwr.server.superlink.fleet.vce.backend.raybackend import RayBackend
    from flwr.simulation.ray_transport.ray_actor import BasicActorPool, ClientAppActor
    from ray.exceptions import RayActorError

    class MendingPool(BasicActorPool):
        """Flower's pool gets a dead actor back, which then fails all further messages."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.closed = False
            self.all_actors: list[Any] = []

        def add_actors_to_pool(self, num_actors: int) -> None:
            super().add_actors_to_pool(num_actors)
            self.all_actors += self.pool

        def fetch_result_and_return_actor_to_pool(self, future: Any) -> tuple[Message, Context]:
            try:
                return super().fetch_result_and_return_actor_to_pool(future)
            except RayActorError as error:
                if self.closed:
                    raise
                # What goes back to the pool instead of the dead one.
                fresh = self.create_actor_fn()  # type: ignore[no-untyped-call]
                self._future_to_actor[future] = fresh
                self.all_actors.append(fresh)
                raise WorkerDiedError("the Ray worker that ran it died") from error

    class MendingBackend(RayBackend):
        pool: MendingPool

        def stop(self) -> None:
            """Kill all actors."""
            self.pool.closed = True
            for actor in self.pool.all_actors:
                ray.kill(actor)

        def build(self, app_fn: Callable[[], ClientApp]) -> None:
            self.pool = MendingPool(
                actor_type=ClientAppActor,
                client_resources=self.client_resources,
                actor_kwargs=self.actor_kwargs,
            )
            self.pool.add_actors_to_pool(self.pool.actors_capacity)
            self.app_fn = app_fn

    # A cluster that is there already, and that Ray finds by this variable, has its own size.
    own = {"num_cpus": actors, "object_store_memory": _OBJECT_STORE, "include_dashboard": False}
    size = {} if os.environ.get("RAY_ADDRESS") else own
    backend = MendingBackend(
        {
            "client_resources": {"num_cpus": 1, "num_gpus": gpus},
            "init_args": {"log_to_driver": False, **size},
        }
    )
    backend.build(lambda: client_app)
    return backend


def _restore(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
