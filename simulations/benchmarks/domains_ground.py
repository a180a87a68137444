"""The federations of ``make bench-domains``: one grouping of intents, heads on embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load_file, save

from fedcert.adapters.finetune import FinetuneSettings
from fedcert.adapters.head_training import embedded_by, finetune_head
from fedcert.adapters.shared_layers import head_logits
from fedcert.arrays import FloatArray
from fedcert.atomic import write_atomically
from fedcert.cache import cache_folder
from fedcert.canonical import digest_json
from fedcert.data.examples import Examples
from fedcert.priors import Prior, best_of
from fedcert.randomness import derive_seed, small_seed
from fedcert.simulations.benchmarks.federations import Federation, remembered
from fedcert.simulations.benchmarks.publishing import say

__all__ = ["COUNTS", "NEW", "POOLS", "TRAINING", "Ground", "identity_of"]

POOLS = (32, 128)
COUNTS = (10, 100, 1000)
NEW = 60
TRAINING = FinetuneSettings(steps=40, batch_size=128, learning_rate=0.3, head_only=True)
# Of 22,495: they are embedded once, and that is most of the work.
_TEXTS = 2500
# New clients that also train alone.
_ALONE = 10
_SUPPORT = 64
# Raise it when a measurement changes what it gives for the same cell.
_VERSION = 1
_BLOCK = 64


def identity_of(groups: int, seed: int) -> dict[str, Any]:
    """Return what the figures of a grouping and seed follow from."""
    return {
        "version": _VERSION, "groups": groups, "seed": seed, "training": TRAINING.to_config(),
        "new": NEW, "counts": COUNTS, "largest": max(POOLS), "texts": _TEXTS, "alone": _ALONE,
    }  # fmt: skip


@dataclass(frozen=True)
class Ground:
    """A federation of one grouping and seed whose clients train heads.

    Attributes
    ----------
    groups : int
        Into how many groups the intents are split.
    seed : int
        Of everything.
    """

    groups: int
    seed: int

    @cached_property
    def federation(self) -> Federation:
        """Scenario and model."""
        return Federation.of(
            "intents",
            seed=self.seed,
            upstream=max(POOLS),
            new=NEW,
            domains=self.groups,
            texts=_TEXTS,
        )

    def embedded(self, examples: Examples) -> torch.Tensor:
        """Return the embeddings of texts, which are the same in all groupings."""
        known = _embeddings(self)
        return torch.from_numpy(np.stack([known[str(text)] for text in examples.inputs]))

    @cached_property
    def pool(self) -> FloatArray:
        """Return the upstream clients' adapters, ``(N, d)``."""
        names = self.federation.scenario.upstream_clients
        identity = identity_of(self.groups, self.seed)
        return np.array(
            [
                remembered("domains", identity | {"trained": n}, partial(self._trained, n))
                for n in names
            ]
        )

    def _trained(self, client: str) -> list[float]:
        examples = self.federation.scenario.training_examples(client)
        result = finetune_head(
            self.federation.model,
            examples,
            seed=small_seed("finetune", self.seed, client),
            settings=TRAINING,
            embedded=self.embedded(examples),
        )
        return [float(value) for value in result.vector]

    def risks(self, prior: Prior) -> FloatArray:
        """Return the risk of the best of M by new client, ``(clients, values of M)``."""
        vectors = prior.sample(derive_seed("risk profile", self.seed), count=max(COUNTS))
        scenario = self.federation.scenario
        # All new clients have the same texts.
        labels = self.predictions(vectors, self.tests(scenario.new_clients[0]))
        tests = [self.tests(client).labels for client in scenario.new_clients]
        return np.array([best_of(labels != mine, list(COUNTS)) for mine in tests])

    @cached_property
    def alone(self) -> float:
        """Return the mean error of heads that new clients train on 64 examples, alone."""
        scenario, errors = self.federation.scenario, []
        for client in scenario.new_clients[:_ALONE]:
            examples = self.support(client)
            vector = finetune_head(
                self.federation.model,
                examples,
                seed=small_seed("alone", self.seed, client),
                settings=TRAINING,
                embedded=self.embedded(examples),
            ).vector
            tests, adapter = self.tests(client), vector[None].astype(np.float64)
            errors.append((self.predictions(adapter, tests)[0] != tests.labels).mean())
        return float(np.mean(errors))

    def support(self, client: str) -> Examples:
        """Return a new client's support set."""
        return self.federation.scenario.support_examples(client, _SUPPORT)

    def tests(self, client: str) -> Examples:
        """Return what measures a new client's true error."""
        found = self.federation.scenario.test_examples(client)
        assert found is not None  # the scenario has some for everybody
        return found

    def logits(self, vectors: FloatArray, examples: Examples) -> torch.Tensor:
        """Return the logits of adapters ``(C, d)`` on examples, ``(C, n, K)``."""
        embedded, found = self.embedded(examples), []
        for block in torch.split(torch.from_numpy(vectors).float(), _BLOCK):
            with torch.no_grad():
                found.append(head_logits(self.federation.model, embedded, block))
        return torch.cat(found)

    def predictions(self, vectors: FloatArray, examples: Examples) -> npt.NDArray[np.int64]:
        """Return what adapters ``(C, d)`` say to examples, ``(C, n)``."""
        labels: npt.NDArray[np.int64] = self.logits(vectors, examples).argmax(-1).numpy()
        return labels


_known: dict[str, dict[str, npt.NDArray[np.float32]]] = {}


def _embeddings(ground: Ground) -> dict[str, npt.NDArray[np.float32]]:
    """Return the frozen encoder's embedding of each text that clients have, by text."""
    federation, scenario = ground.federation, ground.federation.scenario
    identity = {
        "base": federation.model.base.digest,
        "texts": _TEXTS,
        "seed": federation.settings.seed,
    }
    key = digest_json(identity)
    if key in _known:
        return _known[key]
    found: set[str] = set()
    for client in scenario.upstream_clients:
        found |= {*scenario.training_examples(client).inputs}
    for client in scenario.new_clients:
        found |= {*ground.tests(client).inputs, *ground.support(client).inputs}
    # By length: a block is as wide as its longest text.
    texts = np.array(sorted(found, key=lambda text: (len(text), text)), dtype=object)
    path = cache_folder() / "embeddings" / f"{key}.safetensors"
    if not path.is_file():
        parts = []
        for block in np.array_split(texts, -(-len(texts) // _BLOCK)):
            examples = Examples(block, np.zeros(len(block), dtype=np.int64))
            parts.append(embedded_by(federation.model, examples).numpy())
            say(".", end="")
        write_atomically(path, save({"embeddings": np.concatenate(parts)}))
    rows = load_file(path)["embeddings"]
    _known[key] = dict(zip(texts.tolist(), rows, strict=True))
    return _known[key]
