"""The ledger of spent examples: across restarts, without the examples, in private."""

from __future__ import annotations

import stat
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from fedcert.data import Examples
from fedcert.errors import ProtocolError, RefusalError
from fedcert.protocol.device import DeviceState
from fedcert.protocol.spent import SpentLedger
from fedcert.protocol.uses import found_again
from fedcert.randomness import keyed_generator
from fedcert.simulations.benchmarks.episodes import excess

from .conftest import BUNDLE, OTHER_BUNDLE, commit, draw, recipe_of, shuffled


def test_what_was_spent_stays_spent_after_a_restart(tmp_path: Path) -> None:
    examples = draw(6)
    SpentLedger(tmp_path).mark(examples.take(slice(2)), "training an upload")
    again = SpentLedger(tmp_path)
    assert again.purposes(examples) == ["training an upload"] * 2 + [None] * 4
    again.mark(examples, "selection")
    assert again.purposes(examples)[1:3] == ["training an upload", "selection"]


def test_a_refusal_spends_nothing(tmp_path: Path) -> None:
    ledger, examples = SpentLedger(tmp_path), draw(6)
    ledger.mark(examples.take(slice(1)), "selection")
    with pytest.raises(RefusalError, match="1 of the 6 examples are already spent on: select"):
        ledger.spend(examples, "a certificate", claim="one")
    assert ledger.purposes(examples)[1:] == [None] * 5


def test_text_that_differs_in_case_and_spaces_is_the_same_example(tmp_path: Path) -> None:
    ledger = SpentLedger(tmp_path)
    texts = [Examples(np.array([text], dtype=object), np.array([0]))
             for text in ("Book  a table ", "book a table", "book a chair")]  # fmt: skip
    ledger.mark(texts[0], "selection")
    assert [ledger.purposes(text)[0] for text in texts] == ["selection", "selection", None]
    # An accent is a letter of its own in files that some systems write.
    composed, apart = (
        Examples(np.array([unicodedata.normalize(form, "Café")], dtype=object), np.array([0]))
        for form in ("NFC", "NFD")
    )
    ledger.mark(composed, "selection")
    assert ledger.purposes(apart) == ["selection"]


def test_the_files_are_private_and_tell_nothing_without_the_secret(tmp_path: Path) -> None:
    examples = draw(6)
    SpentLedger(tmp_path / "state").mark(examples, "selection")
    files = {path.name: path for path in (tmp_path / "state").iterdir()}
    assert set(files) == {"secret", "spent.sqlite"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files.values())
    content = files["spent.sqlite"].read_bytes()
    assert not [d for d in examples.input_digests("") if d.encode() in content]
    assert SpentLedger(tmp_path / "other").keyed("x") != SpentLedger(tmp_path / "state").keyed(
        "x"
    )


def test_a_lost_secret_is_noticed(tmp_path: Path) -> None:
    SpentLedger(tmp_path).mark(draw(6), "selection")
    (tmp_path / "secret").unlink()
    with pytest.raises(ProtocolError, match="was made with another secret"):
        SpentLedger(tmp_path)


def test_a_lost_ledger_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    SpentLedger(tmp_path).mark(draw(6), "selection")
    (tmp_path / "spent.sqlite").unlink()
    with pytest.raises(ProtocolError, match=r"is gone, .* says that there was one: put it"):
        SpentLedger(tmp_path)
    assert not (tmp_path / "spent.sqlite").exists()


def test_a_longer_file_that_holds_an_earlier_use_is_no_new_sample(tmp_path: Path) -> None:
    ledger, first = SpentLedger(tmp_path), draw(40)
    ledger.spend(first, "a certificate", claim="c")
    more = draw(100, seed=3)
    longer = Examples(
        np.concatenate([more.inputs, first.inputs]), np.concatenate([more.labels, first.labels])
    )
    with pytest.raises(RefusalError, match="leave out exactly the rows that were used"):
        ledger.spend(longer, "a certificate", claim="d", repeats_are_new=True)
    # A few of them may have come up again.
    few = longer.take(slice(0, 110))
    assert ledger.spend(few, "a certificate", claim="d", repeats_are_new=True) == 10


@pytest.mark.parametrize(("size", "among"), [(40, 40), (40, 200), (8, 1), (200, 30)])
def test_inputs_that_come_up_again_are_rarely_taken_for_the_same_rows(
    size: int, among: int
) -> None:
    """Inputs that are each as frequent as is worst: one in as many as there are examples."""
    generator, found = keyed_generator("again", size, among), 0
    for _ in range(500):
        earlier = {*generator.integers(among, size=size)}
        values, counts = np.unique(generator.integers(among, size=among), return_counts=True)
        once = sum(value in earlier for value in values[counts == 1])
        found += found_again(once, size=len(earlier), among=among)
    assert excess(found, 500, 0.001) > 1e-3


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    SpentLedger(tmp_path)
    (tmp_path / "secret").chmod(0o644)
    with pytest.raises(ProtocolError, match=r"open to other users \(mode 644\)"):
        SpentLedger(tmp_path)


def test_a_damaged_ledger_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    SpentLedger(tmp_path)
    (tmp_path / "spent.sqlite").write_bytes(b"not a database, but long enough" * 100)
    with pytest.raises(ProtocolError, match="cannot be used"):
        SpentLedger(tmp_path)


def test_marks_and_state_are_written_together(tmp_path: Path) -> None:
    ledger = SpentLedger(tmp_path)
    assert ledger.state("watch") is None
    ledger.mark_with_state(draw(2), "monitoring", name="watch", state={"trials": 2})
    assert SpentLedger(tmp_path).state("watch") == {"trials": 2}
    with pytest.raises(TypeError):
        ledger.mark_with_state(
            draw(1, seed=5),
            "monitoring",
            name="watch",
            state={"trials": {1, 2}},
            after={"trials": 2},
        )
    # Two that began from one state: the slower one would undo what the other found.
    with pytest.raises(ProtocolError, match="nothing was counted here: run it again"):
        ledger.mark_with_state(draw(1, seed=5), "monitoring", name="watch", state={"trials": 1})
    assert ledger.purposes(draw(1, seed=5)) == [None]
    assert ledger.state("watch") == {"trials": 2}


def test_training_examples_are_one_use_however_they_were_divided(tmp_path: Path) -> None:
    ledger, examples = SpentLedger(tmp_path), draw(40)
    ledger.mark(examples.take(slice(0, 20)), "training the trunk of a warm start")
    ledger.mark(examples.take(slice(20, 40)), "training an upload")
    with pytest.raises(RefusalError, match="Too many of them were there together"):
        ledger.spend(examples, "a certificate", claim="c", repeats_are_new=True)
    # Of two earlier certificates each is a sample of its own.
    parts = draw(60, seed=1)
    for place in (0, 30):
        ledger.spend(parts.take(slice(place, place + 20)), "a certificate", claim=f"c-{place}")
    mixed = parts.take(slice(10, 40))
    assert ledger.spend(mixed, "a certificate", claim="d", repeats_are_new=True) == 20


def test_unwitnessed_certificates_spend_too(tmp_path: Path) -> None:
    device, examples = DeviceState(tmp_path), draw(30)
    recipe = recipe_of(examples)
    for order in (examples, shuffled(examples)):  # the same once more is no new draw
        device.spend_unwitnessed(order, client="alice", bundle=BUNDLE, recipe=recipe)
    for client, bundle in (("alice", OTHER_BUNDLE), ("bob", BUNDLE)):
        with pytest.raises(RefusalError, match="an unwitnessed certificate"):
            device.spend_unwitnessed(examples, client=client, bundle=bundle, recipe=recipe)
    with pytest.raises(RefusalError, match="an unwitnessed certificate"):
        commit(device, examples)
    fresh = draw(30, seed=1)
    commit(device, fresh)
    with pytest.raises(RefusalError, match="spent on: a certificate"):
        device.spend_unwitnessed(fresh, client="alice", bundle=BUNDLE, recipe=recipe)
