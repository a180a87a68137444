"""Canonical JSON and digests: what two machines must agree on."""

from __future__ import annotations

import numpy as np
import pytest

from fedcert.canonical import canonical_json, digest_json, digest_tensors, sha256_hex
from fedcert.errors import FedcertError

TENSORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([1, 2])}


def test_parts_are_not_simply_joined() -> None:
    assert sha256_hex(b"ab", b"c") != sha256_hex(b"a", b"bc")
    assert sha256_hex(b"", b"a") != sha256_hex(b"a", b"")


def test_canonical_json_is_rfc_8785() -> None:
    value = {"b": [1.0, 1e21, True, None], "a": "\u20ac\n", "\u00e9": {}}
    expected = '{"a":"\u20ac\\n","b":[1,1e+21,true,null],"\u00e9":{}}'
    assert canonical_json(value) == expected.encode()


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), 2**53, b"x", {1: 2}, {"a": {3}}, "\ud800", np.float32(1)],
    ids=["nan", "infinity", "large", "bytes", "key", "set", "surrogate", "numpy"],
)
def test_what_json_has_no_word_for_is_refused(value: object) -> None:
    with pytest.raises(FedcertError, match="no canonical JSON form"):
        canonical_json({"a": [value]})


def test_json_digest_sees_values_and_not_their_order() -> None:
    assert digest_json({"a": 1, "b": 2}) == digest_json({"b": 2, "a": 1})
    assert digest_json({"a": 1, "b": 2}) != digest_json({"a": 2, "b": 1})


def test_tensor_digest_ignores_order_and_memory_layout() -> None:
    turned = {
        "b": TENSORS["b"].astype(">i8"),
        "a": np.asfortranarray(TENSORS["a"]),
    }
    assert digest_tensors(turned) == digest_tensors(TENSORS)


@pytest.mark.parametrize(
    "changed",
    [
        {"c": TENSORS["a"], "b": TENSORS["b"]},
        {"a": TENSORS["a"].astype(np.float64), "b": TENSORS["b"]},
        {"a": TENSORS["a"].reshape(3, 2), "b": TENSORS["b"]},
        {"a": np.nextafter(TENSORS["a"], 1), "b": TENSORS["b"]},
        {"a": TENSORS["a"]},
        {"a": TENSORS["a"], "b": TENSORS["b"].view(np.uint64)},
    ],
    ids=["name", "dtype", "shape", "last bit", "missing", "same bytes"],
)
def test_tensor_digest_sees(changed: dict[str, np.ndarray]) -> None:
    assert digest_tensors(changed) != digest_tensors(TENSORS)


def test_tensor_digest_tells_a_scalar_from_a_vector_of_one() -> None:
    assert digest_tensors({"a": np.array(1.0)}) != digest_tensors({"a": np.array([1.0])})


def test_digests_are_a_contract() -> None:
    """Bundles and certificates hold such digests; change the format when they change."""
    assert (
        digest_json({"n": 1})
        == "f85afa221715119e0ff5c33449ed29b7068235c6d76bba0cb84d12f1c02ab0b9"
    )
    assert (
        digest_tensors(TENSORS)
        == "50f28333ee90e2b004da5700a3b01447b3b39f873038ba3c6d584a208220c77d"
    )


def test_a_tensor_digest_is_that_of_the_bytes_in_order() -> None:
    """Its own words, once more: digests in certificates and bundles must never change."""
    odd = {
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 3), dtype=np.float32),
        "flags": np.array([True, False]),
        "words": np.array(["a", "bcd"]),
        "strided": np.arange(12, dtype=np.int16).reshape(3, 4)[:, ::2],
    }
    parts: list[bytes] = []
    for name in sorted(odd):
        array = odd[name]
        header = {"name": name, "dtype": array.dtype.name, "shape": list(array.shape)}
        parts += [canonical_json(header), array.tobytes()]
    assert digest_tensors(odd) == sha256_hex(*parts)
