"""A table whose clients have labels of their own, and how many clients are new."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models.tiny_encoders import save_encoder, save_sentence_encoder

from fedcert.data.examples import ALWAYS_WRONG
from fedcert.errors import DataError, SettingsError
from fedcert.models import with_label_names
from fedcert.scenarios import Scenario, load_scenario
from fedcert.settings import RunSettings

pytestmark = pytest.mark.filterwarnings("ignore:the labels")
WORDS = [f"{kind}{index}" for kind in ("bad", "good") for index in range(8)]


def _write(path: Path, *, own: bool, clients: int = 8) -> Path:
    """Give every client two words of its own as labels, or the same two."""
    rows = []
    for client in range(clients):
        words = [WORDS[(2 * client + k) % 16] for k in range(2)] if own else WORDS[:2]
        rows += [
            {
                "input": f"{words[i % 2]} {WORDS[(client + i) % 16]} {WORDS[i % 7]} {i}",
                "label": words[i % 2],
                "client": f"c{client}",
            }
            for i in range(64)
        ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def _options(path: Path, base: Path, **more: Any) -> dict[str, Any]:
    sizes = {"smallest": 20, "smallest_new": 40, "max_length": 12}
    return {"source": str(path), "base": str(base)} | sizes | more


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder") / "sentences"
    return save_sentence_encoder(folder)


def _table(path: Path, base: Path, **more: Any) -> Scenario:
    return load_scenario("table", _options(path, base, **more))


def test_labels_of_ones_own_are_noticed(tmp_path: Path, encoder: Path) -> None:
    table = _table(_write(tmp_path / "t.jsonl", own=True), encoder)
    assert table.labels == ()
    assert table.labels_of("c1") == ("bad2", "bad3")
    assert any("labels are the clients' own, from 2 to 2 of 16 each" in n for n in table.notes)
    examples = table.training_examples(table.upstream_clients[0])
    assert set(examples.labels) == {0, 1}
    own = table.labels_of(table.upstream_clients[0])
    # The label's name is the first word of every text.
    firsts = [own.index(text.split()[0]) for text in examples.inputs]
    assert np.array_equal(firsts, examples.labels)
    with pytest.raises(DataError, match="table has no client 'c9'"):
        table.labels_of("c9")


def test_rows_that_certify_name_no_label(tmp_path: Path, encoder: Path) -> None:
    path = _write(tmp_path / "t.jsonl", own=True)
    table = _table(path, encoder, labels="own")
    client = table.new_clients[0]
    own, size = table.labels_of(client), 10
    certifying = list(table.support_examples(client, size).inputs)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if row["input"] in certifying[:3]:
            row["label"] = "good7"  # which no other row of the client has
    path.write_text("\n".join(map(json.dumps, rows)))
    again = _table(path, encoder, labels="own")
    assert again.labels_of(client) == own
    examples = again.support_examples(client, size)
    assert list(examples.inputs) == certifying
    assert (examples.labels == ALWAYS_WRONG).tolist() == [True] * 3 + [False] * 7
    tests = again.test_examples(client)
    assert tests is not None
    assert (tests.labels != ALWAYS_WRONG).all()


def test_who_has_no_rows_for_tests_gets_no_certificate(tmp_path: Path, encoder: Path) -> None:
    path = _write(tmp_path / "t.jsonl", own=True)
    table = _table(path, encoder, labels="own", support_share=0.999999)
    with pytest.raises(DataError, match="for tests name 0 labels, and a task has two"):
        table.support_examples(table.new_clients[0], 10)


def test_labels_that_all_share_are_common(tmp_path: Path, encoder: Path) -> None:
    path = _write(tmp_path / "t.jsonl", own=False)
    assert _table(path, encoder).labels == ("bad0", "bad1")
    assert _table(path, encoder, labels="own").labels == ()
    own = _write(tmp_path / "o.jsonl", own=True)
    assert len(_table(own, encoder, labels="common").labels) == 16


def test_a_base_model_of_fedcerts_own_embeds_as_it_was_made_to(
    tmp_path: Path, encoder: Path
) -> None:
    base = with_label_names(str(encoder))
    assert _table(_write(tmp_path / "t.jsonl", own=True), base).labels == ()


def test_a_model_that_does_not_embed_has_common_labels(tmp_path: Path) -> None:
    base = save_encoder(tmp_path / "plain", "bert")
    assert len(_table(_write(tmp_path / "t.jsonl", own=True), base).labels) == 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "mine"}, "labels must be one of auto, common, own, not 'mine'"),
        ({"labels": "own", "template": "{text} is"}, "leave out template and phrases"),
    ],
)
def test_mistakes(options: dict[str, str], message: str, tmp_path: Path, encoder: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        _table(_write(tmp_path / "t.jsonl", own=True), encoder, **options)


def test_images_have_no_labels_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    np.savez(
        path, input=np.zeros((80, 4, 4)), label=np.arange(80) % 2, client=np.arange(80) // 20
    )
    with pytest.raises(SettingsError, match="needs texts, which are classified by the names"):
        _ = load_scenario("table", {"source": str(path), "labels": "own"}).labels


@pytest.mark.parametrize(("clients", "new"), [(8, 1), (11, 2), (40, 8)])
def test_new_clients_are_a_fifth(clients: int, new: int, tmp_path: Path, encoder: Path) -> None:
    path = _write(tmp_path / "t.jsonl", own=False, clients=clients)
    assert len(_table(path, encoder).new_clients) == new


def test_a_run_ends_with_certificates_over_own_names(tmp_path: Path, encoder: Path) -> None:
    from fedcert.bundles import Bundle
    from fedcert.certificates import Certificate
    from fedcert.simulations.simulating import simulate

    options = _options(_write(tmp_path / "t.jsonl", own=True), encoder)
    settings = RunSettings.from_mapping(
        {
            "scenario": {"name": "table", "options": options},
            "adapter": {"rank": 2},
            "training": {"steps": 5},
            "certificate": {"candidates": 20, "support_size": 24},
            "planning": {"sizes": "16"},
        }
    )
    simulation = simulate(settings, output=tmp_path / "run", runner="inprocess")
    assert Bundle.load(tmp_path / "run" / "bundle").labels == ()
    [row] = simulation.results["clients"]
    assert row["verified"]
    certificate = Certificate.read(tmp_path / "run" / row["certificate"])
    table = load_scenario("table", options)
    assert certificate.labels == table.labels_of(row["client"])
