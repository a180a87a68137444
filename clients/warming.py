"""The upstream client's part in a warm start, and every client's: keep what came of it."""

from __future__ import annotations

from flwr.app import Message, MetricRecord, RecordDict

from fedcert.adapters import AdapterSpace
from fedcert.clients.node import Node
from fedcert.errors import ProtocolError, RefusalError
from fedcert.messages import METRICS, REPLY, UPSTREAM, BaseRequest, WarmRequest
from fedcert.messages.flower import arrays_of, content, payload_of
from fedcert.named_arrays import under
from fedcert.protocol.uses import TRAINING
from fedcert.randomness import small_seed
from fedcert.warm_start import (
    PROVENANCE,
    Trunk,
    TrunkTraining,
    local_round,
    merge,
    merged_folder,
)

__all__ = ["install", "warm"]


def warm(message: Message, node: Node) -> RecordDict:
    """Train trunk and personal adapter together, and upload how far the trunk moved.

    The personal adapter never leaves, and nothing of it is kept.

    Raises
    ------
    ProtocolError
        If this is no upstream client.
    RefusalError
        If it brings an adapter, which may have been trained on the same examples.
    """
    if node.role != UPSTREAM:
        raise ProtocolError(
            "only upstream clients train a trunk: a new client's examples certify"
        )
    if node.adapter_path is not None:
        raise RefusalError("it brings an adapter, which its examples have trained already")
    request = WarmRequest.from_object(payload_of(message.content))
    arrays = arrays_of(message.content)
    trunk = Trunk.from_config(request.trunk)
    space = AdapterSpace.from_config(request.space, under("basis.", arrays))
    received = trunk.checked(under("trunk.", arrays))
    examples = node.trunk_examples()
    # Before anything can depend on them: an upload spends its examples for good.
    node.state().spent.mark(examples, f"{TRAINING} the trunk of a warm start")
    done = local_round(
        node.task(space),
        trunk,
        received,
        examples,
        training=TrunkTraining.from_config(request.training),
        done=int(request.done),
        seed=small_seed("warm start", request.seed, request.done, node.client),
    )
    reply = content({}, done.delta, key=REPLY)
    reply[METRICS] = MetricRecord(
        {"num-examples": done.examples, "loss": done.loss, "seconds": done.seconds}
    )
    return reply


def install(message: Message, node: Node) -> RecordDict:
    """Make the new base model from the one that is here, unless it is here already."""
    request = BaseRequest.from_object(payload_of(message.content))
    assert node.bases is not None  # a node that answers messages has a folder
    folder = merged_folder(node.bases, str(request.digest))
    # Somebody may also have copied the server's folder, and named it as base-model.
    if not (folder / PROVENANCE).is_file() and node.base_model().digest != request.digest:
        trunk = Trunk.from_config(request.trunk)
        merge(
            node.scenario.base_model(),
            trunk,
            trunk.checked(arrays_of(message.content)),
            node.bases,
            about=request.about,
            digest=str(request.digest),
        )
    return content({}, key=REPLY)
