"""A large base model is in memory once: for a search, for counting, and for every process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import Family

from fedcert.adapters import write_peft_adapter
from fedcert.adapters.exported_model import exported_model
from fedcert.models.identity import weight_digest
from fedcert.randomness import keyed_generator


def test_counting_shares_the_frozen_weights(any_family: Family, tmp_path: Path) -> None:
    space = any_family.space()
    vector = keyed_generator("shared").standard_normal(space.dimension)
    base = any_family.base
    write_peft_adapter(space, vector, tmp_path, base_name=base.name, base=base)
    model = exported_model(base, tmp_path)
    known = {parameter.data_ptr() for parameter in base.model.parameters()}
    own = sum(p.numel() for p in model.parameters() if p.data_ptr() not in known)
    # The low-rank parts and, twice, the head: PEFT keeps the one that was there.
    low_rank = sum(space.rank * (t.in_features + t.out_features) for t in space.targets)
    heads = sum(torch.Size(tensor.shape).numel() for tensor in space.head)
    assert low_rank < own <= low_rank + 2 * heads
    # And nothing that the adapter's head brings is written into what is shared.
    assert weight_digest(base.model) == base.weights


# A decoder of 300 million random parameters, more than a processor's caches by far.
_SIZE = {
    "vocab_size": 32000,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "num_labels": 3,
    "pad_token_id": 0,
    "max_position_embeddings": 256,
}
_MEASURE = """
import json, sys, tempfile
from pathlib import Path
import numpy as np, psutil, torch
from fedcert.adapters import AdapterSpace, PrefixCache, Task, write_peft_adapter
from fedcert.data import Examples
from fedcert.models import load_base_model
from fedcert.search import BatchedScorer, exported_wrong
from tiny_models import TokenInputs
import peft

def private():
    return psutil.Process().memory_full_info().uss / 2**20

torch.set_num_threads(1)
before = private()
base = load_base_model(sys.argv[1])
parameters = sum(tensor.numel() for tensor in base.model.parameters())
space = AdapterSpace.of(base, rank=2, last_layers=1)
task = Task(base, space, TokenInputs())
generator = np.random.default_rng(0)
examples = Examples(generator.integers(1, 999, (12, 24)), generator.integers(0, 3, 12))
vectors = generator.standard_normal((32, space.dimension))
BatchedScorer(task.model(prefix_cache=PrefixCache()), margin_tolerance=1e-4).score(
    vectors, examples
)
with tempfile.TemporaryDirectory() as folder:
    write_peft_adapter(space, vectors[0], Path(folder), base_name=base.name, base=base)
    exported_wrong(task, Path(folder), examples, margin_tolerance=1e-4)
print("ready", flush=True)
sys.stdin.readline()
print(json.dumps({"parameters": parameters, "mib": private() - before}), flush=True)
sys.stdin.readline()
"""


@pytest.mark.slow
def test_two_processes_hold_a_large_model_once(tmp_path: Path) -> None:
    """What docs/devices.md says of memory, checked on 300 million parameters."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    torch.manual_seed(0)
    LlamaForSequenceClassification(LlamaConfig(**_SIZE)).save_pretrained(
        tmp_path, max_shard_size="400MB"
    )
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    command = [sys.executable, "-c", _MEASURE, str(tmp_path)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    tests = Path(__file__).parents[1]
    running = [subprocess.Popen(command, cwd=tests, **pipes) for _ in range(2)]
    try:
        for process in running:
            assert process.stdout.readline() == "ready\n"
        for process in running:
            process.stdin.write("\n")
            process.stdin.flush()
        found = [json.loads(process.stdout.readline()) for process in running]
    finally:
        for process in running:
            process.communicate("\n")
    for measured in found:
        assert measured["parameters"] >= 300e6
        weights = 4 * measured["parameters"] / 2**20
        # Activations and cache beside them; a second copy of the weights would be 1,100 MiB.
        assert measured["mib"] < 0.3 * weights, measured
