"""With privacy on, only clipped and noisy adapters leave a client."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from simulations.federation import CLIENTS, Federation, tiny_settings

from fedcert.clients.client_app import make_client_app
from fedcert.clients.node import Node, node_of
from fedcert.clients.privatizing import private_release
from fedcert.errors import DataError, RefusalError, SettingsError
from fedcert.messages import CONTRIBUTE, HELLO, PLAN, REPLY, TRAIN
from fedcert.messages.flower import arrays_of, content, payload_of
from fedcert.privacy import PrivacyDemand, UploadPrivacy, epsilon_of
from fedcert.strategies.prior_strategy import PriorStrategy

EPSILON = {"privacy__epsilon": 50.0, "privacy__clip": 0.7}


def _node(folder: Path, **changes: Any) -> Node:
    settings = tiny_settings(**(EPSILON | changes))
    context = Context(1, 1, {"partition-id": 0}, RecordDict(), {})
    return node_of(context, settings, folder.resolve())


def _terms(node: Node) -> UploadPrivacy:
    privacy = node.settings.upload_privacy()
    assert privacy is not None
    return privacy


def _release(make: Any, **terms: Any) -> tuple[np.ndarray, float]:
    return private_release(make, dimension=20, **terms)


def test_a_repeated_request_gets_the_same_noise_and_costs_nothing(tmp_path: Path) -> None:
    node, vector = _node(tmp_path), np.ones(20)
    terms = _terms(node)
    first = _release(lambda: vector, node=node, privacy=terms, purpose="a" * 64)
    again = _release(lambda: -vector, node=node, privacy=terms, purpose="a" * 64)
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1] == again[1] == terms.mu
    with pytest.raises(RefusalError, match="budget"):
        _release(lambda: vector, node=node, privacy=terms, purpose="b" * 64)


def test_without_budget_nothing_looks_at_the_examples(tmp_path: Path) -> None:
    node = _node(tmp_path)
    _release(lambda: np.ones(20), node=node, privacy=_terms(node), purpose="a" * 64)

    def looked() -> np.ndarray:
        raise AssertionError("the examples were read")

    for purpose, refused in (("a" * 64, False), ("b" * 64, True)):
        ask = partial(_release, looked, node=node, privacy=_terms(node), purpose=purpose)
        if refused:
            with pytest.raises(RefusalError, match="budget"):
                ask()
        else:
            ask()  # what was released is kept


@pytest.mark.parametrize("diverged", [None, np.nan, np.inf])
def test_a_failure_says_nothing_about_the_examples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], diverged: float | None
) -> None:
    node = _node(tmp_path)

    def failing() -> np.ndarray:
        if diverged is not None:
            return np.append(np.ones(19), diverged)
        raise DataError("all 91 training examples have the same label")

    released, mu = _release(failing, node=node, privacy=_terms(node), purpose="a" * 64)
    # It has the noise of any other upload, and costs as much.
    noise = _terms(node).noise_deviation
    assert 0.3 * noise < np.abs(released).mean() < 2 * noise
    assert mu == _terms(node).mu
    said = capsys.readouterr().err
    cause = "all 91 training examples" if diverged is None else "with NaN or an infinity"
    assert cause in said  # on the node alone
    assert "noise around zeros was uploaded" in said


def test_clients_that_share_a_state_folder_get_releases_of_their_own(tmp_path: Path) -> None:
    one = replace(_node(tmp_path, privacy__budget=200.0), state_path=tmp_path / "state")
    two = replace(one, client=CLIENTS[1])
    (first, _), (second, together) = (
        _release(lambda: np.ones(20), node=node, privacy=_terms(node), purpose="a" * 64)
        for node in (one, two)
    )
    assert np.all(first != second)
    assert together == pytest.approx(np.sqrt(2) * _terms(one).mu)


def test_noise_is_secret_outside_of_simulations(tmp_path: Path) -> None:
    def released(folder: str, key: Path | None, demand: Any = None) -> np.ndarray:
        node = replace(_node(tmp_path / folder), key_path=key, demand=demand)
        terms = _terms(node)
        return _release(lambda: np.ones(20), node=node, privacy=terms, purpose="a" * 64)[0]

    np.testing.assert_array_equal(released("a", None), released("b", None))
    assert np.all(released("c", tmp_path / "k") != released("d", tmp_path / "k"))
    # Nor does a node that demands noise take it from a seed that the server knows.
    demand = PrivacyDemand(50.0)
    assert np.all(released("e", None, demand) != released("f", None, demand))


def test_a_federation_with_privacy(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "run", tiny_settings(**EPSILON))
    strategy: PriorStrategy = federation.serve().strategy
    assert strategy.bundle is not None
    promise = strategy.bundle.notes["privacy"]
    assert (promise["epsilon"], promise["delta_p"], promise["clip"]) == (50.0, 1e-5, 0.7)
    assert strategy.failures == []
    # What clients say about their examples stays at home.
    assert set(strategy.measurements[CLIENTS[0]]) == {"num-examples", "loss"}
    assert {e.examples for e in federation.pool().entries()} == {1}
    plain = Federation(tmp_path / "plain")
    plain.start()
    noise = federation.pool().matrix() - plain.pool().matrix()
    # Clipping shortens what is longer than 0.7; beyond that there is only noise.
    assert noise.std() == pytest.approx(promise["noise_deviation"], rel=0.15)


def test_without_privacy_the_bundle_says_so(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "run")
    bundle = federation.start().bundle
    assert bundle is not None
    assert str(bundle.notes["privacy"]).startswith("no formal privacy")


def test_the_bundle_says_what_all_releases_of_a_client_promise_together(tmp_path: Path) -> None:
    changes = {"privacy__budget": 200.0, "seed": 5}
    # One client has released something before.
    node = _node(tmp_path / "run", **changes)
    _release(lambda: np.ones(20), node=node, privacy=_terms(node), purpose="a" * 64)
    federation = Federation(tmp_path / "run", tiny_settings(**EPSILON, **changes))
    bundle = federation.serve().strategy.bundle
    assert bundle is not None
    promise = bundle.notes["privacy"]
    together = epsilon_of(np.sqrt(2) * _terms(node).mu, 1e-5)
    assert promise["epsilon"] == pytest.approx(together, rel=1e-5)
    assert promise["epsilon_of_one_release"] == 50.0


def test_plain_uploads_of_an_earlier_run_leave_no_promise(tmp_path: Path) -> None:
    # The scripted clients' uploads are plain in both runs.
    Federation(tmp_path / "run", tiny_settings(seed=6)).start()
    later = Federation(tmp_path / "run", tiny_settings(**EPSILON, seed=6))
    bundle = later.serve().strategy.bundle
    assert bundle is not None
    plain = len(later.pool())
    assert bundle.notes["privacy"] == (
        "no formal privacy: prior and directions were fitted to plain uploads, "
        f"{plain} of the {plain} in the pool"
    )


# A server that is not to be trusted


class Asking:
    """What a node answers to whatever a server asks for."""

    def __init__(self, folder: Path, **node: Any) -> None:
        self._config = {"partition-id": 0, "output": str(folder / "node"), **node}
        self._folder = folder

    def upload(self, seed: int, *, kind: str = TRAIN, **privacy: float) -> dict[str, Any]:
        settings = tiny_settings(**{f"privacy__{name}": v for name, v in privacy.items()})
        federation = Federation(self._folder / "run", settings)
        space = federation.space
        words = {
            "space": space.to_config(),
            "training": asdict(settings.finetune_settings()),
            "seed": seed,
            "question": {"kind": "mean", "words": {}},
        }
        prefix = "basis." if kind == CONTRIBUTE else ""
        arrays = {f"{prefix}{name}": array for name, array in space.basis.items()}
        asked = Message(content(words, arrays), dst_node_id=100, message_type=kind)
        context = Context(1, 100, self._config, RecordDict(), {})
        app = make_client_app(settings, federation.output)
        reply = app(asked, context).content
        return payload_of(reply, REPLY) | {"vector": arrays_of(reply)}


def test_asking_again_with_another_seed_averages_no_noise_away(tmp_path: Path) -> None:
    node = Asking(tmp_path)
    first = node.upload(0, epsilon=1.0)
    assert "failed" not in first
    for seed in (1, 2):
        assert "above its budget of 1" in node.upload(seed, epsilon=1.0)["failed"]
    again = node.upload(0, epsilon=1.0)["vector"]
    for name, array in first["vector"].items():
        np.testing.assert_array_equal(again[name], array)


def test_a_node_of_its_own_mind_is_not_talked_into_less(tmp_path: Path) -> None:
    node = Asking(tmp_path, **{"privacy-epsilon": 1.0, "privacy-clip": 0.5})
    for seed, weaker in enumerate(
        (
            {"epsilon": 100.0, "budget": 1e9},
            {"epsilon": 1.0, "delta": 0.999, "budget": 1e9},
            {"epsilon": 2.0, "clip": 1e6, "budget": 1e9},
        )
    ):
        answer = node.upload(seed, **weaker)
        if seed:
            assert "above its budget of 1" in answer["failed"]
        else:
            assert answer["mu"] <= UploadPrivacy(0.5, 1.0, 1e-5).mu


@pytest.mark.parametrize("kind", [TRAIN, CONTRIBUTE, PLAN, HELLO])
def test_a_node_that_demands_noise_sends_nothing_without(tmp_path: Path, kind: str) -> None:
    node = Asking(tmp_path, **{"privacy-epsilon": 1.0})
    refusal = node.upload(0, kind=kind, epsilon=0.0)["failed"]
    assert "sends nothing" in refusal or "without noise" in refusal
    # And nothing was spent on it.
    assert not (tmp_path / "node" / "state" / "spent.sqlite").exists()


def test_nor_does_it_answer_what_carries_no_noise_at_all(tmp_path: Path) -> None:
    node = Asking(tmp_path, **{"privacy-epsilon": 1.0})
    for kind in (CONTRIBUTE, PLAN):
        assert "without noise" in node.upload(0, kind=kind, epsilon=1.0)["failed"]


@pytest.mark.parametrize(
    ("offered", "epsilon", "clip"),
    [
        (UploadPrivacy(3.0, 8.0, 1e-5), 2.0, 1.0),
        (UploadPrivacy(0.5, 1.0, 1e-5), 1.0, 0.5),
        (UploadPrivacy(3.0, 2.0, 0.5), 2.0, 1.0),
    ],
)
def test_the_stricter_promise_wins(offered: UploadPrivacy, epsilon: float, clip: float) -> None:
    met = PrivacyDemand(2.0, clip=1.0).met_by(offered)
    assert (met.epsilon, met.delta, met.clip) == (epsilon, 1e-5, clip)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"privacy-clip": 1.0}, "promises nothing without privacy-epsilon"),
        ({"privacy-epsilon": 0.0}, "privacy-epsilon in the node's configuration"),
        ({"privacy-epsilon": "much"}, "privacy-epsilon in the node's configuration"),
        ({"privacy-epsilon": 1.0, "privacy-delta": 1.0}, "between 0 and 1"),
        ({"privacy-epsilon": 1.0, "privacy-clip": float("nan")}, "clipping norm"),
        ({"privacy-epsilon": 1.0, "privacy-budget": 0.5}, "at least the epsilon of one"),
        ({"privacy-epsilon": 1.0, "privacy-budget": float("nan")}, "at least the epsilon"),
        # Too far from the key that is meant to be found by its spelling.
        ({"privacy-eps": 1.0}, "says with privacy-epsilon"),
        ({"min-epsilon": 1.0}, "says with privacy-epsilon"),
        ({"privacy-epsilon": 1.0, "output": ""}, "needs output or state-path"),
        ({"privacy-epsilon": 1.0, "partition-id": len(CLIENTS) - 1}, "a certificate carries"),
    ],
)
def test_a_demand_that_cannot_be_kept_is_refused(
    tmp_path: Path, config: dict[str, Any], words: str
) -> None:
    config = {"partition-id": 0, "output": str(tmp_path), **config}
    context = Context(1, 1, config, RecordDict(), {})
    with pytest.raises(SettingsError, match=words):
        node_of(context, tiny_settings(**EPSILON), tmp_path)
