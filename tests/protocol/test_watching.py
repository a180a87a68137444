"""The watch counts observations: what came before does not decide what counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fedcert.certificates import Certificate
from fedcert.certificates.living import start_of
from fedcert.certificates.monitoring import RiskWatch
from fedcert.certificates.spot_checks import (
    SpotChecks,
    check_spot_checks,
    left_open,
    living_bound,
    record_spot_checks,
)
from fedcert.data import Examples
from fedcert.errors import DataError, ProtocolError, RefusalError
from fedcert.protocol.authority import SeedAuthority
from fedcert.protocol.device import DeviceState
from fedcert.protocol.spent import SpentLedger
from fedcert.protocol.watching import Watched, watch_examples
from fedcert.randomness import keyed_generator
from fedcert.simulations.benchmarks.episodes import excess

from .conftest import ALICE, MALLORY, certify, commit, draw

ALPHA = 0.05


@pytest.fixture
def certificate(server: SeedAuthority, device: DeviceState) -> Certificate:
    """One that says at most about .32."""
    return certify(server.issue(commit(device, draw(40))), errors=2)


def _stream(risk_of_rare: float, share: float, seed: int, count: int = 120) -> Examples:
    """Draw texts: a share are one of 20 frequent ones; the label says whether it is wrong."""
    generator = keyed_generator("stream", seed)
    frequent = generator.random(count) < share
    names = [
        f"frequent {generator.integers(20)}" if often else f"rare {seed} {row}"
        for row, often in enumerate(frequent)
    ]
    wrong = ~frequent & (generator.random(count) < risk_of_rare)
    return Examples(np.array(names, dtype=object), wrong.astype(np.int64))


def _wrong(examples: Examples) -> npt.NDArray[np.bool_]:
    return examples.labels == 1


def _watch(
    certificate: Certificate, examples: Examples, ledger: SpentLedger, **said: Any
) -> Watched:
    return watch_examples(
        certificate, examples, ledger=ledger, alpha=ALPHA, count_wrong=_wrong, **said
    )


@pytest.mark.parametrize("share", [0.5, 0.8, 0.9])
def test_false_alarms_keep_their_level_where_inputs_repeat(
    certificate: Certificate, tmp_path: Path, share: float
) -> None:
    """At a risk of exactly the bound; nine tenths of the inputs may be frequent."""
    risk = min(certificate.bound / (1 - share), 1.0)
    assert risk * (1 - share) <= certificate.bound
    alarms = 0
    for seed in range(40):
        ledger = SpentLedger(tmp_path / str(seed), secret="0" * 64)
        found = _watch(certificate, _stream(risk, share, seed), ledger, rows_are_new=True)
        assert (found.counted, found.seen) == (120, 0)
        alarms += found.watch.alarmed
    assert excess(alarms, 40, ALPHA) > 1e-3


def test_frequent_inputs_that_become_wrong_are_noticed(
    certificate: Certificate, tmp_path: Path
) -> None:
    stream = _stream(0.05, 0.8, seed=1)
    drifted = np.array([name in {f"frequent {i}" for i in range(12)} for name in stream.inputs])
    found = _watch(
        certificate,
        Examples(stream.inputs, (drifted | (stream.labels == 1)).astype(np.int64)),
        SpentLedger(tmp_path),
        rows_are_new=True,
    )
    assert found.watch.alarmed


def test_inputs_that_occur_again_need_a_word(certificate: Certificate, tmp_path: Path) -> None:
    ledger, stream = SpentLedger(tmp_path), _stream(0.2, 0.5, seed=1)
    with pytest.raises(RefusalError, match="say --rows-are-new, or name the column") as caught:
        _watch(certificate, stream, ledger)
    assert "Do not take repeated inputs out" in str(caught.value)
    alone = stream.take(np.flatnonzero(stream.occurrences() == 1))
    assert _watch(certificate, alone, ledger).counted == len(alone)
    with pytest.raises(RefusalError, match=r"or occurred before.*not given before"):
        _watch(certificate, alone.take(slice(1)), ledger)
    again = _watch(certificate, alone.take(slice(1)), ledger, rows_are_new=True)
    assert again.watch.trials == len(alone) + 1


def test_an_id_counts_once_and_a_file_may_grow(
    certificate: Certificate, tmp_path: Path
) -> None:
    ledger, stream = SpentLedger(tmp_path), _stream(0.2, 0.8, seed=1)
    ids = [f"call {row}" for row in range(120)]
    first = _watch(certificate, stream.take(slice(60)), ledger, ids=ids[:60])
    assert (first.counted, first.seen) == (60, 0)
    assert first.watch.errors == _wrong(stream)[:60].sum()
    grown = _watch(certificate, stream, SpentLedger(tmp_path), ids=ids)
    assert (grown.counted, grown.seen, grown.watch.trials) == (60, 60, 120)
    twice = _watch(certificate, stream.take([0, 0, 1]), ledger, ids=["x", "x", "y"])
    assert (twice.counted, twice.seen) == (2, 1)
    assert grown.watch.errors == _wrong(stream).sum()
    assert str(grown.watch.outcomes).startswith(str(first.watch.outcomes))
    with pytest.raises(DataError, match="119 ids do not fit 120 examples"):
        _watch(certificate, stream, ledger, ids=ids[1:])


def test_rows_that_were_counted_without_ids_are_not_counted_again_with_them(
    certificate: Certificate, tmp_path: Path
) -> None:
    """A growing file of 60 observations, 50 of them counted already, made 110 trials."""
    ledger, stream = SpentLedger(tmp_path), _stream(0.2, 0.0, seed=1, count=60)
    ids = [f"call {row}" for row in range(60)]
    assert _watch(certificate, stream.take(slice(50)), ledger).counted == 50
    for said in ({}, {"ids": ids}):
        with pytest.raises(RefusalError, match="not given before, with --rows-are-new"):
            _watch(certificate, stream, ledger, **said)
    rest = _watch(certificate, stream.take(slice(50, 60)), ledger, ids=ids[50:])
    assert (rest.counted, rest.watch.trials) == (10, 60)


def test_inputs_of_the_support_set_count_but_the_support_set_does_not(
    certificate: Certificate, device: DeviceState
) -> None:
    support, new = draw(40), draw(60, seed=3)
    for said in ({}, {"rows_are_new": True}, {"ids": [str(row) for row in range(40)]}):
        with pytest.raises(RefusalError, match="these are the same observations, not new ones"):
            _watch(certificate, support, device.spent, **said)
    mixed = Examples(
        np.concatenate([new.inputs, support.inputs[:5]]),
        np.concatenate([new.labels, support.labels[:5]]),
    )
    with pytest.raises(RefusalError, match="5 of the 65 examples have an input that"):
        _watch(certificate, mixed, device.spent)
    assert _watch(certificate, mixed, device.spent, rows_are_new=True).counted == 65
    # They are other observations: the certified ones keep their right to a retry.
    commit(device, support, retry=True)
    with pytest.raises(RefusalError, match="are already spent on: monitoring"):
        commit(device, new)


def test_a_growing_log_whose_first_rows_certified(
    certificate: Certificate, device: DeviceState
) -> None:
    """The certifying rows have ids that the watch has not seen; they counted as spot checks."""
    support, new = draw(40), draw(60, seed=3)
    log = Examples(
        np.concatenate([support.inputs, new.inputs]),
        np.concatenate([support.labels, new.labels]),
    )
    ids = [str(row) for row in range(100)]
    for said in ({"ids": ids}, {"ids": ids, "rows_are_new": True}, {"rows_are_new": True}):
        with pytest.raises(RefusalError, match="Leave out exactly the rows that were used"):
            _watch(certificate, log, device.spent, **said)
    # Of a part of them the user knows.
    part, names = log.take(slice(35, 100)), ids[35:]
    with pytest.raises(RefusalError, match=r"5 of the 65 .* spent on: a certificate.*must not"):
        _watch(certificate, part, device.spent, ids=names)
    stated = _watch(certificate, part, device.spent, ids=names, rows_are_new=True)
    assert stated.counted == 65
    # What this watch has counted needs no word: the ids tell.
    assert _watch(certificate, part, device.spent, ids=names).counted == 0


def test_ids_that_are_written_otherwise_count_no_row_again(
    certificate: Certificate, tmp_path: Path
) -> None:
    ledger, stream = SpentLedger(tmp_path), _stream(0.0, 0.0, seed=1, count=50)
    ids = [str(row) for row in range(50)]
    assert _watch(certificate, stream, ledger, ids=ids).counted == 50
    for said in (
        {"ids": [f"{row}.0" for row in range(50)]},
        {"ids": [f"{row:03}" for row in range(50)]},
        {"rows_are_new": True},
    ):
        with pytest.raises(RefusalError, match=r"they are the same rows, with other ids or"):
            _watch(certificate, stream, ledger, **said)
    assert _watch(certificate, stream, ledger, ids=ids).watch.trials == 50


def test_two_that_count_at_once_do_not_undo_each_other(
    certificate: Certificate, tmp_path: Path
) -> None:
    wrong, right = (_stream(risk, 0.0, seed=1, count=30) for risk in (1.0, 0.0))
    other = Examples(np.array([f"other {i}" for i in range(30)], dtype=object), right.labels)
    ledger = SpentLedger(tmp_path)

    def meanwhile(examples: Examples) -> npt.NDArray[np.bool_]:
        assert _watch(certificate, wrong, SpentLedger(tmp_path)).watch.alarmed
        return _wrong(examples)

    with pytest.raises(ProtocolError, match="nothing was counted here: run it again"):
        watch_examples(certificate, other, ledger=ledger, alpha=ALPHA, count_wrong=meanwhile)
    found = _watch(certificate, other, ledger)
    assert found.watch.alarmed
    assert (found.counted, found.watch.trials) == (30, 60)


@pytest.mark.parametrize("suffix", ["", ", by observation"], ids=["inputs", "every row"])
def test_a_watch_that_counted_otherwise_is_left_behind(
    certificate: Certificate, suffix: str, tmp_path: Path
) -> None:
    """It counted each input once, or looked after every row, in an order that was drawn."""
    ledger = SpentLedger(tmp_path)
    older = f"monitoring {certificate.digest[:16]}"
    kept = RiskWatch(bound=certificate.bound, alpha=ALPHA).updated([True] * 9)
    name, state = f"{older}{suffix}", kept.to_object()
    ledger.mark_with_state(draw(2, seed=5), older, name=name, state=state)
    found = _watch(certificate, draw(3, seed=6), ledger)
    assert (found.restarted, found.watch.trials) == (True, 3)
    assert not _watch(certificate, draw(3, seed=7), ledger).restarted


def test_a_sorted_file_gains_nothing(certificate: Certificate, tmp_path: Path) -> None:
    stream = _stream(0.5, 0.0, seed=1)
    by_label = stream.take(np.argsort(stream.labels, kind="stable"))
    plain = _watch(certificate, by_label, SpentLedger(tmp_path / "plain")).watch
    assert plain.errors == _wrong(stream).sum()
    # The user's word that rows came so; here it is not true, and a bound comes of it.
    stated = _watch(certificate, by_label, SpentLedger(tmp_path / "stated"), in_order=True)
    once = RiskWatch(bound=certificate.bound, alpha=ALPHA).updated(_wrong(by_label).tolist())
    assert stated.watch == once
    assert living_bound(certificate, once) < 0.15 < living_bound(certificate, plain)


def test_a_call_is_one_look_whatever_its_order(certificate: Certificate) -> None:
    """In an order of one's own, part of the way there is an alarm, and a bound as well."""
    start = RiskWatch(bound=certificate.bound, alpha=ALPHA)
    wrong = [True] * 30 + [False] * 200
    for batch in (wrong, wrong[::-1]):
        watch = start.updated(batch, in_order=False)
        assert not watch.alarmed
        assert [each.tolist() for each in watch.counts()] == [[0, 30], [0, 230]]
        assert watch.again() == watch
        errors, trials = (np.array([each]) for each in (30, 230))
        now = float(start_of(certificate).bounds(errors, trials).min())
        assert living_bound(certificate, watch) == min(now, start_of(certificate).bound)
        record = record_spot_checks(certificate, watch, key=ALICE)
        assert all(check.passed for check in check_spot_checks(certificate, record))
    assert start.updated(wrong).alarmed
    assert living_bound(certificate, start.updated(wrong[::-1])) < living_bound(
        certificate, watch
    )
    # An end is a look, and what follows goes on from there.
    later = watch.updated([True] * 160, in_order=False).updated([False], in_order=False)
    assert later.alarm_at == 390
    assert later.again() == later


def test_what_a_record_without_order_leaves_open(
    certificate: Certificate, tmp_path: Path
) -> None:
    watch = _watch(certificate, _stream(0.1, 0.0, seed=1), SpentLedger(tmp_path)).watch
    known = record_spot_checks(certificate, watch, key=ALICE)
    [spot_checks] = left_open(known)
    assert "outcomes, their order, and their marks are the signer's word" in spot_checks.detail
    lost = record_spot_checks(certificate, replace(watch, outcomes=None), key=ALICE)
    [_, order] = left_open(lost)
    assert "an alarm among the first 120 spot checks" in order.detail


def test_the_signed_record_is_computed_again(certificate: Certificate, tmp_path: Path) -> None:
    calm = _watch(certificate, _stream(0.0, 0.0, seed=1), SpentLedger(tmp_path)).watch
    record = record_spot_checks(certificate, calm, key=ALICE)
    assert record.bound == living_bound(certificate, calm) < certificate.bound
    assert f"at most {record.bound:.6f}" in record.statement
    checks = check_spot_checks(certificate, SpotChecks.from_json(record.to_json()))
    assert [check.passed for check in checks] == [True] * 3
    hidden = replace(calm, outcomes="1" + str(calm.outcomes)[1:], errors=calm.errors + 1)
    forged = (
        replace(record, bound=record.bound / 2),
        replace(record, watch=replace(calm, alarm_at=3)),
        replace(record, watch=replace(calm, bound=0.9)),
        replace(record, watch=hidden),
        replace(record, statement="The risk is 0."),
    )
    for each in forged:
        assert not all(c.passed for c in check_spot_checks(certificate, each.signed(ALICE)))
    assert not check_spot_checks(certificate, forged[0])[0].passed
    assert not check_spot_checks(certificate, record.signed(MALLORY))[0].passed


def test_words_of_before_are_understood(certificate: Certificate) -> None:
    """They wrote a level as briefly as it can be, and rounded."""
    watch = RiskWatch(bound=certificate.bound, alpha=1e-5).updated([False] * 20)
    record = record_spot_checks(certificate, watch, key=ALICE)
    assert "at most 0.00001, ever" in record.statement
    earlier = replace(record, statement=record.statement.replace("0.00001", "1e-05"))
    assert all(c.passed for c in check_spot_checks(certificate, earlier.signed(ALICE)))


def test_an_alarm_withdraws_the_bound(certificate: Certificate, tmp_path: Path) -> None:
    stream = _stream(0.9, 0.0, seed=1)
    alarmed = _watch(certificate, stream, SpentLedger(tmp_path)).watch
    record = record_spot_checks(certificate, alarmed, key=ALICE)
    *others, living = check_spot_checks(certificate, record)
    # It is the signer's record, and it says that nothing holds any more.
    assert all(check.passed for check in others)
    assert not living.passed
    assert f"ALARM at spot check {alarmed.alarm_at}" in living.detail
    assert "is tenable any more" in record.statement
    assert f"at most {record.bound:.6f}" not in record.statement


def test_a_watch_that_kept_no_outcomes_goes_on(certificate: Certificate) -> None:
    older = RiskWatch(bound=certificate.bound, alpha=ALPHA, errors=2, trials=50)
    assert "outcomes" not in older.to_object()
    later = RiskWatch.from_object(older.to_object()).updated([False] * 100)
    errors, trials = later.counts()
    assert (errors[0], errors[-1], trials[0], trials[-1]) == (2, 2, 50, 150)
    record = record_spot_checks(certificate, later, key=ALICE)
    assert all(check.passed for check in check_spot_checks(certificate, record))


def test_an_alarm_is_not_hidden_by_leaving_outcomes_out(certificate: Certificate) -> None:
    """Watches of before kept no outcomes; what their counts say still has to fit."""
    wrong = RiskWatch(bound=certificate.bound, alpha=ALPHA).updated([True] * 30)
    assert wrong.alarmed
    drawn = RiskWatch(bound=certificate.bound, alpha=ALPHA, errors=30, trials=30)
    later = drawn.updated([False] * 400)  # by then the wealth is lost again
    assert not replace(later, outcomes=None).untenable
    for hidden in (drawn, later):
        record = record_spot_checks(certificate, replace(hidden, alarm_at=None), key=ALICE)
        [failed] = [c for c in check_spot_checks(certificate, record) if not c.passed]
        assert failed.name == "drift test"
