"""A grid that tells about each reply when it comes, not when the last one has come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

__all__ = ["ObservedGrid"]

_SHORTEST_WAIT, _LONGEST_WAIT = 0.02, 1.0


class ObservedGrid(Grid):
    """Wraps Flower's grid; everything but waiting is passed on.

    Parameters
    ----------
    grid : Grid
        Flower's own.
    on_reply : callable
        Called with each reply as it arrives.
    """

    def __init__(self, grid: Grid, on_reply: Callable[[Message], None]) -> None:
        self._grid, self._on_reply = grid, on_reply

    @property
    def run(self) -> Any:
        """The run that the grid belongs to."""
        return self._grid.run

    def set_run(self, *args: Any, **kwargs: Any) -> None:
        """Pass on."""
        self._grid.set_run(*args, **kwargs)

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Pass on."""
        return self._grid.create_message(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        """Pass on."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Pass on."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pass on."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages and collect replies until all are in or time is up."""
        # Flower gives None for a message that could not be sent.
        # A dictionary keeps their order, in which the in-process runner runs its clients.
        waiting = dict.fromkeys(s for s in self._grid.push_messages(list(messages)) if s)
        deadline = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        pause = _SHORTEST_WAIT
        while waiting and (deadline is None or time.monotonic() < deadline):
            arrived = list(self._grid.pull_messages(list(waiting)))
            for reply in arrived:
                waiting.pop(reply.metadata.reply_to_message_id, None)
                self._on_reply(reply)
            replies += arrived
            pause = _SHORTEST_WAIT if arrived else min(2 * pause, _LONGEST_WAIT)
            if waiting and not arrived:
                time.sleep(pause)
        return replies
