"""Messages on Ray actors: a failing client, a dying worker, and a server that gives up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import ClassVar

import pytest
from flwr.app import Context, Message

from fedcert.simulations.runners.flower_internals import RayGrid, ray_backend
from simulations.counting import ask, counting_app, counts

NODES = 6


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayGrid]:
    folder = tmp_path_factory.mktemp("ray-grid")
    with (
        ray_backend(counting_app(), actors=1, folder=folder) as backend,
        RayGrid(backend, nodes=NODES) as running,
    ):
        yield running


def test_every_node_answers_and_keeps_its_own_state(grid: RayGrid) -> None:
    first = counts(list(grid.send_and_receive(ask(grid, "count"))))
    again = counts(list(grid.send_and_receive(ask(grid, "count"))))
    assert first.keys() == {*range(NODES)}
    assert again == {node: seen + 1 for node, seen in first.items()}


def test_a_client_that_raises_gives_an_error_with_its_cause(grid: RayGrid) -> None:
    [node, *_] = grid.get_node_ids()
    [reply] = grid.send_and_receive(ask(grid, "raise", [node]))
    assert reply.has_error()
    assert reply.error.code == 2
    assert "no data here" in str(reply.error.reason)


def test_a_worker_that_dies_fails_its_own_message_alone(grid: RayGrid) -> None:
    first, second, third, *_ = grid.get_node_ids()
    before = counts(list(grid.send_and_receive(ask(grid, "count", [second, third]))))
    messages = [*ask(grid, "die", [first]), *ask(grid, "count", [second, third])]
    dead, *others = grid.send_and_receive(messages)
    assert dead.has_error()
    assert dead.error.reason == "the Ray worker that ran it died"
    # The one worker there was is gone, and another one does its work.
    assert counts(others) == {node: seen + 1 for node, seen in before.items()}


def test_waiting_ends_when_time_is_up(grid: RayGrid) -> None:
    [node, *_] = grid.get_node_ids()
    # It sleeps on until the fixture above ends it: shutting Ray down under it would crash us.
    # Had anybody waited for its end, there would be a reply.
    assert list(grid.send_and_receive(ask(grid, "sleep", [node]), timeout=0.3)) == []


def test_the_end_does_not_wait_for_clients() -> None:
    class Endless:
        num_workers = 1
        begun: ClassVar[list[Message]] = []
        stopped = threading.Event()
        told_to_stop: ClassVar[list[bool]] = []

        def process_message(
            self, message: Message, context: Context
        ) -> tuple[Message, Context]:
            self.begun.append(message)
            self.told_to_stop.append(self.stopped.wait(60))
            raise RuntimeError("stopped")

        def stop(self) -> None:
            self.stopped.set()

    threads = threading.active_count()
    with RayGrid(Endless(), nodes=3) as grid:
        grid.push_messages(ask(grid, "count"))
        while not Endless.begun:
            time.sleep(0.01)
    assert Endless.told_to_stop == [True]  # False, had the end waited for it
    assert len(Endless.begun) == 1
    assert threading.active_count() == threads
