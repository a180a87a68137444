"""The ClientApp of the baselines: rounds of federated averaging, and a bound at the end."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp

from fedcert.adapters import AdaptedModel, AdapterSpace, FinetuneSettings, decode
from fedcert.baselines.wire import BASIS, WORDS, shared_tensors, with_zero_head
from fedcert.canonical import digest_json
from fedcert.certificates import SplitRecipe, binomial_upper_bound
from fedcert.clients.client_app import node_here
from fedcert.clients.node import Node
from fedcert.data.examples import Examples
from fedcert.errors import ProtocolError
from fedcert.messages import ARRAYS, METRICS, NEW, REPLY, UPSTREAM
from fedcert.messages.flower import arrays_of, content
from fedcert.methods.federated import FederatedSettings, local_round, round_seed
from fedcert.methods.local_training import PersonalTraining, head_part
from fedcert.randomness import small_seed
from fedcert.search import BatchedScorer
from fedcert.settings import RunSettings
from fedcert.threads import torch_threads

__all__ = ["make_baseline_app"]

_HEAD = "fedcert.own-head"
# As in fedcert's own ClientApp: the number of threads changes the last bits.
_THREADS = 1
_MARGIN = 1e-4


def make_baseline_app(
    settings: RunSettings | None = None, output: Path | None = None
) -> ClientApp:
    """Build the ClientApp for `FedAvgLora`, `FedProxLora` and `FedRepLora`.

    A failure is raised: Flower's engines turn it into an error reply.

    Parameters
    ----------
    settings, output
        As in `fedcert.clients.client_app.make_client_app`.
    """
    client_app = ClientApp()

    @client_app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        node = node_here(context, settings, output)
        return Message(content(node.introduction(), key=REPLY), reply_to=message)

    @client_app.train()
    def train(message: Message, context: Context) -> Message:
        with torch_threads(_THREADS):
            reply = _train(_Asked.of(message, node_here(context, settings, output)), context)
        return Message(reply, reply_to=message)

    @client_app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        with torch_threads(_THREADS):
            reply = _certify(_Asked.of(message, node_here(context, settings, output)))
        return Message(reply, reply_to=message)

    return client_app


@dataclass(frozen=True)
class _Asked:
    """What a message of the strategy says."""

    node: Node
    number: int
    seed: int
    space: AdapterSpace
    federated: FederatedSettings
    personal: PersonalTraining | None
    received: npt.NDArray[np.float32]
    digest: str

    @classmethod
    def of(cls, message: Message, node: Node) -> Self:
        config, basis = message.content.get("config"), message.content.get(BASIS)
        if not isinstance(config, ConfigRecord) or not isinstance(basis, ArrayRecord):
            raise ProtocolError("the message is not one of fedcert's FedAvg strategies")
        words = json.loads(str(config[WORDS]))
        space = AdapterSpace.from_config(
            words["space"], {name: array.numpy() for name, array in basis.items()}
        )
        federated = FederatedSettings.from_config(words["federated"])
        tensors = with_zero_head(space, arrays_of(message.content), federated)
        received = decode(space, tensors, space_digest=space.digest)
        return cls(
            node=node,
            number=int(str(config["server-round"])),
            seed=int(words["seed"]),
            space=space,
            federated=federated,
            personal=_personal(words["personal"]),
            received=received.astype(np.float32),
            digest=digest_json({"words": words, "adapter": received.tolist()}),
        )

    def model(self) -> AdaptedModel:
        return self.node.model_of(self.node.task(self.space))

    def require(self, role: str) -> None:
        if self.node.role != role:
            raise ProtocolError(f"{self.node.client} is no {role} client")


def _train(asked: _Asked, context: Context) -> RecordDict:
    """Do this client's part of a round; in FedRep its head stays in its own state."""
    asked.require(UPSTREAM)
    node, started = asked.node, time.perf_counter()
    examples = node.training_examples()
    # Before anything can depend on them.
    node.state().spent.mark(examples, "training a federated average")
    kept = context.state.get(_HEAD)
    vector = local_round(
        asked.model(),
        asked.received,
        examples,
        settings=asked.federated,
        seed=round_seed(asked.seed, asked.number, node.client),
        own_head=kept["head"].numpy() if isinstance(kept, ArrayRecord) else None,
    )
    if not asked.federated.averages_head:
        head = vector[head_part(asked.space)]
        context.state[_HEAD] = ArrayRecord({"head": Array(head)})
    sent = content({}, shared_tensors(asked.space, vector, asked.federated))[ARRAYS]
    seconds = time.perf_counter() - started
    metrics = MetricRecord({"num-examples": len(examples), "seconds": seconds})
    return RecordDict({ARRAYS: sent, METRICS: metrics})


def _certify(asked: _Asked) -> RecordDict:
    """Make the adapter the client's own, and bound its risk; nothing else leaves the node."""
    asked.require(NEW)
    node = asked.node
    certificate = node.settings.certificate
    examples = node.scenario.support_examples(node.client, certificate.support_size)
    node.state().spent.spend(examples, "a bound on a federated average", claim=asked.digest)
    adapter, rest = asked.received.astype(np.float64), examples
    if asked.personal is not None:
        recipe, n = SplitRecipe(candidates=1, delta=certificate.delta), len(examples)
        rest = examples.take(recipe.certifying(n).as_slice())
        choosing = examples.take(recipe.choosing(n).as_slice()).usable
        adapter = _personalized(asked, asked.personal, choosing)
    scorer = BatchedScorer(asked.model(), margin_tolerance=_MARGIN)
    errors = int(scorer.score(adapter[None], rest).wrong.sum())
    bound = binomial_upper_bound(errors, len(rest), certificate.delta)
    metrics = MetricRecord({"num-examples": len(examples), "certificate": bound})
    return RecordDict({METRICS: metrics})


def _personalized(
    asked: _Asked, personal: PersonalTraining, examples: Examples
) -> npt.NDArray[np.float64]:
    start = asked.received.astype(np.float64)
    if len(np.unique(examples.labels)) < 2:
        return start  # there is nothing to learn from one label
    return personal.adapter(
        start,
        asked.model(),
        examples,
        seed=small_seed("personal", asked.seed, asked.node.client),
    )


def _personal(words: Any) -> PersonalTraining | None:
    if words is None:
        return None
    return PersonalTraining(**words | {"settings": FinetuneSettings(**words["settings"])})
