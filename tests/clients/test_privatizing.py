"""With privacy on, only clipped and noisy adapters leave a client."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, RecordDict
from simulations.federation import CLIENTS, Federation, tiny_settings

from fedcert.clients.node import Node, node_of
from fedcert.clients.privatizing import private_release
from fedcert.errors import RefusalError
from fedcert.privacy import UploadPrivacy
from fedcert.strategies.pooled_prior import PooledPrior

EPSILON = {"privacy__epsilon": 50.0, "privacy__clip": 0.7}


def _node(folder: Path, **changes: Any) -> Node:
    settings = tiny_settings(**(EPSILON | changes))
    context = Context(1, 1, {"partition-id": 0}, RecordDict(), {})
    return node_of(context, settings, folder.resolve())


def _terms(node: Node) -> UploadPrivacy:
    privacy = node.settings.upload_privacy()
    assert privacy is not None
    return privacy


def test_a_repeated_request_gets_the_same_noise_and_costs_nothing(tmp_path: Path) -> None:
    node, vector = _node(tmp_path, privacy__budget=50.0), np.ones(20)
    terms = _terms(node)
    first = private_release(vector, node=node, privacy=terms, purpose="a" * 64)
    again = private_release(-vector, node=node, privacy=terms, purpose="a" * 64)
    np.testing.assert_array_equal(first, again)
    with pytest.raises(RefusalError, match="budget"):
        private_release(vector, node=node, privacy=terms, purpose="b" * 64)


def test_clients_that_share_a_state_folder_get_releases_of_their_own(tmp_path: Path) -> None:
    one = replace(_node(tmp_path), state_path=tmp_path / "state")
    two = replace(one, client=CLIENTS[1])
    first, second = (
        private_release(np.ones(20), node=node, privacy=_terms(node), purpose="a" * 64)
        for node in (one, two)
    )
    assert np.all(first != second)


def test_noise_is_secret_outside_of_simulations(tmp_path: Path) -> None:
    def released(folder: str, key: Path | None) -> np.ndarray:
        node = replace(_node(tmp_path / folder), key_path=key)
        return private_release(np.ones(20), node=node, privacy=_terms(node), purpose="a" * 64)

    np.testing.assert_array_equal(released("a", None), released("b", None))
    assert np.all(released("c", tmp_path / "k") != released("d", tmp_path / "k"))


def test_a_federation_with_privacy(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "run", tiny_settings(**EPSILON))
    strategy: PooledPrior = federation.serve().strategy
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
