"""The root binds everything, in any order, and reveals nothing."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcert.data import Examples
from fedcert.errors import CertificateError, ProtocolError, RefusalError
from fedcert.protocol.commitment import Commitment, Opening
from fedcert.protocol.device import DeviceState
from fedcert.protocol.merkle import tree_root

from .conftest import ALICE, BUNDLE, MALLORY, OTHER_BUNDLE, commit, draw, recipe_of, shuffled

SALTS = [bytes([i]) * 32 for i in range(64)]


def _opening(examples: Examples) -> Opening:
    return Opening.make(
        examples,
        SALTS[: len(examples)],
        client="alice",
        key=ALICE,
        bundle=BUNDLE,
        recipe=recipe_of(examples),
        claim="d0" * 32,
    )


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13])
def test_order_does_not_matter_and_content_does(count: int) -> None:
    examples = draw(count)
    salts = SALTS[:count]
    root = tree_root(examples, salts)
    assert {tree_root(shuffled(examples, seed), salts) for seed in range(5)} == {root}
    for row in range(count):
        labels = examples.labels.copy()
        labels[row] = 1 - labels[row]
        assert tree_root(Examples(examples.inputs, labels), salts) != root
        inputs = examples.inputs.copy()
        inputs[row, 0, 0, 0] += np.float32(1e-6)
        assert tree_root(Examples(inputs, examples.labels), salts) != root
    other = [b"\xff" * 32, *salts[1:]]
    assert tree_root(examples, other) != root


def test_an_example_twice_is_not_an_example_once() -> None:
    examples = draw(3)
    doubled = examples.take(np.array([0, 1, 2, 2]))
    assert tree_root(examples, SALTS[:3]) != tree_root(doubled, SALTS[:4])


def test_texts_are_bound_exactly() -> None:
    labels = np.zeros(2, dtype=np.int64)
    one = Examples(np.array(["Book a table", "yes"], dtype=object), labels)
    two = Examples(np.array(["book a table", "yes"], dtype=object), labels)
    assert tree_root(one, SALTS[:2]) != tree_root(two, SALTS[:2])


@pytest.mark.parametrize("salts", [SALTS[:2], SALTS[:4], [b"short"] * 3, []])
def test_each_example_has_a_salt(salts: list[bytes]) -> None:
    with pytest.raises(ProtocolError, match="salts do not fit 3 examples"):
        tree_root(draw(3), salts)


def test_the_root_binds_client_key_bundle_recipe_and_n() -> None:
    examples = draw(10)
    made = _opening(examples).commitment
    salts = SALTS[:10]
    assert Opening.root(made, examples, salts) == made.root
    for change in (
        {"client": "bob"},
        {"public_key": "00" * 32},
        {"bundle": OTHER_BUNDLE},
        {"recipe": replace(made.recipe, candidates=101)},
        {"support_size": 11},
    ):
        assert Opening.root(replace(made, **change), examples, salts) != made.root  # type: ignore[arg-type]


def test_it_survives_a_round_trip(tmp_path: Path) -> None:
    opening = _opening(draw(10))
    opening.commitment.write(tmp_path / "commitment.json")
    assert Commitment.read(tmp_path / "commitment.json") == opening.commitment
    opening.write(tmp_path / "opening.json")
    assert Opening.read(tmp_path / "opening.json") == opening


def test_a_changed_commitment_is_not_signed(tmp_path: Path) -> None:
    made = _opening(draw(10)).commitment
    for change in ({"client": "bob"}, {"support_size": 9}, {"claim": "00" * 32}):
        with pytest.raises(ProtocolError, match="changed after signing"):
            Commitment.from_object(replace(made, **change).to_object())  # type: ignore[arg-type]
    with pytest.raises(CertificateError, match=r"commitment\.note is not a known field"):
        Commitment.from_object(made.to_object() | {"note": "hello"})


def test_a_device_commits_with_fresh_salts_that_stay_private(tmp_path: Path) -> None:
    examples = draw(10)
    one, two = (commit(DeviceState(tmp_path / name), examples) for name in ("a", "b"))
    assert one.root != two.root
    assert one.claim != two.claim
    [path] = (tmp_path / "a" / "openings").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(set(Opening.read(path).salts)) == 10
    assert all(salt.hex() not in str(one.to_object()) for salt in Opening.read(path).salts)


def test_clients_that_share_a_state_folder_lose_no_salts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = DeviceState(tmp_path), DeviceState(tmp_path)
    make, others = Opening.make, []

    def later(*arguments: Any, **options: Any) -> Opening:
        monkeypatch.undo()
        others.append(commit(two, draw(10, seed=1), client="bob", key=MALLORY))
        return make(*arguments, **options)

    monkeypatch.setattr("fedcert.protocol.device.Opening.make", later)
    made = [commit(one, draw(10)), *others]
    assert [one.opening(each.root) is not None for each in made] == [True, True]
    # And what one of them has spent, the other knows.
    with pytest.raises(RefusalError, match="10 of the 10 examples are already spent"):
        commit(two, draw(10), client="bob", key=MALLORY)


def test_committing_again_gives_the_same_commitment_even_after_a_restart(
    tmp_path: Path,
) -> None:
    examples = draw(10)
    first = commit(DeviceState(tmp_path), examples)
    again = DeviceState(tmp_path)
    assert commit(again, shuffled(examples)) == first
    retried = commit(again, examples, retry=True)
    assert retried.root != first.root
    assert retried.claim == first.claim
    assert commit(again, examples) == retried
    assert commit(again, examples, bundle=OTHER_BUNDLE).root not in (first.root, retried.root)
    assert commit(again, examples, key=MALLORY).root not in (first.root, retried.root)


def test_simulated_devices_repeat_themselves(tmp_path: Path) -> None:
    roots = {
        commit(DeviceState(tmp_path / str(i), simulated="7/alice"), draw(10)).root
        for i in range(2)
    }
    assert len(roots) == 1
    other = DeviceState(tmp_path / "other", simulated="8/alice")
    assert commit(other, draw(10)).root not in roots
