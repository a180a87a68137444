"""Who was asked what, who has answered or failed, and how many bytes that took."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from flwr.app import Message, MetricRecord

from fedcert.messages import (
    AVERAGE,
    BASE,
    CERTIFY,
    COMMIT,
    METRICS,
    PLAN,
    TRAIN,
    WARM,
    Payload,
)
from fedcert.messages.flower import content, reply_of, size_of
from fedcert.runs.events import Events
from fedcert.runs.failures import Failure
from fedcert.strategies.roster import Roster

__all__ = ["Correspondence", "Request", "Traffic"]

# What a type of message asks for, in a word.
_ASKED_FOR = {
    WARM: "warm start",
    BASE: "the new base model",
    TRAIN: "training",
    AVERAGE: "training",
    PLAN: "planning",
    COMMIT: "commitment",
    CERTIFY: "certification",
}


@dataclass(frozen=True)
class Request:
    """What some clients are asked in one round.

    Attributes
    ----------
    message_type : str
        Of `fedcert.messages`.
    clients : list of str
        Who is asked.
    payload : Payload
        What the message says beside its arrays.
    arrays : Mapping
        Named arrays beside it.
    """

    message_type: str
    clients: list[str]
    payload: Payload
    arrays: Mapping[str, Any]


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
    events : Events
        Told about what is sent, what comes, and who fails.

    Attributes
    ----------
    traffic : Traffic
        Bytes up and down.
    measurements : dict
        Numbers that clients reported about their work, by client id.
    failures : list of Failure
        Who failed, when and why.
    """

    def __init__(self, events: Events) -> None:
        self._events = events
        self.traffic = Traffic()
        self.measurements: dict[str, dict[str, float]] = {}
        self.failures: list[Failure] = []
        self._outstanding: list[tuple[str, Message]] = []
        self._asked: dict[str, tuple[str, str]] = {}
        self._taken: set[str] = set()

    def ask(self, roster: Roster, request: Request) -> list[Message]:
        """Make one message per client; a list, since Flower's grid iterates twice."""
        message_type, clients = request.message_type, request.clients
        records = content(request.payload, request.arrays)
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
                to=clients,
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

    def read(self, client: str, message_type: str, reply: Message) -> dict[str, Any]:
        """Count a reply and what it says of the client's work; return its payload.

        Parameters
        ----------
        client : str
            Stable id of the client.
        message_type : str
            What the client was asked for.
        reply : Message
            The message.

        Returns
        -------
        dict
            The reply's JSON object.

        Raises
        ------
        FedcertError
            If the client failed.
        """
        payload = reply_of(reply)
        self.traffic.up[client] += (size := size_of(reply.content))
        self._events.record("received", message=message_type, client=client, bytes_up=size)
        if (measured := _measurements_of(reply)) is not None:
            self.measurements[client] = measured
        return payload

    @property
    def failed(self) -> set[str]:
        """The clients that failed; nobody asks them again."""
        return {failure.client for failure in self.failures}

    def note_failure(
        self, client: str, phase: str, cause: str, *, refused: bool = False
    ) -> None:
        """Keep why a client did not do its part.

        Parameters
        ----------
        client : str
            Its id.
        phase : str
            What it was asked for: the type of a message, or a word.
        cause : str
            In one line.
        refused : bool (default: False)
            Whether it sent something that was refused.
        """
        failure = Failure(client, _ASKED_FOR.get(phase, phase), cause)
        self.failures.append(failure)
        self._events.record("upload-refused" if refused else "failure", **asdict(failure))

    def give_up(self) -> None:
        """Wait for nobody any more: who sent no answer has failed."""
        outstanding, self._outstanding = self._outstanding, []
        for client, message in outstanding:
            if message.metadata.message_id not in self._taken:
                self.note_failure(client, message.metadata.message_type, "no answer in time")


def _measurements_of(reply: Message) -> dict[str, float] | None:
    """Return the finite numbers of a reply's metrics, if it has some."""
    record = reply.content.get(METRICS)
    if not isinstance(record, MetricRecord):
        return None
    return {
        name: float(value)
        for name, value in record.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
