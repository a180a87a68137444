"""Failures are grouped by cause, whatever differs between the clients."""

from __future__ import annotations

from fedcert.runs.failures import Failure, causes_of, failure_line, failure_rows, grouped


def test_a_cause_of_many_clients_is_listed_once() -> None:
    failures = [
        Failure(f"site-{i}", "training", f"upload of 'site-{i}' refused: its norm is {i}.5e+03")
        for i in range(3)
    ]
    [group] = grouped(failures)
    assert group.cause == "upload of '…' refused: its norm is …"
    assert group.clients == ("site-0", "site-1", "site-2")


def test_what_does_not_differ_stays_in_the_cause() -> None:
    failures = [
        Failure(name, "training", f"{name}: norm {norm}, above the limit of 1000")
        for name, norm in (("a", "3e+05"), ("b", "4e+05"))
    ]
    assert causes_of(failures) == "2 x training (a, b): …: norm …, above the limit of 1000"


def test_the_cause_of_a_single_client_stands_as_it_is() -> None:
    assert causes_of([Failure("a-7", "hello", "disk 9 of a-7 is gone")]) == (
        "1 x hello (a-7): disk 9 of a-7 is gone"
    )


def test_other_phases_and_other_words_are_other_causes() -> None:
    failures = [
        Failure("a", "training", "no answer in time"),
        Failure("b", "commitment", "no answer in time"),
        Failure("c", "training", "no answer"),
        Failure("d", "training", "no answer in time"),
    ]
    assert [(g.phase, g.cause, g.clients) for g in grouped(failures)] == [
        ("training", "no answer in time", ("a", "d")),
        ("commitment", "no answer in time", ("b",)),
        ("training", "no answer", ("c",)),
    ]


def test_a_client_that_fails_twice_counts_once() -> None:
    failures = [Failure("a", "training", "disk full")] * 2
    assert failure_rows(failures) == [
        {"phase": "training", "cause": "disk full", "clients": 1, "named": ["a"]}
    ]


def test_the_first_few_clients_of_a_cause_are_named() -> None:
    failures = [Failure(f"site-{i}", "training", f"row {i} is empty") for i in range(100)]
    assert causes_of(failures) == (
        "100 x training (site-0, site-1, site-10 and 97 more): row … is empty"
    )
    # As rows of an earlier version were.
    assert failure_line([{"phase": "hello", "cause": "late", "clients": 2}]) == (
        "2 x hello: late"
    )


def test_a_client_named_like_a_word_does_not_cut_other_words() -> None:
    failures = [Failure("on", "training", "on: nonsense on one"), Failure("b", "t", "x")]
    assert grouped(failures)[0].cause == "on: nonsense on one"


def test_digests_do_not_make_causes_differ() -> None:
    failures = [
        Failure("a", "t", "committed to bundle 00ffee11aabb"),
        Failure("b", "t", "committed to bundle 99ffee11aabb"),
    ]
    assert len(grouped(failures)) == 1


def test_rows_and_failures_are_spelled_alike() -> None:
    failures = [Failure("a", "training", "disk full"), Failure("b", "hello", "late")]
    assert failure_line(failure_rows(failures)) == causes_of(failures)
    assert causes_of([]) == ""
