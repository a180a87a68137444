"""The server's receipt in a certificate: strict to read, and checked from the record alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fedcert.certificates import Certificate, UnionRecipe, verify_record
from fedcert.certificates.attempts import attempt_delta
from fedcert.certificates.receipt import IssuedSeed, SeedReceipt
from fedcert.errors import CertificateError
from fedcert.records.signing import key_from_seed, public_hex

from .conftest import ATTACKER, KEY, Issuer

SERVER = key_from_seed(b"s" * 32)


def _receipt(attempt: int = 1, **changes: Any) -> SeedReceipt:
    unsigned = SeedReceipt(
        attempt=attempt,
        commitment="a0" * 32,
        granted=0.05,
        server=public_hex(SERVER),
        signature="",
    )
    arguments: dict[str, Any] = {
        "client": "client-7",
        "public_key": public_hex(KEY),
        "bundle": "b0" * 32,
        "recipe": _recipe(attempt),
        "support_size": 80,
        "seed": "0123456789abcdef" * 4,
        "receipt": unsigned,
    }
    return IssuedSeed(**(arguments | changes)).signed(SERVER).receipt


def _recipe(attempt: int = 1) -> UnionRecipe:
    return UnionRecipe(candidates=20_000, delta=attempt_delta(0.05, attempt))


@pytest.mark.parametrize("attempt", [1, 2, 9])
def test_a_witnessed_certificate_holds_and_survives_a_round_trip(
    make: Issuer, attempt: int
) -> None:
    certificate = make(_recipe(attempt), protocol=_receipt(attempt))
    assert verify_record(certificate).passed
    assert Certificate.from_json(certificate.to_json()) == certificate
    assert certificate.delta < 0.05
    assert "unwitnessed" not in certificate.statement
    assert f"as attempt {attempt} of this client" in certificate.statement


def test_an_unwitnessed_certificate_has_no_such_member(make: Issuer) -> None:
    assert "protocol" not in json.loads(make().to_json())
    assert make().protocol is None


@pytest.mark.parametrize(
    ("changes", "attempt"),
    [
        ({"client": "client-8"}, 1),
        ({"public_key": public_hex(ATTACKER)}, 1),
        ({"bundle": "b9" * 32}, 1),
        ({"support_size": 81}, 1),
        ({"seed": "ff" * 32}, 1),
        ({"recipe": UnionRecipe(candidates=10, delta=0.045)}, 1),
    ],
)
def test_a_receipt_for_something_else_is_not_issued_under(
    make: Issuer, changes: dict[str, Any], attempt: int
) -> None:
    with pytest.raises(CertificateError, match="was not issued for this by the server"):
        make(_recipe(attempt), protocol=_receipt(attempt, **changes))


def test_the_delta_must_be_that_of_the_attempt(make: Issuer) -> None:
    with pytest.raises(CertificateError, match=r"attempt 2 of delta 0\.05 has 0\.0030"):
        make(_recipe(1), protocol=_receipt(2))
    with pytest.raises(CertificateError, match="attempts are counted from 1"):
        make(_recipe(1), protocol=replace(_receipt(1), attempt=0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p | {"note": 1}, r"certificate\.protocol\.note is not a known field"),
        (lambda p: {k: p[k] for k in p if k != "server"}, r"protocol\.server is missing"),
        (lambda p: p | {"attempt": 1.5}, r"protocol\.attempt must be an integer"),
        (lambda p: p | {"commitment": "A0" * 32}, r"protocol\.commitment must be 64 lower"),
        (lambda p: p | {"signature": "00"}, r"protocol\.signature must be 128 lower"),
        (lambda p: p | {"granted": "0.05"}, r"protocol\.granted must be a number"),
        (lambda _: None, r"certificate\.protocol must be an object, not None"),
    ],
)
def test_it_is_read_strictly(
    make: Issuer, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    record = make(_recipe(), protocol=_receipt()).to_object()
    with pytest.raises(CertificateError, match=message):
        Certificate.from_json(json.dumps(record | {"protocol": change(record["protocol"])}))
