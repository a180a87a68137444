"""The upstream client's part: fine-tune an adapter and upload it."""

from __future__ import annotations

from flwr.app import Message, MetricRecord, RecordDict

from fedcert.adapters import AdapterSpace, encode
from fedcert.canonical import digest_json
from fedcert.clients.adapting import own_adapter
from fedcert.clients.node import Node
from fedcert.clients.privatizing import private_release
from fedcert.messages import METRICS, REPLY, AdapterReply, AdapterRequest
from fedcert.messages.flower import arrays_of, content, payload_of
from fedcert.protocol.uses import TRAINING

__all__ = ["train"]


def train(message: Message, node: Node) -> RecordDict:
    """Upload the client's own adapter, in the coordinates of the server's space."""
    request = AdapterRequest.from_object(payload_of(message.content))
    space = AdapterSpace.from_config(request.space, arrays_of(message.content))
    purpose = f"{TRAINING} an upload"
    # First: what is refused must not cost an example.
    privacy = node.upload_privacy()
    if privacy is not None:
        node.model_of(node.task(space))  # what is wrong with the task is no secret
        asked = request.identity() | {"privacy": privacy.terms(), **node.training_identity()}
        vector, mu = private_release(
            lambda: own_adapter(request, space, node, purpose=purpose).vector,
            dimension=space.dimension,
            node=node,
            privacy=privacy,
            purpose=digest_json(asked),
        )
        reply = content(AdapterReply(space.digest, mu), encode(space, vector), key=REPLY)
        # Number of examples, loss, time, and residual say something about the examples too.
        reply[METRICS] = MetricRecord({"num-examples": 1, "loss": 0.0})
        return reply
    adapter = own_adapter(request, space, node, purpose=purpose)
    reply = content(AdapterReply(space.digest), encode(space, adapter.vector), key=REPLY)
    reply[METRICS] = MetricRecord(dict(adapter.measured))
    return reply
