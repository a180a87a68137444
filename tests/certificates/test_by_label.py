"""The note of which labels were wrong: counts beside a certificate, bound to that one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedcert.certificates import Certificate, Sample
from fedcert.certificates.by_label import (
    ERRORS_FILE,
    count_by_label,
    describe_by_label,
    read_by_label,
    write_by_label,
)

BLESSED = Path(__file__).parent / "blessed"


@pytest.fixture
def certificate() -> Certificate:
    return Certificate.read(BLESSED / "posterior_split.json")


def _counts(certificate: Certificate) -> dict[str, tuple[int, int]]:
    wrong, every = certificate.errors, certificate.certified_on
    return {"a": (wrong, every - 1), "b": (0, 1)}


def test_each_label_is_counted_on_its_own() -> None:
    labels = np.array([0, 0, 2, 2, 2])
    wrong = np.array([True, False, True, True, False])
    assert count_by_label(labels, wrong, ["x", "y", "z"]) == {"x": (1, 2), "z": (2, 3)}


def test_what_has_no_label_counts_for_none() -> None:
    labels = np.array([0, -1, 1, -1])
    wrong = np.array([False, True, True, True])
    assert count_by_label(labels, wrong, ["x", "y"]) == {"x": (0, 1), "y": (1, 1)}


def test_a_note_leaves_out_the_rows_that_could_not_be_read(
    tmp_path: Path, certificate: Certificate
) -> None:
    sample = Sample(unreadable=1, duplicates=0, repeats=0)
    certificate = replace(certificate, sample=sample, errors=certificate.errors + 1)
    labeled = {"a": (certificate.errors - 1, certificate.certified_on - 1)}
    write_by_label(tmp_path, certificate, labeled)
    assert read_by_label(tmp_path, certificate) == labeled
    write_by_label(tmp_path, certificate, {"a": (certificate.errors, certificate.certified_on)})
    assert read_by_label(tmp_path, certificate) is None


def test_the_worst_labels_are_named_first_and_many_are_summed_up() -> None:
    assert describe_by_label({"a": (1, 9), "b": (3, 7), "c": (0, 4)}) == "b 3 of 7, a 1 of 9"
    assert describe_by_label({"a": (0, 9)}) == "none was wrong"
    many = {f"l{i}": (1, 2) for i in range(10)}
    assert describe_by_label(many, most=2) == "l0 1 of 2, l1 1 of 2, 8 of 8 other labels"


def test_the_note_is_read_with_its_own_certificate_alone(
    tmp_path: Path, certificate: Certificate
) -> None:
    assert read_by_label(tmp_path, certificate) is None
    write_by_label(tmp_path, certificate, _counts(certificate))
    assert read_by_label(tmp_path, certificate) == _counts(certificate)
    assert read_by_label(tmp_path, replace(certificate, client="another")) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "another"},
        {"labels": {"a": [0, 1]}},  # not what the certificate counted
        {"labels": {"a": 3}},
        {"labels": []},
        {"labels": {}},
    ],
)
def test_a_note_that_does_not_fit_is_not_shown(
    tmp_path: Path, certificate: Certificate, changes: dict[str, object]
) -> None:
    write_by_label(tmp_path, certificate, _counts(certificate))
    path = tmp_path / ERRORS_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert read_by_label(tmp_path, certificate) is None
