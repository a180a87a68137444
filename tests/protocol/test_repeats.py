"""Inputs that come again: new observations need the client's word, old ones stay spent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedcert.data import Examples
from fedcert.data.identity import collapsed_form
from fedcert.errors import RefusalError
from fedcert.protocol.device import DeviceState
from fedcert.protocol.spent import SpentLedger
from fedcert.randomness import keyed_generator

from .conftest import BUNDLE, OTHER_BUNDLE, commit, draw, recipe_of


def texts(*words: str) -> Examples:
    return Examples(np.array(words, dtype=object), np.arange(len(words)) % 2)


def with_frequent(count: int, seed: int, *, share: float = 0.5) -> Examples:
    """Draw texts of which a share are one of ten frequent ones."""
    generator = keyed_generator("frequent", seed)
    words = [
        f"frequent {generator.integers(10)}"
        if generator.random() < share
        else f"rare {seed} {row}"
        for row in range(count)
    ]
    return texts(*words)


def test_a_second_sample_that_shares_frequent_inputs(device: DeviceState) -> None:
    commit(device, with_frequent(64, seed=1))
    second = with_frequent(64, seed=2)
    with pytest.raises(RefusalError) as caught:
        commit(device, second)
    told = str(caught.value)
    # What is done about it must not be to drop them.
    assert "keep every one and state it with --repeats-are-new" in told
    assert "without them the rest would be no sample of your distribution" in told
    made = commit(device, second, repeats_are_new=True)
    known = sum(word.startswith("frequent") for word in second.inputs)
    assert device.spent.stated_new(made.claim) == known > 20
    # The statement is kept with the claim: a lost answer is asked for without it.
    assert commit(device, second) == made
    assert commit(device, second, retry=True).root != made.root


def test_stated_repeats_lose_their_right_to_a_retry_by_a_later_use(device: DeviceState) -> None:
    first, second = with_frequent(64, seed=1), with_frequent(64, seed=2)
    commit(device, first)
    commit(device, second, repeats_are_new=True)
    device.spent.mark(second.take(slice(5)), "training an upload")
    for examples in (first, second):
        with pytest.raises(RefusalError, match="already spent on"):
            commit(device, examples, retry=True)


@pytest.mark.parametrize("fresh", [0, 1, 7])
def test_the_same_observations_are_no_new_ones_whatever_is_stated(
    device: DeviceState, fresh: int
) -> None:
    """Another name, or a few examples exchanged for others: that is shopping."""
    examples = draw(40)
    commit(device, examples)
    some = draw(fresh, seed=9)
    changed = Examples(
        np.concatenate([examples.inputs[fresh:], some.inputs]),
        np.concatenate([examples.labels[fresh:], some.labels]),
    )
    for count in (40, 30):
        with pytest.raises(RefusalError, match="so these are no new observations"):
            commit(device, changed.take(slice(count)), client="bob", repeats_are_new=True)
    with pytest.raises(RefusalError, match="so these are no new observations"):
        device.spend_unwitnessed(
            changed,
            client="alice",
            bundle=BUNDLE,
            recipe=recipe_of(changed),
            repeats_are_new=True,
        )


def test_without_a_server_too(device: DeviceState) -> None:
    first, second = with_frequent(64, seed=1), with_frequent(64, seed=2)
    recipe = recipe_of(first)

    def spend(examples: Examples, *, state: bool, bundle: str = BUNDLE) -> int:
        return device.spend_unwitnessed(
            examples, client="alice", bundle=bundle, recipe=recipe, repeats_are_new=state
        )

    assert spend(first, state=False) == 0
    with pytest.raises(RefusalError, match="already spent on: an unwitnessed certificate"):
        spend(second, state=False)
    assert spend(second, state=True) == spend(second, state=False) > 20


def test_what_cannot_be_read_is_not_spent(tmp_path: Path) -> None:
    raw = np.array([None, b"text:"], dtype=object)
    ledger = SpentLedger(tmp_path)
    examples = Examples(np.array(["a", "a"], dtype=object), np.array([0, -1]), raw)
    ledger.spend(examples, "a certificate", claim="one")
    assert ledger.purposes(examples) == ["a certificate", None]
    ledger.spend(examples.take([1]), "a certificate", claim="two")


# Which examples are exactly the same


def test_a_retry_in_other_case_is_not_identical(device: DeviceState) -> None:
    examples = with_frequent(40, seed=1, share=0.0)
    made = commit(device, examples)
    upper = Examples(np.array([t.upper() for t in examples.inputs], object), examples.labels)
    assert upper.multiset_digest("") != examples.multiset_digest("")
    for retry in (False, True):
        with pytest.raises(RefusalError, match="40 of the 40 examples are already spent"):
            commit(device, upper, retry=retry)
    assert commit(device, examples) == made


def test_a_commitment_of_an_earlier_version_is_still_known(
    device: DeviceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = with_frequent(40, seed=1, share=0.0)
    mixed = Examples(np.array([t.title() for t in examples.inputs], object), examples.labels)
    older = device._claim("witnessed", mixed, "alice", recipe_of(mixed), form=collapsed_form)
    with monkeypatch.context() as before:
        before.setattr(device, "_witnessed_claim", lambda *_: older)
        made = commit(device, mixed)
    assert commit(device, mixed) == made
    assert commit(device, mixed, retry=True).claim == older
    assert commit(device, mixed, bundle=OTHER_BUNDLE).claim == older
    with pytest.raises(RefusalError, match="already spent"):
        commit(device, examples)


def test_zero_is_the_same_input_with_either_sign(tmp_path: Path) -> None:
    labels = np.array([0])
    minus, plus = (Examples(np.array([[zero, 1.0]]), labels) for zero in (-0.0, 0.0))
    ledger = SpentLedger(tmp_path)
    ledger.mark(minus, "selection")
    assert ledger.purposes(plus) == ["selection"]
    # As ledgers of an earlier version have it.
    older = SpentLedger(tmp_path / "older")
    digest = older.keyed("input", minus.input_digests("", collapsed_form)[0])
    with older._transaction() as connection:
        connection.execute("INSERT INTO spent VALUES (?, 'selection', '')", (digest,))
    assert older.purposes(minus) == ["selection"]
