"""Heads on encoders: the stacked scorer is the plain loop over stock PEFT, and exports load."""

from __future__ import annotations

import importlib.util
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from tiny_text import tiny_texts
from torch.nn.functional import cross_entropy, normalize
from transformers import AutoModel, AutoTokenizer

from fedcert.adapters import (
    AdapterSpace,
    FinetuneSettings,
    PrefixCache,
    Task,
    decode,
    encode,
    exported_digest,
    finetune,
    project,
    read_peft_adapter,
    write_peft_adapter,
)
from fedcert.adapters.constants import constant_adapters
from fedcert.adapters.peft_format import foreign_settings
from fedcert.data import Examples, TextInputs
from fedcert.errors import AdapterError
from fedcert.models import BaseModel, load_base_model, with_label_names, with_task_head
from fedcert.randomness import keyed_generator
from fedcert.search import BatchedScorer, ReferenceScorer, exported_wrong
from models.tiny_encoders import (
    FAMILIES,
    NAMES,
    embed_by_hand,
    save_encoder,
    save_sentence_encoder,
)

LABELS = {"names": ("bad0 bad1", "good3"), "trained": ("bad", "good")}
CASES = [
    *[(family, "mean", "names") for family in FAMILIES],
    ("bert", "cls", "names"),
    ("bert", "max", "names"),
    ("llama", "last", "names"),
    ("roberta", "mean", "trained"),
    ("llama", "last", "trained"),
    ("mpnet", "cls", "trained"),
]


def _base(folder: Path, family: str, pooling: str, head: str, **options: Any) -> BaseModel:
    source = save_encoder(folder / "source", family)
    if head == "names":
        made = with_label_names(source, folder / "base", pooling=pooling, **options)
        with warnings.catch_warnings():  # tiny models hardly tell their labels apart
            warnings.simplefilter("ignore")
            return load_base_model(str(made)).with_labels(LABELS["names"])
    made = with_task_head(source, LABELS[head], folder / "base", pooling=pooling, **options)
    return load_base_model(str(made), num_labels=2)


def _spec(base: BaseModel) -> TextInputs:
    return TextInputs.of(base.name, max_length=12)


@pytest.mark.parametrize(("family", "pooling", "head"), CASES)
def test_losses_and_winner_are_those_of_peft(
    family: str, pooling: str, head: str, tmp_path: Path
) -> None:
    base = _base(tmp_path, family, pooling, head)
    spec = _spec(base)
    for last_layers in (1, 2, 3):
        generator = keyed_generator("heads", family, pooling, last_layers)
        space = AdapterSpace.of(base, rank=3, last_layers=last_layers)
        reference = ReferenceScorer(Task(base, space, spec), margin_tolerance=1e-5)
        vectors = 0.5 * generator.standard_normal((5, space.dimension))
        for reduce_top, memory in ((True, 64.0), (False, 64.0), (True, 1e-6)):
            model = Task(base, space, _spec(base)).model(reduce_top=reduce_top)
            batched = BatchedScorer(model, margin_tolerance=1e-5, memory_mib=memory)
            examples = tiny_texts(8, seed=last_layers)
            ours, theirs = (s.score(vectors, examples) for s in (batched, reference))
            np.testing.assert_allclose(ours.losses, theirs.losses, rtol=0, atol=1e-4)
            assert ours.best()[1] == theirs.best()[1]
            assert ours.losses.std(axis=0).mean() > 0.01  # the adapters do differ
            if reduce_top and family in {"bert", "roberta", "llama"}:
                assert model.note == ""


@pytest.mark.parametrize(("family", "pooling"), [("bert", "mean"), ("mpnet", "mean")])
def test_a_prefix_cache_and_copies_change_nothing(
    family: str, pooling: str, tmp_path: Path
) -> None:
    base = _base(tmp_path, family, pooling, "names")
    space, cache = AdapterSpace.of(base, rank=2), PrefixCache()
    inputs = _spec(base).bound_to(base).encode(tiny_texts(7).inputs)
    vectors = torch.randn(4, space.dimension, generator=torch.Generator().manual_seed(0))
    plain, cached = (
        Task(base, space, _spec(base)).model(),
        Task(base, space, _spec(base)).model(prefix_cache=cache),
    )
    expected = plain.logits(plain.prepare(inputs), vectors)
    for _ in range(2):
        prepared = cached.prepare(inputs)
        logits = cached.logits(prepared, vectors)
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert cache.reused > 0
    # What another model prepared serves as well: layers that return tuples are told apart.
    other = Task(base, space, _spec(base)).model()
    torch.testing.assert_close(other.logits(prepared, vectors), logits, atol=1e-5, rtol=1e-5)
    rows = torch.tensor([3, 3, 0])
    taken = cached.logits(prepared.take(rows), vectors)
    torch.testing.assert_close(taken, logits[:, rows], atol=1e-5, rtol=1e-5)
    assert prepared.read is None


@pytest.mark.parametrize(("family", "pooling", "head"), CASES)
def test_stock_transformers_and_peft_load_the_export(
    family: str, pooling: str, head: str, tmp_path: Path
) -> None:
    """The folder, the source that fedcert never wrote, and nothing of fedcert's."""
    base = _base(tmp_path, family, pooling, head)
    space, examples = AdapterSpace.of(base, rank=3, last_layers=2), tiny_texts(9)
    vector = 0.5 * keyed_generator("export").standard_normal(space.dimension)
    folder = tmp_path / "adapter"
    digest = write_peft_adapter(space, vector, folder, base_name=base.name, base=base)
    assert exported_digest(folder) == digest
    assert foreign_settings(space, folder) == []
    logits = _with_stock_peft(tmp_path / "source", folder, list(examples.inputs), pooling, head)
    model, spec = Task(base, space, _spec(base)).model(), _spec(base).bound_to(base)
    ours = model.logits(model.prepare(spec.encode(examples.inputs)), _row(vector))[0]
    torch.testing.assert_close(ours, logits, atol=1e-4, rtol=1e-4)
    labels = torch.from_numpy(examples.labels)
    wrong = exported_wrong(Task(base, space, spec), folder, examples, margin_tolerance=0.0)
    np.testing.assert_array_equal(wrong, (logits.argmax(-1) != labels).numpy())
    scorer = ReferenceScorer(Task(base, space, spec), margin_tolerance=0.0)
    losses = scorer.score(vector[None], examples).losses[0]
    plain = cross_entropy(logits, labels, reduction="none").numpy()
    np.testing.assert_allclose(losses, plain, atol=1e-4)


def _with_stock_peft(
    source: Path, folder: Path, texts: list[str], pooling: str, head: str
) -> torch.Tensor:
    from safetensors import safe_open
    from safetensors.torch import load_file

    tokenizer = AutoTokenizer.from_pretrained(source)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # PEFT warns of keys that do not match
        model = PeftModel.from_pretrained(AutoModel.from_pretrained(source), str(folder)).eval()
    pooled = []
    for text in texts:
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        picked = {"mean": hidden.mean(0), "max": hidden.amax(0)}
        pooled.append(picked.get(pooling, hidden[0] if pooling == "cls" else hidden[-1]))
    tensors = load_file(folder / "head.safetensors")
    with safe_open(folder / "head.safetensors", "pt") as file:
        about = file.metadata()
    assert tuple(json.loads(about["names"])) == LABELS[head]
    if head == "trained":
        return torch.stack(pooled) @ tensors["weight"].T + tensors["bias"]
    scale = float(about["scale"]) * tensors["log_scale"].exp()
    return scale * normalize(torch.stack(pooled), dim=-1) @ tensors["label_embeddings"].T


def _row(vector: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(vector).float()[None]


def test_the_export_names_no_place_on_this_machine(tmp_path: Path) -> None:
    base = _base(tmp_path, "bert", "mean", "names")
    space = AdapterSpace.of(base, rank=2)
    write_peft_adapter(
        space, np.zeros(space.dimension), tmp_path / "a", base_name=base.name, base=base
    )
    for file in (tmp_path / "a").iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file.name
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["task_type"] == "FEATURE_EXTRACTION"
    assert config["base_model_name_or_path"] == "base"
    config["task_type"] = "SEQ_CLS"
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(config))
    assert foreign_settings(space, tmp_path / "a") == ["task_type"]


@pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None,
    reason="sentence-transformers is not installed",
)
def test_sentence_transformers_loads_the_export(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    source = save_sentence_encoder(tmp_path / "s", "bert")
    base = load_base_model(str(with_label_names(source, tmp_path / "b")))
    space = AdapterSpace.of(base, rank=3, last_layers=2)
    vector = 0.5 * keyed_generator("st").standard_normal(space.dimension)
    write_peft_adapter(space, vector, tmp_path / "a", base_name=base.name, base=base)
    theirs = SentenceTransformer(str(source), device="cpu")
    texts = list(tiny_texts(6).inputs)
    before = theirs.encode(texts)
    theirs.load_adapter(str(tmp_path / "a"))
    stock = PeftModel.from_pretrained(AutoModel.from_pretrained(source), str(tmp_path / "a"))
    tokenizer = AutoTokenizer.from_pretrained(source)
    for text, embedding, old in zip(texts, theirs.encode(texts), before, strict=True):
        with torch.no_grad():
            hidden = stock(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        wanted = normalize(hidden.mean(dim=0), dim=-1).numpy()
        np.testing.assert_allclose(embedding, wanted, atol=1e-5)
        assert np.abs(embedding - old).max() > 1e-3


def test_one_space_holds_the_adapters_of_all_label_sets(tmp_path: Path) -> None:
    base = _base(tmp_path, "bert", "mean", "names")
    three = base.with_labels(NAMES, descriptions={NAMES[0]: "bad4 bad5 bad6"})
    spaces = [AdapterSpace.of(each, rank=2) for each in (base, three)]
    assert spaces[0].digest == spaces[1].digest
    space = spaces[0]
    assert [tensor.shape for tensor in space.head] == [(1,)]
    assert space.dimension == 2 * 4 + 1
    assert len(constant_adapters(space, 3)) == 0
    vector = keyed_generator("codec").standard_normal(space.dimension).astype(np.float32)
    again = decode(space, encode(space, vector), space_digest=space.digest)
    np.testing.assert_array_equal(again.astype(np.float32), vector)
    model = Task(three, space, _spec(three)).model()
    texts = _spec(three).bound_to(three).encode(tiny_texts(4).inputs)
    assert model.logits(model.prepare(texts), _row(vector)).shape == (1, 4, 3)


def test_a_trained_head_predicts_constants(tmp_path: Path) -> None:
    base = _base(tmp_path, "bert", "mean", "trained")
    space = AdapterSpace.of(base, rank=2)
    scorer = BatchedScorer(Task(base, space, _spec(base)).model(), margin_tolerance=0.0)
    predicted = scorer.predict(constant_adapters(space, 2), tiny_texts(5).inputs)
    np.testing.assert_array_equal(predicted, [[0] * 5, [1] * 5])


def test_the_zero_adapter_is_the_zero_shot_classifier(tmp_path: Path) -> None:
    base = _base(tmp_path, "bert", "mean", "names")
    space = AdapterSpace.of(base, rank=2)
    texts = list(tiny_texts(6).inputs)
    scorer = BatchedScorer(Task(base, space, _spec(base)).model(), margin_tolerance=0.0)
    predicted = scorer.predict(np.zeros((1, space.dimension)), tiny_texts(6).inputs)[0]
    words = [
        embed_by_hand(tmp_path / "source", each, "mean") for each in (texts, LABELS["names"])
    ]
    cosines = normalize(words[0], dim=-1) @ normalize(words[1], dim=-1).T
    np.testing.assert_array_equal(predicted, cosines.argmax(dim=1).numpy())


@pytest.mark.parametrize("head", ["names", "trained"])
def test_fine_tuning_improves_on_the_start(head: str, tmp_path: Path) -> None:
    base = _base(tmp_path, "bert", "mean", head)
    space = AdapterSpace.of(base, rank=4, last_layers=2)
    model = Task(base, space, _spec(base)).model()
    settings = FinetuneSettings(steps=60, learning_rate=0.05, weight_decay=0.0)
    result = finetune(model, tiny_texts(40), seed=0, settings=settings)
    scorer = BatchedScorer(model, margin_tolerance=0.0)
    vectors = np.stack([np.zeros(space.dimension), result.vector.astype(np.float64)])
    losses = scorer.score(vectors, tiny_texts(60, seed=9)).losses.mean(axis=1)
    assert losses[1] < 0.85 * losses[0]
    assert result.vector[-1] != 0  # the scale, or a bias, is learned too


def test_one_class_teaches_where_names_define_the_task(tmp_path: Path) -> None:
    base = _base(tmp_path, "bert", "mean", "names")
    model = Task(base, AdapterSpace.of(base, rank=2), _spec(base)).model()
    examples = tiny_texts(20)
    good = examples.take(examples.labels == 1)
    settings = FinetuneSettings(steps=3)
    assert finetune(model, good, seed=0, settings=settings).loss >= 0


@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {"quantization": "int8"}])
def test_other_precisions_run_and_export(options: dict[str, str], tmp_path: Path) -> None:
    source = save_encoder(tmp_path / "source", "bert")
    folder = with_label_names(source, tmp_path / "base", pooling="mean", **options)
    dtype = options.get("dtype", "float32")
    base = load_base_model(str(folder), dtype=dtype).with_labels(("bad0 bad1", "good3 good4"))
    assert base.model.task_head.label_embeddings.dtype is torch.float32
    space, examples, spec = AdapterSpace.of(base, rank=3), tiny_texts(8), _spec(base)
    vectors = 0.5 * keyed_generator("dtypes").standard_normal((3, space.dimension))
    ours = BatchedScorer(Task(base, space, _spec(base)).model(), margin_tolerance=1e-5)
    stock = ReferenceScorer(Task(base, space, spec), margin_tolerance=1e-5)
    tolerance = 0.5 if dtype == "bfloat16" else 1e-4
    found = [scorer.score(vectors, examples).losses for scorer in (ours, stock)]
    np.testing.assert_allclose(*found, atol=tolerance)
    write_peft_adapter(space, vectors[0], tmp_path / "a", base_name="base", base=base)
    exported_wrong(Task(base, space, spec), tmp_path / "a", examples, margin_tolerance=1e-5)


def test_candidates_are_ranked_in_bfloat16(tmp_path: Path) -> None:
    base = _base(tmp_path, "bert", "mean", "names")
    space, examples = AdapterSpace.of(base, rank=3), tiny_texts(8)
    vectors = 0.5 * keyed_generator("low").standard_normal((3, space.dimension))
    losses = [
        BatchedScorer(
            Task(base, space, _spec(base)).model(), margin_tolerance=1e-5, precision=precision
        )
        .score(vectors, examples)
        .losses
        for precision in ("float32", "bfloat16")
    ]
    np.testing.assert_allclose(*losses, atol=0.5)


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_an_absurd_scale_stays_a_number(scale: float, tmp_path: Path) -> None:
    base = _base(tmp_path, "bert", "mean", "names")
    space = AdapterSpace.of(base, rank=2)
    vector = np.zeros((1, space.dimension))
    vector[0, -1] = scale
    scorer = BatchedScorer(Task(base, space, _spec(base)).model(), margin_tolerance=0.0)
    assert np.isfinite(scorer.score(vector, tiny_texts(5)).losses).all()


class TestForeign:
    """Adapters that PEFT trained on the encoder itself."""

    def _save(self, folder: Path, source: Path) -> Path:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(r=5, lora_alpha=9, target_modules=["query", "value"])
        with torch.random.fork_rng():
            torch.manual_seed(3)
            model = get_peft_model(AutoModel.from_pretrained(source), config)
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter, std=0.1)
        model.save_pretrained(folder)
        return folder

    def test_it_enters_by_projection_with_the_base_models_scale(self, tmp_path: Path) -> None:
        base = _base(tmp_path, "bert", "mean", "names")
        space = AdapterSpace.of(base, rank=16, last_layers=3)  # all of it fits
        folder = self._save(tmp_path / "lora", tmp_path / "source")
        projection = project(space, read_peft_adapter(folder, head_module=space.head_module))
        assert projection.residual < 1e-4
        assert projection.vector[-1] == 0
        stock = PeftModel.from_pretrained(
            AutoModel.from_pretrained(tmp_path / "source"), str(folder)
        ).eval()
        inputs = _spec(base).bound_to(base).encode(tiny_texts(1).inputs)
        model = Task(base, space, _spec(base)).model()
        with torch.no_grad():
            pooled = stock(**inputs).last_hidden_state.mean(dim=1)
            ours = model.logits(model.prepare(inputs), _row(projection.vector))[0]
        wanted = 20 * normalize(pooled, dim=-1) @ base.model.task_head.label_embeddings.T
        torch.testing.assert_close(ours, wanted, atol=1e-3, rtol=1e-3)

    def test_a_trained_head_must_come_with_it(self, tmp_path: Path) -> None:
        base = _base(tmp_path, "bert", "mean", "trained")
        folder = self._save(tmp_path / "lora", tmp_path / "source")
        update = read_peft_adapter(folder, head_module="")
        with pytest.raises(AdapterError, match=r"must hold it in head\.safetensors"):
            project(AdapterSpace.of(base, rank=2), update)

    def test_an_own_export_comes_back(self, tmp_path: Path) -> None:
        base = _base(tmp_path, "bert", "mean", "trained")
        space = AdapterSpace.of(base, rank=2)
        vector = keyed_generator("back").standard_normal(space.dimension)
        write_peft_adapter(space, vector, tmp_path / "a", base_name="base", base=base)
        update = read_peft_adapter(tmp_path / "a", head_module=space.head_module)
        np.testing.assert_allclose(project(space, update).vector, vector, atol=1e-5)


@pytest.mark.parametrize("damage", ["labels", "embeddings", "order", "missing", "torn", "head"])
def test_an_export_that_is_not_what_it_says_is_refused(damage: str, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    base = _base(tmp_path, "bert", "mean", "names")
    space, folder = AdapterSpace.of(base, rank=2), tmp_path / "a"
    write_peft_adapter(space, np.ones(space.dimension), folder, base_name="base", base=base)
    file, user = folder / "head.safetensors", base
    tensors = load_file(file)
    about = {"format": "fedcert.head/1", "names": json.dumps(LABELS["names"])}
    if damage == "labels":
        user, said = base.with_labels(("bad7 bad8", "good3")), "exported for the labels"
    elif damage == "order":
        user, said = base.with_labels(LABELS["names"][::-1]), "exported for the labels"
    elif damage == "embeddings":
        swapped = np.ascontiguousarray(tensors["label_embeddings"][::-1])
        save_file(tensors | {"label_embeddings": swapped}, file, metadata=about)
        said = "the label embeddings are not those that the base model gives"
    elif damage == "missing":
        file.unlink()
        said = r"no head\.safetensors"
    elif damage == "torn":
        file.write_bytes(file.read_bytes()[:40])
        said = "damaged"
    else:
        save_file({"weight": np.zeros((2, 16), np.float32)}, file, metadata=about)
        said = "does not fit the names head"
    with pytest.raises(AdapterError, match=said):
        exported_wrong(
            Task(user, space, _spec(base)), folder, tiny_texts(3), margin_tolerance=0.0
        )


def test_an_export_without_labels_serves_any(tmp_path: Path) -> None:
    """What a server publishes: a default adapter for clients with labels of their own."""
    labeled = _base(tmp_path, "bert", "mean", "names")
    base = load_base_model(str(tmp_path / "base"))
    space = AdapterSpace.of(base, rank=2)
    write_peft_adapter(
        space, np.ones(space.dimension), tmp_path / "a", base_name="base", base=base
    )
    examples = Examples(tiny_texts(4).inputs, np.zeros(4, dtype=np.int64))
    for user in (labeled, base.with_labels(NAMES, descriptions={NAMES[0]: "bad4 bad5"})):
        exported_wrong(
            Task(user, space, _spec(base)), tmp_path / "a", examples, margin_tolerance=0.0
        )
