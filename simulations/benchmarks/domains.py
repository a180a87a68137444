"""``make bench-domains``: from which pool on each prior pays, by how much tasks differ.

Clients of the scenario `intents` call half of 10, 20, or 30 groups of intents their own, and
train a head on frozen embeddings. Texts are embedded once, for all clients and all groupings.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save

from fedcert.adapters.finetune import FinetuneSettings
from fedcert.adapters.head_training import embedded_by, finetune_head
from fedcert.adapters.shared_layers import head_logits
from fedcert.atomic import write_atomically
from fedcert.cache import cache_folder
from fedcert.canonical import digest_json
from fedcert.data.examples import Examples
from fedcert.errors import FedcertError
from fedcert.priors import PRIORS, DiffusionPrior, Prior, best_of
from fedcert.priors.base import FloatArray
from fedcert.randomness import derive_seed, small_seed
from fedcert.runs.machine import describe_machine, versions
from fedcert.simulations.benchmarks.domains_page import domains_page
from fedcert.simulations.benchmarks.federations import Federation, remembered
from fedcert.simulations.benchmarks.publishing import publish
from fedcert.threads import torch_threads

__all__ = ["main", "measure"]

GROUPS = (10, 20, 30)
POOLS = (32, 96, 256)
COUNTS = (10, 100, 1000)
SEEDS = (0,)
NEW = 60
# Of 22,495: they are embedded once, and that is most of the work.
_TEXTS = 5000
# New clients that also train alone.
_ALONE = 20
_SUPPORT = 64
# Raise it when a measurement changes what it gives for the same cell.
_VERSION = 1
_TRAINING = FinetuneSettings(steps=100, batch_size=128, learning_rate=0.3, head_only=True)
_BLOCK = 64


@dataclass(frozen=True)
class _Ground:
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
        options = {
            "upstream": max(POOLS), "new": NEW, "domains": self.groups, "texts": _TEXTS
        }  # fmt: skip
        return Federation.of("intents", seed=self.seed, **options)

    def embedded(self, examples: Examples) -> torch.Tensor:
        """Return the embeddings of texts, which are the same in all groupings."""
        known = _embeddings(self.federation)
        return torch.from_numpy(np.stack([known[str(text)] for text in examples.inputs]))

    @cached_property
    def pool(self) -> FloatArray:
        """Return the upstream clients' adapters, ``(N, d)``."""
        rows = [self._trained(name) for name in self.federation.scenario.upstream_clients]
        return np.array(rows, dtype=np.float64)

    def _trained(self, client: str) -> FloatArray:
        examples = self.federation.scenario.training_examples(client)
        result = finetune_head(
            self.federation.model,
            examples,
            seed=small_seed("finetune", self.seed, client),
            settings=_TRAINING,
            embedded=self.embedded(examples),
        )
        return result.vector.astype(np.float64)

    def risks(self, prior: Prior) -> FloatArray:
        """Return the risk of the best of M by new client, ``(clients, values of M)``."""
        vectors = prior.sample(derive_seed("risk profile", self.seed), count=max(COUNTS))
        scenario = self.federation.scenario
        labels = self.predictions(vectors, scenario.test_examples(scenario.new_clients[0]))
        tests = [scenario.test_examples(client).labels for client in scenario.new_clients]
        return np.array([best_of(labels != mine, list(COUNTS)) for mine in tests])

    @cached_property
    def alone(self) -> float:
        """Return the mean error of heads that new clients train on 64 examples, alone."""
        scenario, errors = self.federation.scenario, []
        for client in scenario.new_clients[:_ALONE]:
            examples = scenario.support_examples(client, _SUPPORT)
            vector = finetune_head(
                self.federation.model,
                examples,
                seed=small_seed("alone", self.seed, client),
                settings=_TRAINING,
                embedded=self.embedded(examples),
            ).vector
            tests = scenario.test_examples(client)
            errors.append((self.predictions(vector[None], tests)[0] != tests.labels).mean())
        return float(np.mean(errors))

    def predictions(self, vectors: FloatArray, examples: Examples) -> np.ndarray:
        """Return what adapters ``(C, d)`` say to examples, ``(C, n)``."""
        embedded = self.embedded(examples)
        found = []
        for block in torch.from_numpy(vectors).float().split(_BLOCK):
            with torch.no_grad():
                found.append(head_logits(self.federation.model, embedded, block).argmax(-1))
        return torch.cat(found).numpy()


_known: dict[str, dict[str, np.ndarray]] = {}


def _embeddings(federation: Federation) -> dict[str, np.ndarray]:
    """Return the frozen encoder's embedding of each text that clients have, by text."""
    scenario = federation.scenario
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
        found |= {*scenario.test_examples(client).inputs}
        found |= {*scenario.support_examples(client, _SUPPORT).inputs}
    # By length: a block is as wide as its longest text.
    texts = np.array(sorted(found, key=lambda text: (len(text), text)), dtype=object)
    path = cache_folder() / "embeddings" / f"{key}.safetensors"
    if not path.is_file():
        parts = []
        for block in np.array_split(texts, -(-len(texts) // _BLOCK)):
            examples = Examples(block, np.zeros(len(block), dtype=np.int64))
            parts.append(embedded_by(federation.model, examples).numpy())
            sys.stdout.write(".")
            sys.stdout.flush()
        write_atomically(path, save({"embeddings": np.concatenate(parts)}))
    rows = load_file(path)["embeddings"]
    _known[key] = dict(zip(texts.tolist(), rows, strict=True))
    return _known[key]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and render; a part of the benchmark goes to a folder of its own."""
    parser = argparse.ArgumentParser(prog="domains", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--output", type=Path, help="folder for the record and the page")
    options = parser.parse_args(arguments)
    try:
        with torch_threads(1):
            record = measure(options.seeds)
    except FedcertError as error:
        sys.exit(f"error: {error}")
    publish("domains", record, {"domains.md": domains_page(record)}, folder=options.output)


def measure(seeds: Sequence[int]) -> dict[str, Any]:
    """Return the benchmark's record, a JSON object."""
    table = [row for seed in seeds for groups in GROUPS for row in _rows(groups, seed)]
    return {
        "command": "make bench-domains",
        "seeds": list(seeds),
        "new": NEW,
        "training": _TRAINING.to_config(),
        "machine": describe_machine(),
        "versions": versions(),
        "table": table,
    }


def _rows(groups: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each pool and prior, of one grouping."""
    identity = {
        "version": _VERSION, "groups": groups, "seed": seed, "training": _TRAINING.to_config(),
        "new": NEW, "counts": COUNTS, "largest": max(POOLS), "texts": _TEXTS, "alone": _ALONE,
    }  # fmt: skip
    ground = _Ground(groups, seed)
    for size in POOLS:
        for kind in PRIORS:
            cell = identity | {"pool": size, "prior": kind}
            yield remembered("domains", cell, partial(_row, ground, size, kind))


def _row(ground: _Ground, size: int, kind: str) -> dict[str, Any]:
    prior = PRIORS[kind].fit(ground.pool[:size], seed=small_seed("prior", ground.seed))
    risks = ground.risks(prior)
    row = {
        "scenario": "intents",
        "domains": ground.groups,
        "seed": ground.seed,
        "pool": size,
        "prior": kind,
        "directions": None if kind == "pool" else prior.noise_width,
        "alone": ground.alone,
        "risks": [
            {"m": m, "risk": float(column.mean()), "se": float(column.std(ddof=1) / NEW**0.5)}
            for m, column in zip(COUNTS, risks.T, strict=True)
        ],
    }
    if isinstance(prior, DiffusionPrior):
        row["best_step"] = prior.report.best_step
    risk = row["risks"][-1]["risk"]
    sys.stdout.write(f"{ground.groups} groups, pool {size}, {kind}: {risk:.3f}\n")
    sys.stdout.flush()
    return row


if __name__ == "__main__":
    main()
