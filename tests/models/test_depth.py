"""A model that is cut after some layers is a base model of its own, which loads again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_text import save_tiny_backbone, tiny_texts, tiny_tokenizer
from torch.nn.functional import normalize
from transformers import AlbertConfig, AlbertModel, AutoModel, Qwen2Config, Qwen2Model

from fedcert.data import TextInputs
from fedcert.errors import ModelError
from fedcert.models import load_base_model, with_label_names, with_task_head
from models.tiny_encoders import FAMILIES, WORDS, save_encoder

TEXTS = np.array(list(tiny_texts(7, seed=4).inputs), dtype=object)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_encoder_gives_what_its_last_layer_did(family: str, tmp_path: Path) -> None:
    source = save_encoder(tmp_path / "source", family)
    folder = with_label_names(source, tmp_path / "base", pooling="mean", depth=2)
    base = load_base_model(str(folder))
    assert base.layout.count == 2
    encoded = TextInputs.of(base.name, max_length=12).bound_to(base).encode(TEXTS)
    whole = AutoModel.from_pretrained(source).eval()
    with torch.no_grad():
        hidden = whole(**encoded, output_hidden_states=True).hidden_states[2]
        if family == "llama":
            hidden = whole.norm(hidden)  # it stands behind the layers, and stays
        mask = encoded["attention_mask"][..., None]
        pooled = (hidden * mask).sum(1) / mask.sum(1)
        found = base.model.embed(**encoded)
    torch.testing.assert_close(normalize(found), normalize(pooled), atol=1e-5, rtol=1e-4)


def test_each_depth_has_its_own_digest_and_place_in_the_cache(tmp_path: Path) -> None:
    source = save_encoder(tmp_path / "source", "bert")
    made = {depth: with_label_names(source, pooling="mean", depth=depth) for depth in (0, 1, 2)}
    bases = [load_base_model(str(folder)) for folder in made.values()]
    assert [base.layout.count for base in bases] == [3, 1, 2]
    assert len({base.digest for base in bases}) == 3
    # No depth is what there was before there were depths, and all layers are all layers.
    assert made[0] == with_label_names(source, pooling="mean")
    all_of_them = with_label_names(source, pooling="mean", depth=3)
    assert load_base_model(str(all_of_them)).digest == bases[0].digest


def test_a_cut_classifier_keeps_its_head(tmp_path: Path) -> None:
    source = save_tiny_backbone(tmp_path / "source", "bert")
    base = load_base_model(str(with_task_head(source, ["no", "yes"], depth=1)))
    assert (base.layout.count, base.num_labels) == (1, 2)


def test_what_names_each_layer_is_cut_as_well(tmp_path: Path) -> None:
    config = Qwen2Config(
        vocab_size=29,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        pad_token_id=0,
    )
    Qwen2Model(config).save_pretrained(tmp_path / "source")
    tiny_tokenizer(words=WORDS).save_pretrained(tmp_path / "source")
    folder = with_label_names(tmp_path / "source", pooling="last", depth=2)
    model = load_base_model(str(folder)).model
    assert len(model.config.layer_types) == model.config.num_hidden_layers == 2


def test_a_depth_that_is_not_there_is_refused(tmp_path: Path) -> None:
    source = save_encoder(tmp_path / "source", "bert")
    for depth in (4, -1):
        with pytest.raises(ModelError, match=f"after layer {depth}: it has 3 layers"):
            with_label_names(source, pooling="mean", depth=depth)


def test_layers_that_share_weights_cannot_be_cut(tmp_path: Path) -> None:
    config = AlbertConfig(
        vocab_size=29,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
    )
    AlbertModel(config).save_pretrained(tmp_path / "source")
    tiny_tokenizer(words=WORDS).save_pretrained(tmp_path / "source")
    with pytest.raises(ModelError, match="does not count"):
        with_label_names(tmp_path / "source", pooling="mean", depth=1)
