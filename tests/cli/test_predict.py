"""``fedcert predict``: an adapter folder and a file of inputs are enough."""

from __future__ import annotations

import csv
import importlib.util
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from extending.blocks import blocks, run_commands, unnamed
from models.tiny_encoders import save_encoder, save_sentence_encoder
from peft import AutoPeftModelForFeatureExtraction, AutoPeftModelForSequenceClassification
from tiny_models import Family

import fedcert
from fedcert.adapters import AdapterSpace, write_peft_adapter
from fedcert.adapters.peft_format import foreign_settings
from fedcert.data import TextInputs
from fedcert.models import BaseModel, load_base_model, with_label_names, with_task_head
from fedcert.randomness import keyed_generator

from .conftest import Run

TEXTS = ["good1 bad2", "bad0, good3", "good4\ngood5"]


def _export(base: BaseModel, folder: Path) -> Path:
    space = AdapterSpace.of(base, rank=2)
    vector = keyed_generator("predict").standard_normal(space.dimension)
    inputs = TextInputs.of(base.name, max_length=12).to_config()
    write_peft_adapter(space, vector, folder, base_name=base.name, base=base, inputs=inputs)
    return folder


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """Leave an adapter folder with its base model beside it."""
    source = save_sentence_encoder(tmp_path / "s")
    folder = with_task_head(source, ("no", "yes"), tmp_path / "base-model")
    return _export(load_base_model(str(folder)), tmp_path / "mine" / "adapter")


def _write(folder: Path, name: str, column: str = "input") -> Path:
    path = folder / name
    rows = [{column: text, "id": place} for place, text in enumerate(TEXTS)]
    if path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    elif path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
        arrow = pytest.importorskip("pyarrow")
        parquet.write_table(arrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as file:
            delimiter = "\t" if path.suffix == ".tsv" else ","
            writer = csv.DictWriter(file, [column, "id"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.parquet"])
def test_every_file_of_texts_gets_the_classifiers_labels(
    name: str, adapter: Path, tmp_path: Path, run: Run
) -> None:
    shown = run("predict", adapter, _write(tmp_path, name))
    assert (shown.code, shown.err) == (0, "")
    rows = list(csv.DictReader(shown.out.splitlines()))
    classifier = fedcert.load_classifier(adapter, tmp_path / "base-model")
    assert [row["label"] for row in rows] == classifier.predict(TEXTS)
    assert [row["input"] for row in rows] == [" ".join(text.split()) for text in TEXTS]
    found = [[float(row[f"probability of {name}"]) for name in ("no", "yes")] for row in rows]
    np.testing.assert_allclose(found, classifier.predict_proba(TEXTS), atol=1e-5)
    np.testing.assert_allclose([float(r["probability"]) for r in rows], np.max(found, axis=1))


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_it_goes_to_a_file(ending: str, adapter: Path, tmp_path: Path, run: Run) -> None:
    data, output = _write(tmp_path, "t.csv", "text"), tmp_path / f"out.{ending}"
    shown = run("predict", adapter, data, "--input-column", "text", "-o", output)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out == f"3 predictions: {output}\n"
    if ending == "jsonl":
        rows = [json.loads(line) for line in output.read_text().splitlines()]
        assert [set(row["probabilities"]) for row in rows] == [{"no", "yes"}] * 3
    else:
        delimiter = "\t" if ending == "tsv" else ","
        rows = list(csv.DictReader(output.read_text().splitlines(), delimiter=delimiter))
    assert {row["label"] for row in rows} <= {"no", "yes"}


def test_images_may_have_a_column_for_each_number(
    vit: Family, tmp_path: Path, run: Run
) -> None:
    space = vit.space()
    write_peft_adapter(
        space,
        keyed_generator("predict").standard_normal(space.dimension),
        tmp_path / "a",
        base_name="vit",
        base=vit.base,
        labels=("low", "high"),
        inputs=vit.inputs.to_config(),
    )
    images = vit.examples(2).inputs.reshape(2, -1)
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["label", *(f"p{place}" for place in range(images.shape[1]))]]
            + [["low", *row] for row in images.tolist()]
        )
    shown = run("predict", tmp_path / "a", tmp_path / "t.csv", "--base-model", vit.folder)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith("label,probability,probability of low,probability of high\n")
    assert len(shown.out.splitlines()) == 3


def test_labels_of_ones_own(tmp_path: Path, run: Run) -> None:
    source = save_sentence_encoder(tmp_path / "s")
    base = load_base_model(str(with_label_names(source, tmp_path / "base-model")))
    adapter = _export(base, tmp_path / "adapter")
    data, labels = _write(tmp_path, "t.csv"), tmp_path / "labels.txt"
    shown = run("predict", adapter, data)
    assert (shown.code, shown.out) == (1, "")
    assert "exported without labels" in shown.err
    labels.write_text("bad\tbad0 bad1\ngood\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shown = run("predict", adapter, data, "--labels", labels)
        descriptions = {"bad": "bad0 bad1"}
        own = fedcert.load_classifier(
            adapter, base, labels=("bad", "good"), descriptions=descriptions
        )
    assert (shown.code, shown.err) == (0, "")
    rows = list(csv.DictReader(shown.out.splitlines()))
    assert [row["label"] for row in rows] == own.predict(TEXTS)


def test_what_does_not_fit_is_refused_in_one_line(
    adapter: Path, tmp_path: Path, run: Run
) -> None:
    data = _write(tmp_path, "t.csv")
    (tmp_path / "empty.csv").write_text("input,id\ngood1,1\n ,2\n")
    (tmp_path / "labels.txt").write_text("yes\nno\n")
    (tmp_path / "bare").mkdir()
    other = with_task_head(tmp_path / "s", ("no", "maybe", "yes"), tmp_path / "other")
    cases = {
        (tmp_path / "nothing", data): "there is no such folder",
        (tmp_path / "bare", data): "no adapter_config.json",
        (adapter, tmp_path / "t.jsonl"): "t.jsonl: no such file",
        (adapter, data, "--input-column", "inputs"): "no column 'inputs'; it has input, id",
        (adapter, tmp_path / "empty.csv"): "empty.csv: line 3 is an empty text",
        (adapter, data, "-o", tmp_path / "o.xlsx"): "must end in .csv, .tsv, or .jsonl",
        (adapter, data, "--base-model", other): "has other weights or another configuration",
        (adapter, data, "--labels", tmp_path / "labels.txt"): "exported for the labels no, yes",
    }
    for words, said in cases.items():
        shown = run("predict", *words)
        assert (shown.code, shown.out) == (1, ""), words
        assert said in shown.err
        assert shown.err.count("\n") == 1
    (tmp_path / "base-model").rename(tmp_path / "elsewhere")
    shown = run("predict", adapter, data)
    assert "needs the base model 'base-model' (digest " in shown.err
    assert "name its folder with --base-model" in shown.err


def test_labels_that_embed_alike_are_said_in_one_line(tmp_path: Path, run: Run) -> None:
    source = save_sentence_encoder(tmp_path / "s")
    base = load_base_model(str(with_label_names(source, tmp_path / "base-model")))
    adapter = _export(base, tmp_path / "adapter")
    (tmp_path / "labels.txt").write_text("zzz\nyyy\n")  # words that nobody knows
    data = _write(tmp_path, "t.csv")
    shown = run("predict", adapter, data, "--labels", tmp_path / "labels.txt")
    assert shown.code == 0
    [line] = shown.err.splitlines()
    assert line.startswith("WARNING: the labels 'zzz' and 'yyy' embed almost alike (cosine 1")


def test_data_of_another_kind_are_refused_in_one_line(
    adapter: Path, vit: Family, tmp_path: Path, run: Run
) -> None:
    """Images for a model of texts, and texts for one of images."""
    np.savez(tmp_path / "images.npz", input=np.zeros((2, 1, 8, 8)))
    shown = run("predict", adapter, tmp_path / "images.npz")
    assert (shown.code, shown.out) == (1, "")
    assert "images.npz: row 1 is not a text but " in shown.err
    assert shown.err.count("\n") == 1
    space = vit.space()
    vector = np.zeros(space.dimension)
    known = {"labels": ("low", "high"), "inputs": vit.inputs.to_config()}
    write_peft_adapter(space, vector, tmp_path / "a", base_name="vit", base=vit.base, **known)
    words = (tmp_path / "a", _write(tmp_path, "t.csv"), "--base-model", vit.folder)
    shown = run("predict", *words)
    assert (shown.code, shown.out) == (1, "")
    assert "t.csv: line 2 holds something else than numbers" in shown.err
    assert shown.err.count("\n") == 1
    shown = run("predict", *words[:3], tmp_path / "base-model")
    assert "has other weights or another configuration" in shown.err


# The pages


@pytest.mark.parametrize("page", ["predicting.md", "../README.md"])
def test_nothing_on_the_pages_about_predicting_goes_untested(page: str) -> None:
    names = {"predict", "classifier"}
    if page == "../README.md":
        names |= {"personalize"}  # tests/packaging/test_walkthrough.py
    if page == "predicting.md":
        assert unnamed(page, "python") == unnamed(page, "sh") == []
        names |= {"encoder", "sentences", "classification"}
    assert set(blocks(page, "run")) == names


@pytest.mark.parametrize(
    ("page", "mine"), [("predicting.md", "my-device"), ("../README.md", "mine")]
)
def test_the_pages_predict(
    page: str,
    mine: str,
    adapter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if mine != "mine":
        (tmp_path / "mine").rename(tmp_path / mine)
    _write(tmp_path, "t.csv").rename(tmp_path / "texts.csv")
    monkeypatch.chdir(tmp_path)
    run_commands(blocks(page, "run")["predict"], monkeypatch)
    assert page == "../README.md" or len(Path("labels.csv").read_text().splitlines()) == 4
    capsys.readouterr()
    lines = blocks(page, "run")["classifier"].strip().splitlines()
    assert len(lines) <= 10
    exec("\n".join(lines), {})
    assert "['no', 'no']" in capsys.readouterr().out  # of words that nobody knows


def test_stock_peft_loads_the_folder_as_the_page_says(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").rename(tmp_path / "my-device")
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {}
    exec(blocks("predicting.md", "run")["encoder"], known)
    auto = AutoPeftModelForFeatureExtraction.from_pretrained("my-device/adapter")
    assert auto.peft_config["default"].base_model_name_or_path == "base-model"
    ids = torch.tensor([[4, 5, 6]])
    with torch.no_grad():
        found, wanted = auto(input_ids=ids)[0], known["encoder"](input_ids=ids)[0]
        bare = known["encoder"].get_base_model()
    torch.testing.assert_close(found, wanted)
    assert type(bare).__name__ == "BertModel"


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_stock_peft_gives_the_logits_of_a_classifier(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save_encoder(tmp_path / "s", family)
    base = load_base_model(str(with_task_head(source, ("no", "yes"), tmp_path / "base-model")))
    _export(base, tmp_path / "my-device" / "adapter")
    monkeypatch.chdir(tmp_path)
    config = json.loads(Path("my-device/adapter/adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_CLS"
    assert foreign_settings(AdapterSpace.of(base, rank=2), Path("my-device/adapter")) == []
    known: dict[str, Any] = {}
    exec(blocks("predicting.md", "run")["classification"], known)
    auto = AutoPeftModelForSequenceClassification.from_pretrained("my-device/adapter")
    classifier = fedcert.load_classifier("my-device/adapter", "base-model")
    encoded = classifier.inputs.encode(np.array(["good1 bad2"], dtype=object))
    wanted = classifier.predict_proba(["good1 bad2"])
    for model in (known["model"].eval(), auto.eval()):
        with torch.no_grad():
            found = model(**encoded).logits.softmax(-1).numpy()
        np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None,
    reason="sentence-transformers is not installed",
)
def test_sentence_transformers_loads_the_folder_as_the_page_says(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").rename(tmp_path / "my-device")
    (tmp_path / "s").rename(tmp_path / "sentence-encoder")
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {}
    exec(blocks("predicting.md", "run")["sentences"], known)
    assert known["embeddings"].shape == (2, 16)


def test_what_is_not_sure_enough_gets_no_answer_and_sets_are_listed_in_order(
    adapter: Path, run: Run, tmp_path: Path
) -> None:
    described = adapter / "classifier.json"
    stored = json.loads(described.read_text())
    data, told = _write(tmp_path, "data.csv"), tmp_path / "told.jsonl"
    for threshold, sure in ((0.0, True), (1e5, False)):
        described.write_text(json.dumps(stored | {"threshold": threshold}))
        assert run("predict", adapter, data, "--top", 2, "-o", told).code == 0
        rows = [json.loads(line) for line in told.read_text().splitlines()]
        for row in rows:
            ranked = sorted(row["probabilities"], key=row["probabilities"].get, reverse=True)
            assert row["labels"] == ranked
            assert row["label"] == (ranked[0] if sure else "no answer")
    assert run("predict", adapter, data, "--top", 3).code == 1
