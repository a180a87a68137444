"""Who was asked what, who has answered, and how many bytes that took."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Message, MetricRecord

from fedcert.flower_records import content, size_of
from fedcert.messages import CERTIFY, COMMIT, METRICS, PLAN, TRAIN
from fedcert.runs.events import EventSink
from fedcert.strategies.roster import Roster

__all__ = ["Correspondence", "Traffic", "measurements_of", "phase_of"]


@dataclass
class Traffic:
    """Bytes of records, as the server counts them.

    Attributes
    ----------
    up, down : Counter
        Bytes by client id, from the clients and to them.
    """

    up: Counter[str] = field(default_factory=Counter)
    down: Counter[str] = field(default_factory=Counter)


class Correspondence:
    """The messages of one run: each answer counts once, and only to what was asked.

    Parameters
    ----------
    events : EventSink
        Told about what is sent.

    Attributes
    ----------
    traffic : Traffic
        Bytes up and down.
    """

    def __init__(self, events: EventSink) -> None:
        self._events = events
        self.traffic = Traffic()
        self._outstanding: list[tuple[str, Message]] = []
        self._asked: dict[str, tuple[str, str]] = {}
        self._taken: set[str] = set()

    def ask(
        self,
        roster: Roster,
        message_type: str,
        clients: list[str],
        words: Mapping[str, Any],
        arrays: Mapping[str, Any],
    ) -> list[Message]:
        """Make one message per client; a list, since Flower's grid iterates twice."""
        records = content(words, arrays)
        size = size_of(records)
        messages = []
        for client in clients:
            node = roster.nodes[client]
            message = Message(records, dst_node_id=node, message_type=message_type)
            self.traffic.down[client] += size
            messages.append(message)
        self._outstanding += zip(clients, messages, strict=True)
        if clients:
            self._events.record(
                "sent",
                message=message_type,
                clients=len(clients),
                bytes_down=size * len(clients),
            )
        return messages

    def take(self, reply: Message) -> tuple[str, str] | None:
        """Return whose answer a reply is, and to which type of message.

        None if it is not the first answer to something that was asked here.
        """
        asked = reply.metadata.reply_to_message_id
        if asked not in self._asked:
            # Flower gives a message its id only when it is sent.
            self._asked.update(
                (message.metadata.message_id, (client, message.metadata.message_type))
                for client, message in self._outstanding
            )
        if asked not in self._asked or asked in self._taken:
            return None
        self._taken.add(asked)
        return self._asked[asked]

    def give_up(self) -> list[tuple[str, str]]:
        """Wait for nobody any more; return who sent no answer, and to what."""
        silent = [
            (client, message.metadata.message_type)
            for client, message in self._outstanding
            if message.metadata.message_id not in self._taken
        ]
        self._outstanding = []
        return silent


def measurements_of(reply: Message) -> dict[str, float] | None:
    """Return the finite numbers that a client reported about its work, if it did."""
    record = reply.content.get(METRICS)
    if not isinstance(record, MetricRecord):
        return None
    return {
        name: float(value)
        for name, value in record.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def phase_of(message_type: str) -> str:
    """Return what a type of message asks for, in a word."""
    names = {
        TRAIN: "training",
        PLAN: "planning",
        COMMIT: "commitment",
        CERTIFY: "certification",
    }
    return names.get(message_type, message_type)
