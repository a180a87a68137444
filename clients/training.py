"""The upstream client's part: fine-tune an adapter and upload it."""

from __future__ import annotations

from flwr.app import Message, MetricRecord, RecordDict

from fedcert.adapters import AdaptedModel, AdapterSpace, FinetuneSettings, encode, finetune
from fedcert.clients.node import Node
from fedcert.flower_records import arrays_of, content, words_of
from fedcert.messages import METRICS, REPLY
from fedcert.randomness import small_seed

__all__ = ["train"]


def train(message: Message, node: Node) -> RecordDict:
    """Fine-tune in the server's adapter space, from the start that all clients share."""
    words = words_of(message.content)
    space = AdapterSpace.from_config(words["space"], arrays_of(message.content))
    result = finetune(
        AdaptedModel(node.base_model(), space),
        node.scenario.training_examples(node.client),
        spec=node.scenario.inputs,
        seed=small_seed("finetune", words["seed"], node.client),
        settings=FinetuneSettings(**words["training"]),
    )
    reply = content({"space": space.digest}, encode(space, result.vector), key=REPLY)
    reply[METRICS] = MetricRecord(
        {"num-examples": result.examples, "loss": result.loss, "seconds": result.seconds}
    )
    return reply
