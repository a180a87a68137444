"""A grid that tells about each reply when it comes, not when the last one has come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flwr.app import Error, Message
from flwr.serverapp import Grid

__all__ = ["ObservedGrid"]

_SHORTEST_WAIT, _LONGEST_WAIT = 0.02, 1.0
# Seconds between two looks at which nodes are there.
_BETWEEN_LOOKS = 10.0
_NODE_UNAVAILABLE = 5  # Flower's code


# Registered instead of derived: what it does not define itself is then found in the grid that
# it wraps and nowhere else, also what a later version of Flower adds to `Grid`.
@Grid.register
class ObservedGrid:
    """Wraps Flower's grid; everything but waiting is passed on.

    A message is given up, with an error as its reply, once its node has left or was started
    again: such a node has lost it. From version 1.43 on Flower itself says nothing of that,
    and a round would wait until its time is up.

    Parameters
    ----------
    grid : Grid
        Flower's own.
    on_reply : callable, optional
        Called with each reply as it arrives.
    """

    def __init__(
        self, grid: Grid, on_reply: Callable[[Message], object] = lambda _reply: None
    ) -> None:
        self._grid, self._on_reply = grid, on_reply

    def __getattr__(self, name: str) -> Any:
        """Pass on."""
        return getattr(self._grid, name)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages and collect replies until all are in or time is up.

        Parameters
        ----------
        messages : iterable of Message
            What to send.
        timeout : float, optional
            Seconds to wait; without it until every node has answered or left.
        """
        sent = list(messages)
        # Before anything is sent: what starts again from now on may lose what it gets.
        started = self._nodes_there() if sent else None
        ids = list(self._grid.push_messages(sent))
        # Flower gives nothing for a message that could not be sent. The dictionary keeps their
        # order, in which the in-process runner runs its clients.
        waiting = {i: m for i, m in zip(ids, sent, strict=False) if i}
        now = time.monotonic()
        deadline, next_look = None if timeout is None else now + timeout, now + _BETWEEN_LOOKS
        replies: list[Message] = []
        pause = _SHORTEST_WAIT
        while waiting and (deadline is None or time.monotonic() < deadline):
            lost: dict[str, str] = {}
            if time.monotonic() >= next_look:
                lost = _lost(waiting, started, self._nodes_there())
                next_look = time.monotonic() + _BETWEEN_LOOKS
            # After the look: a node may have answered as the last thing before it left.
            arrived = list(self._grid.pull_messages(list(waiting)))
            answered = {reply.metadata.reply_to_message_id for reply in arrived}
            arrived += [
                Message(Error(_NODE_UNAVAILABLE, why), reply_to=waiting[message_id])
                for message_id, why in lost.items()
                if message_id not in answered
            ]
            for reply in arrived:
                waiting.pop(reply.metadata.reply_to_message_id, None)
                self._on_reply(reply)
            replies += arrived
            pause = _SHORTEST_WAIT if arrived else min(2 * pause, _LONGEST_WAIT)
            if waiting and not arrived:
                time.sleep(pause)
        return replies

    def _nodes_there(self) -> dict[int, str] | None:
        """Return when each node that is online was started; None if the grid cannot tell."""
        get_nodes = getattr(self._grid, "get_nodes", None)
        if get_nodes is None:
            return None
        # By the SuperLink's word, not by a time in it: this machine's clock may be another.
        return {
            node.node_id: node.last_activated_at
            for node in get_nodes()
            if node.status in ("", "online")
        }


def _lost(
    waiting: Mapping[str, Message],
    before: Mapping[int, str] | None,
    now: Mapping[int, str] | None,
) -> dict[str, str]:
    """Return which messages nobody will answer, and why, from which nodes are there."""
    if before is None or now is None:
        return {}
    lost = {}
    for message_id, message in waiting.items():
        node = message.metadata.dst_node_id
        if node not in now:
            lost[message_id] = "its node has gone offline"
        elif now[node] != before.get(node, now[node]):
            lost[message_id] = "its node was started again, and the message is lost"
    return lost
