"""What a certificate says of a support set that is out of the ordinary."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from fedcert.certificates import Certificate, Sample, check_client, verify_record
from fedcert.errors import CertificateError

from .conftest import Issuer


def test_an_ordinary_sample_leaves_no_trace(make: Issuer) -> None:
    plain = make()
    assert plain.sample is None
    assert "sample" not in plain.to_object()
    assert make(sample=Sample()) == plain


def test_what_is_out_of_the_ordinary_is_in_the_words_and_signed(make: Issuer) -> None:
    sample = Sample(unreadable=2, duplicates=5, repeats=3)
    certificate = make(sample=sample, errors=4)
    again = Certificate.from_json(certificate.to_json())
    assert again == certificate
    assert again.sample == sample
    assert verify_record(again).passed
    assert "Of these errors 2 are examples that could not be read" in again.statement
    told = "\n".join(again.assumptions)
    assert "5 examples have an input that occurs more than once in the support set" in told
    assert "3 examples have an input that the signer had used before" in told
    for other in (None, replace(sample, repeats=0)):
        assert not verify_record(replace(again, sample=other)).passed


@pytest.mark.parametrize(
    "change",
    [
        {"unreadable": 5},
        {"duplicates": 1_000_000},
        {"unreadable": 0, "duplicates": 0, "repeats": 0},
        {"repeats": -1},
        {"others": 1},
    ],
)
def test_impossible_counts_are_refused(make: Issuer, change: dict[str, Any]) -> None:
    content = json.loads(make(sample=Sample(unreadable=2), errors=4).to_json())
    content["sample"] |= change
    with pytest.raises(CertificateError, match=r"certificate\.sample"):
        Certificate.from_json(json.dumps(content))


@pytest.mark.parametrize("client", ["", " ", "a ", "\n", "a\u202eb", "a\x00", "x" * 257])
def test_what_is_no_client_id(client: str) -> None:
    with pytest.raises(CertificateError, match="is no client id: give a stable name"):
        check_client(client)


@pytest.mark.parametrize("client", ["c-1", "Dr. M\u00fcller", "\u682a\u5f0f\u4f1a\u793e", "0"])
def test_what_is_one(client: str) -> None:
    check_client(client)
