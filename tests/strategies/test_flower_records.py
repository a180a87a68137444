"""Records that travel between server and clients."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedcert.errors import FedcertError
from fedcert.messages.flower import arrays_of, content, failure_cause, payload_of, size_of


def test_words_and_arrays_come_back_as_they_were() -> None:
    words = {"a": [1, 2.5, "ä", None, True], "b": {"c": "\n"}}
    arrays = {
        "matrix": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "double": np.array([np.pi]),
        "counts": np.array(7, dtype=np.int64),
    }
    records = content(words, arrays)
    assert payload_of(records) == words
    found = arrays_of(records)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(np.squeeze(found[name]), array)


def test_a_message_without_arrays_has_none() -> None:
    assert arrays_of(content({})) == {}
    assert arrays_of(RecordDict({"arrays": ConfigRecord()})) == {}


@pytest.mark.parametrize(
    "records",
    [
        RecordDict(),
        RecordDict({"manifest": ConfigRecord()}),
        RecordDict({"manifest": ConfigRecord({"json": 5})}),
        RecordDict({"manifest": ArrayRecord()}),
    ],
)
def test_a_message_of_something_else(records: RecordDict) -> None:
    with pytest.raises(FedcertError, match="no 'manifest' record; its sender is not fedcert"):
        payload_of(records)


def test_words_that_json_does_not_know_are_not_sent() -> None:
    with pytest.raises(FedcertError, match="no canonical JSON form"):
        content({"loss": float("nan")})


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("", "no reason given"),
        (" \n\t\n", "no reason given"),
        ("one line", "one line"),
        ("Traceback:\n  File x\n\x1b[36mValueError\x1b[39m: bad\n\n", "ValueError: bad"),
        ("a" * 1000, "a" * 300),
        ("clear \x1b]0;title\x07 and \ud800", "clear �]0;title� and �"),
    ],
)
def test_a_cause_is_one_line_that_can_be_printed(reason: str, cause: str) -> None:
    assert failure_cause(reason) == cause


def test_the_size_counts_arrays_and_words() -> None:
    small = size_of(content({"a": "b"}))
    arrays = {"x": np.zeros(1000, np.float32)}
    assert small == len('{"a":"b"}')
    assert small + 4000 < size_of(content({"a": "b"}, arrays)) < small + 4200


def test_the_size_does_not_depend_on_how_a_number_is_written() -> None:
    def size(seconds: float) -> int:
        return size_of(RecordDict({"metrics": MetricRecord({"seconds": seconds, "n": [1, 2]})}))

    assert size(0.5) == size(0.123456789) == 24
    assert size_of(RecordDict({"x": ConfigRecord({"a": b"123", "b": "ä", "c": True})})) == 13
