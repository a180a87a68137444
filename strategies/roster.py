"""Who is there: Flower's node ids, random in each run, against stable client ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedcert import __version__
from fedcert.errors import FedcertError, shown
from fedcert.messages import (
    CLIENT_ID,
    HELLO,
    NEW,
    PROTOCOL_VERSION,
    UPSTREAM,
    HelloReply,
)
from fedcert.messages.flower import failure_cause, reply_of
from fedcert.runs.events import Events
from fedcert.strategies.observed_grid import ObservedGrid

__all__ = ["Roster", "call_roll"]


@dataclass(frozen=True)
class Roster:
    """The clients of a run.

    Attributes
    ----------
    nodes : dict
        Node id by client id.
    roles : dict
        Role by client id.
    failures : dict
        Cause by node id, of nodes that did not say who they are.
    planners : frozenset of str
        Upstream clients that would rather plan than train.
    """

    nodes: dict[str, int]
    roles: dict[str, str]
    failures: dict[int, str]
    planners: frozenset[str] = frozenset()

    def clients(self, role: str) -> list[str]:
        """Return the ids of the clients with a role, sorted: an order that does not change."""
        return sorted(client for client, own in self.roles.items() if own == role)


def call_roll(
    grid: Grid, node_ids: Iterable[int], *, timeout: float, events: Events | None = None
) -> Roster:
    """Ask every node who it is.

    Of several nodes with one client id the first by node id counts; the others are
    reported as failures, since one of them must be set up wrongly.

    Parameters
    ----------
    grid : Grid
        Flower's way to the nodes.
    node_ids : iterable of int
        The nodes to ask.
    timeout : float
        Seconds to wait for answers, as for any other message. To say who one is takes no longer
        than to start a process, but on a busy machine that may take minutes.
    events : Events, optional
        Told which nodes are asked, and which have answered.

    Returns
    -------
    Roster
        Who answered, and why others do not count.
    """
    asked = [
        Message(RecordDict(), dst_node_id=node, message_type=HELLO) for node in sorted(node_ids)
    ]
    nodes: dict[str, int] = {}
    roles: dict[str, str] = {}
    planners: set[str] = set()
    # A node that does not answer in time sends nothing at all.
    failures = {message.metadata.dst_node_id: "no answer in time" for message in asked}
    events = events or Events()
    names = [f"node {message.metadata.dst_node_id}" for message in asked]
    events.record("sent", message=HELLO, clients=len(asked), bytes_down=0, to=names)

    def heard(reply: Message) -> None:
        node = f"node {reply.metadata.src_node_id}"
        events.record("received", message=HELLO, client=node, bytes_up=0)

    # Observed: a node that leaves now is not waited for.
    replies = ObservedGrid(grid, heard).send_and_receive(asked, timeout=timeout)
    sent_to = {message.metadata.message_id: message.metadata.dst_node_id for message in asked}
    for reply in sorted(replies, key=lambda r: sent_to[r.metadata.reply_to_message_id]):
        node = sent_to[reply.metadata.reply_to_message_id]
        try:
            said = HelloReply.from_object(reply_of(reply))
        except FedcertError as error:
            failures[node] = failure_cause(str(error))
            continue
        if refusal := _refusal(said, nodes):
            failures[node] = refusal
            continue
        nodes[said.client], roles[said.client] = node, str(said.role)
        if said.role == UPSTREAM and said.plans is True:
            planners.add(said.client)
        del failures[node]
    return Roster(nodes, roles, failures, frozenset(planners))


def _refusal(said: HelloReply, nodes: Mapping[str, int]) -> str:
    """Say why a node does not count beside those that do; empty if it does."""
    client, role = said.client, str(said.role)
    if said.protocol != PROTOCOL_VERSION:
        return _other_version(said)
    if not isinstance(client, str) or not CLIENT_ID.fullmatch(client):
        return f"{shown(client)} cannot be a client's id"
    if role not in (UPSTREAM, NEW):
        return f"it has no known role ({shown(role)})"
    return f"another node is client {client!r} already" if client in nodes else ""


def _other_version(said: HelloReply) -> str:
    """Say that a node's fedcert does not go with this one; an early one names no protocol."""
    theirs = f"protocol {shown(said.protocol)} (fedcert {shown(said.version)})"
    return (
        f"it speaks {theirs}, and this server {PROTOCOL_VERSION} (fedcert {__version__}): "
        "install the server's version of fedcert there"
    )
