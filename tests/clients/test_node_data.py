"""A deployed node: who it is and what it reads are its own configuration's business."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from models.tiny_encoders import save_sentence_encoder
from simulations.federation import tiny_settings

from fedcert.adapters import AdapterSpace
from fedcert.clients import client_app
from fedcert.clients.client_app import make_client_app
from fedcert.clients.node import Node, node_of
from fedcert.errors import DataError, FedcertError, SettingsError
from fedcert.messages import PROTOCOL_VERSION, REPLY, TRAIN
from fedcert.messages.flower import payload_of
from fedcert.models import load_base_model
from fedcert.records.signing import public_hex
from fedcert.scenarios import load_scenario
from fedcert.settings import RunSettings
from fedcert.simulations.runners.flower_internals import LocalGrid

ROWS = "a,b,c,d,label\n0,.1,.2,.3,dark\n.4,.5,.6,.7,bright\n1,1,1,1,1\n"


@pytest.fixture
def settings(tmp_path: Path) -> RunSettings:
    return tiny_settings(
        scenario__name="own-data",
        scenario__options__labels="dark, bright",
        scenario__options__base=str(tmp_path / "server-base"),
        scenario__options__image="1x2x2",
        scenario__options__low=0,
        scenario__options__high=1,
    )


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "data.csv").write_text(ROWS)
    return {
        "client-id": "hospital-3",
        "role": "upstream",
        "data-path": str(tmp_path / "data.csv"),
        "output": str(tmp_path / "node"),
    }


def _node(settings: RunSettings, config: dict[str, Any]) -> Node:
    return node_of(
        Context(1, 1, config, RecordDict(), {}), settings, Path("/run-of-the-server")
    )


def test_an_upstream_node_trains_on_its_whole_file(
    settings: RunSettings, config: dict[str, Any], tmp_path: Path
) -> None:
    node = _node(settings, config)
    assert (node.client, node.role) == ("hospital-3", "upstream")
    assert node.folder == tmp_path / "node"
    examples = node.scenario.training_examples("hospital-3")
    assert examples.inputs.shape == (3, 1, 2, 2)
    assert examples.inputs[1].ravel() == pytest.approx([0.4, 0.5, 0.6, 0.7])
    assert examples.labels.tolist() == [0, 1, 1]
    assert node.introduction().protocol == PROTOCOL_VERSION


def test_all_examples_of_a_new_node_are_its_support_set(
    settings: RunSettings, config: dict[str, Any]
) -> None:
    node = _node(settings, config | {"role": "new"})
    assert len(node.scenario.support_examples("hospital-3", 64)) == 3
    assert len(node.scenario.support_examples("hospital-3", 1)) == 3
    assert node.scenario.test_examples("hospital-3") is None


@pytest.mark.parametrize(("role", "other"), [("upstream", "new"), ("new", "upstream")])
def test_a_node_serves_nothing_but_its_part(
    settings: RunSettings, config: dict[str, Any], role: str, other: str
) -> None:
    scenario = _node(settings, config | {"role": role}).scenario
    give = {
        "upstream": scenario.training_examples,
        "new": lambda client: scenario.support_examples(client, 2),
    }
    with pytest.raises(DataError, match=f"this node is the {role} client .*serve no {other}"):
        give[other]("hospital-3")
    with pytest.raises(DataError, match=r"serve no .* client 'hospital-4'"):
        give[role]("hospital-4")


def test_its_keys_are_its_own_and_not_derived_from_the_runs_seed(
    settings: RunSettings, config: dict[str, Any], tmp_path: Path
) -> None:
    node = _node(settings, config)
    key = public_hex(node.signing_key())
    assert (tmp_path / "node" / "client.key").stat().st_mode & 0o777 == 0o600
    assert public_hex(_node(settings, config).signing_key()) == key
    moved = config | {"output": str(tmp_path / "other")}
    assert public_hex(_node(settings, moved).signing_key()) != key
    # Nor are its salts: a simulated state would make the same secret in both folders.
    examples = node.scenario.training_examples("hospital-3")
    secrets = [n.state().spent.keyed("x") for n in (node, _node(settings, moved))]
    assert secrets[0] != secrets[1]
    assert len(examples) == 3


def test_paths_of_its_own(
    settings: RunSettings, config: dict[str, Any], tmp_path: Path
) -> None:
    more = {"key-path": str(tmp_path / "k"), "state-path": str(tmp_path / "s")}
    node = _node(settings, config | more)
    assert (node.key_path, node.state_path) == (tmp_path / "k", tmp_path / "s")


def test_its_base_model_takes_the_place_of_the_servers(
    settings: RunSettings, config: dict[str, Any], tmp_path: Path
) -> None:
    wrong = config | {"base-model": str(tmp_path / "nodes-base")}
    with pytest.raises(FedcertError, match="nodes-base"):
        _node(settings, wrong).base_model()
    with pytest.raises(FedcertError, match="server-base"):
        _node(settings, config).base_model()


def test_a_scenario_with_data_can_give_the_task(config: dict[str, Any], tmp_path: Path) -> None:
    values = ",".join(f"v{i}" for i in range(16))
    (tmp_path / "data.csv").write_text(f"{values},label\n{','.join(['.5'] * 16)},bright\n")
    node = _node(tiny_settings(), config)
    assert node.scenario.labels == ("dark", "bright")
    assert len(node.scenario.training_examples("hospital-3")) == 1
    assert node.base_model().num_labels == 2


# Kinds of files


def _write(path: Path, kind: str) -> None:
    inputs, labels = [[0.0, 0.1, 0.2, 0.3], [1.0] * 4], ["dark", "bright"]
    if kind == "jsonl":
        rows = [{"x": x, "y": y} for x, y in zip(inputs, labels, strict=True)]
        path.write_text("\n".join(map(json.dumps, rows)))
    elif kind == "npz":
        np.savez(path, x=np.array(inputs), y=np.array(labels))
    else:
        arrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.table({"x": inputs, "y": labels}), path)


@pytest.mark.parametrize("kind", ["jsonl", "npz", "parquet"])
def test_kinds_of_files_and_names_of_columns(
    settings: RunSettings, config: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    path = tmp_path / f"data.{kind}"
    _write(path, kind)
    own = config | {"data-path": str(path), "input-column": "x", "label-column": "y"}
    examples = _node(settings, own).scenario.training_examples("hospital-3")
    assert examples.labels.tolist() == [0, 1]
    assert examples.inputs[0].ravel() == pytest.approx([0.0, 0.1, 0.2, 0.3])


# Rows that cannot be read, and repeats


def test_training_leaves_out_what_cannot_be_read_and_tells_so(
    settings: RunSettings,
    config: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = "".join(f"{i / 9},0,0,0,{'dark' if i % 2 else 'bright'}\n" for i in range(10))
    broken = "nan,0,0,0,dark\n7,0,0,0,dark\n0,0,0,0,a-rare-disease\n"
    (tmp_path / "data.csv").write_text(f"a,b,c,d,label\n{rows}{broken}")
    node = _node(settings, config)
    assert len(node.training_examples()) == 10
    said = capsys.readouterr().err
    assert "3 of 13 training examples cannot be read, or have no label of the task" in said
    assert "disease" not in said
    # Planning stands for a new client, whose sample is counted whole.
    assert len(node.scenario.training_examples("hospital-3")) == 13
    new = _node(settings, config | {"role": "new"})
    assert new.scenario.support_examples("hospital-3", 4).always_wrong == 3


def test_a_node_states_that_its_duplicates_are_real(
    settings: RunSettings, config: dict[str, Any]
) -> None:
    key = "duplicates-are-real"
    assert not _node(settings, config).duplicates_are_real
    for value in (True, "true"):
        assert _node(settings, config | {key: value}).duplicates_are_real
    with pytest.raises(SettingsError, match=r"duplicates-are-real = 'yes' .* true or false"):
        _node(settings, config | {key: "yes"})
    with pytest.raises(SettingsError, match="write duplicates-are-real instead"):
        _node(settings, config | {"duplicate-are-real": True})


def test_a_node_states_that_inputs_came_up_again(
    settings: RunSettings, config: dict[str, Any]
) -> None:
    assert not _node(settings, config).repeats_are_new
    assert _node(settings, config | {"repeats-are-new": "true"}).repeats_are_new


# Mistakes


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"client-id": ""}, r"^client-id = '' in the node's configuration: give the client's"),
        ({"client-id": "../x"}, r"^client-id = '\.\./x'"),
        ({"role": "upstreams"}, r"^role = 'upstreams' .* give 'upstream' .* or 'new'"),
        ({"role": ""}, "^role = ''"),
        ({"data-path": "data.csv"}, r"^data-path = 'data\.csv' .* not an absolute path"),
        ({"data-path": "/nowhere/x.csv"}, "^data-path = '/nowhere/x.csv' .* is no file"),
        ({"data-path": ""}, "^data-path = '' .* is no file"),
        ({"output": ""}, "data-path and no output: add output="),
        ({"base-model": "/nowhere/base"}, "^base-model = '/nowhere/base' .* is no folder"),
        ({"state_path": "/x"}, "^state_path is no key .*; write state-path instead"),
        ({"label-colum": "y"}, "^label-colum is no key .*; write label-column instead"),
        ({"output": "here"}, "^output = 'here' .* not an absolute path"),
        ({"key-path": "k"}, "^key-path = 'k' .* not an absolute path"),
        ({"state-path": "s"}, "^state-path = 's' .* not an absolute path"),
        ({"adapter-path": "a"}, "^adapter-path = 'a' .* not an absolute path"),
    ],
)
def test_a_mistake_in_the_configuration_names_its_key(
    settings: RunSettings, config: dict[str, Any], change: dict[str, str], text: str
) -> None:
    with pytest.raises(SettingsError, match=text):
        _node(settings, config | change)


def test_a_client_id_may_be_a_number(settings: RunSettings, config: dict[str, Any]) -> None:
    assert _node(settings, config | {"client-id": 7}).client == "7"


def test_the_server_does_not_learn_what_is_wrong_with_the_file(
    settings: RunSettings,
    config: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "data.csv").write_text("a,b,c,d,label\n0,0,0,0,a-rare-disease\n")
    with pytest.raises(DataError) as caught:
        _node(settings, config).scenario.training_examples("hospital-3")
    assert str(caught.value) == (
        "the file that the node's data-path names does not hold examples of this task; "
        "the node's own log says why"
    )
    # Nor by the error that a traceback would print along.
    assert caught.value.__suppress_context__
    said = capsys.readouterr().err
    assert "data-path:" in said
    assert "'a-rare-disease'; the labels of this task are dark, bright" in said


def test_nor_when_reading_the_file_fails_in_a_way_that_nobody_foresaw(
    settings: RunSettings,
    config: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def read(*_args: object, **_options: object) -> None:
        raise ValueError("could not convert string to float: 'a-rare-disease'")

    monkeypatch.setattr("fedcert.clients.node_data.read_examples", read)
    with pytest.raises(DataError, match="does not hold examples of this task") as caught:
        _node(settings, config).scenario.training_examples("hospital-3")
    assert "disease" not in str(caught.value)
    assert caught.value.__suppress_context__
    said = capsys.readouterr().err
    assert "'a-rare-disease'" in said
    assert "Traceback" in said  # on the node alone: it is a fault of the program


def test_nor_what_an_unforeseen_error_says_later(
    settings: RunSettings,
    config: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def handler(*_args: object) -> RecordDict:
        raise KeyError("a-rare-disease")

    monkeypatch.setitem(client_app.HANDLERS, TRAIN, handler)
    app = make_client_app(settings, tmp_path / "run")
    LocalGrid(app, nodes=1)  # Flower makes messages within a run only
    message = Message(RecordDict(), dst_node_id=1, message_type=TRAIN)
    message.metadata.__dict__["_message_id"] = "1"
    reply = app(message, Context(1, 1, config, RecordDict(), {}))
    said = payload_of(reply.content, REPLY)
    assert said["failed"] == "KeyError; the node's own log says more"
    assert "a-rare-disease" in capsys.readouterr().err


def test_a_node_without_a_file_in_a_run_that_has_none(settings: RunSettings) -> None:
    with pytest.raises(SettingsError, match="partition-id 0 is out of range: own-data has 0"):
        _node(settings, {"partition-id": 0})


def test_a_node_has_labels_of_its_own(config: dict[str, Any], tmp_path: Path) -> None:
    source = save_sentence_encoder(tmp_path / "encoder")
    settings = tiny_settings(
        scenario__name="own-data",
        scenario__options__label_template="about {label}",
        scenario__options__base=str(source),
        scenario__options__max_length=12,
    )
    (tmp_path / "data.csv").write_text("input,label\nbad1 bad2,bad\ngood3,good\nbad4,bad\n")
    config |= {"role": "new", "labels-path": str(tmp_path / "labels.txt")}
    space = AdapterSpace.of(
        load_base_model(str(_node(settings, config).scenario.base_model())), rank=1
    )
    (tmp_path / "labels.txt").write_text("good\nbad\nbad7\n")
    node = _node(settings, config)
    assert node.scenario.support_examples("hospital-3", 64).labels.tolist() == [1, 0, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert node.task(space).labels == ("good", "bad", "bad7")
    (tmp_path / "labels.txt").write_text("secret\n\n")
    with pytest.raises(DataError, match="holds no list of labels") as told:
        _node(settings, config).scenario.support_examples("hospital-3", 64)
    assert "secret" not in str(told.value)
    del config["labels-path"]
    with pytest.raises(SettingsError, match="add labels-path"):
        _node(settings, config).scenario.labels_of("hospital-3")
    with pytest.raises(SettingsError, match="leave out labels"):
        load_scenario("own-data", {"label_template": "{label}", "labels": "a,b"})


def test_a_node_says_that_it_would_rather_plan(
    settings: RunSettings, config: dict[str, Any]
) -> None:
    config["role"] = "upstream"
    assert not _node(settings, config).introduction().plans
    assert _node(settings, config | {"plans": True}).introduction().plans
    assert not _node(settings, config | {"plans": "false"}).introduction().plans
    for wrong in ({"role": "new"}, {"privacy-epsilon": 1.0, "output": config["output"]}):
        with pytest.raises(SettingsError, match="who plans answers without noise"):
            _node(settings, config | {"plans": True} | wrong)


def test_a_node_has_inputs_without_labels(
    settings: RunSettings,
    config: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "inputs.csv"
    file.write_text("a,b,c,d\n0,0,.5,1\n.1,.1,.1,.1\nnan,0,0,0\n")
    config |= {"role": "new", "unlabeled-path": str(file)}
    found = _node(settings, config).scenario.unlabeled_inputs("hospital-3")
    assert found is not None
    assert found.readable.tolist() == [True, True, False]
    assert found.always_wrong == 3  # whatever a rule for examples would make of them
    assert "1 of the 3 inputs without labels cannot be read" in capsys.readouterr().err
    assert _node(settings, config).scenario.unlabeled_inputs("hospital-4") is None
    file.write_text("a,b,c,d\nsecret,0,0,0\n")
    with pytest.raises(DataError, match="unlabeled-path names does not hold inputs") as told:
        _node(settings, config).scenario.unlabeled_inputs("hospital-3")
    assert "secret" not in str(told.value)
    assert "secret" in capsys.readouterr().err
    with pytest.raises(SettingsError, match="not an absolute path"):
        _node(settings, config | {"unlabeled-path": "inputs.csv"})
    with pytest.raises(SettingsError, match="new client's adapter alone"):
        _node(settings, config | {"role": "upstream"})
    del config["unlabeled-path"]
    assert _node(settings, config).scenario.unlabeled_inputs("hospital-3") is None
