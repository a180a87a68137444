"""Models that do not fit: one error that names the architecture and says what fits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import TokenInputs

from fedcert.adapters import AdapterSpace, Task
from fedcert.data import Examples
from fedcert.errors import ModelError
from fedcert.models.base import freeze
from fedcert.search import BatchedScorer

_COMMON: dict[str, Any] = {"vocab_size": 50, "num_labels": 2, "pad_token_id": 0}
_SIZE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
_SPLIT: dict[str, Any] = {"d_model": 16, "eos_token_id": 2}


def _deberta() -> Any:
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    relative = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
    return DebertaV2ForSequenceClassification(DebertaV2Config(**_COMMON, **_SIZE, **relative))


def _t5() -> Any:
    from transformers import T5Config, T5ForSequenceClassification

    size = {"d_kv": 8, "d_ff": 32, "num_layers": 3, "num_heads": 2}
    return T5ForSequenceClassification(
        T5Config(**_COMMON, **_SPLIT, **size, decoder_start_token_id=0)
    )


def _bart() -> Any:
    from transformers import BartConfig, BartForSequenceClassification

    size = {f"{part}_ffn_dim": 32 for part in ("encoder", "decoder")}
    size |= {f"{part}_layers": 2 for part in ("encoder", "decoder")}
    size |= {f"{part}_attention_heads": 2 for part in ("encoder", "decoder")}
    return BartForSequenceClassification(BartConfig(**_COMMON, **_SPLIT, **size))


def _gpt2() -> Any:
    from transformers import GPT2Config, GPT2ForSequenceClassification

    return GPT2ForSequenceClassification(
        GPT2Config(**_COMMON, n_embd=16, n_layer=3, n_head=2, n_positions=16)
    )


def _distilbert() -> Any:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(**_COMMON, dim=16, n_layers=3, n_heads=2, hidden_dim=32)
    return DistilBertForSequenceClassification(config)


@pytest.mark.parametrize(
    ("build", "projections"),
    [
        (_deberta, ("query", "value")),
        (_deberta, ("query_proj", "value_proj")),
        (_t5, ("q", "v")),
        (_bart, ("q_proj", "v_proj")),
        (_gpt2, ("q_proj", "v_proj")),
        (_gpt2, ("c_attn",)),
        (_distilbert, ("q_lin", "v_lin")),
    ],
)
@pytest.mark.parametrize("last_layers", [1, 2])
def test_the_architecture_is_named(
    build: Any, projections: tuple[str, ...], last_layers: int
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build()
    ids = np.random.default_rng(0).integers(3, 50, (4, 7))
    ids[0, 5:] = 0
    examples = Examples(ids, np.array([0, 1, 0, 1]))
    with pytest.raises(ModelError) as raised:
        _score(model, projections, last_layers, examples)
    assert type(model).__name__ in str(raised.value)
    assert "such as ALBERT, BERT, ELECTRA" in str(raised.value)


def _score(
    model: Any, projections: tuple[str, ...], last_layers: int, examples: Examples
) -> None:
    base = freeze(model, name="unusual")
    space = AdapterSpace.of(base, rank=2, last_layers=last_layers, projections=projections)
    scorer = BatchedScorer(Task(base, space, TokenInputs()).model(), margin_tolerance=0.0)
    scorer.score(np.ones((1, space.dimension)), examples)
