"""The codec is strict: names, shapes, dtype, values and the space's digest."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from tiny_models import Family

from fedcert.adapters import decode, encode
from fedcert.errors import AdapterError
from fedcert.randomness import keyed_generator

Tensors = dict[str, np.ndarray]


def _vector(size: int) -> np.ndarray:
    return keyed_generator("codec").standard_normal(size).astype(np.float32)


def test_round_trip(family: Family) -> None:
    space = family.space()
    vector = _vector(space.dimension)
    tensors = encode(space, vector)
    assert {name: t.shape for name, t in tensors.items()} == space.shapes()
    np.testing.assert_array_equal(decode(space, tensors, space_digest=space.digest), vector)
    # The order in which the tensors arrive does not matter.
    turned = dict(reversed(tensors.items()))
    np.testing.assert_array_equal(decode(space, turned, space_digest=space.digest), vector)


def test_cores_come_first_row_by_row(vit: Family) -> None:
    space = vit.space(rank=3)
    tensors = encode(space, np.arange(space.dimension))
    first = tensors[f"{space.targets[0].name}.R"]
    np.testing.assert_array_equal(first, np.arange(9).reshape(3, 3))
    assert tensors["classifier.bias"][-1] == space.dimension - 1


def _first(tensors: Tensors) -> str:
    return next(iter(tensors))


def _rename(tensors: Tensors) -> None:
    tensors["renamed"] = tensors.pop(_first(tensors))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t.pop(_first(t)), r"do not match the space: missing '.*q_proj\.R'"),
        (lambda t: t.update(extra=np.zeros(1, np.float32)), "unexpected 'extra'"),
        (_rename, r"missing '.*q_proj\.R', unexpected 'renamed'"),
        (
            lambda t: t.update({_first(t): t[_first(t)][:2]}),
            r"shape \(2, 3\); it must be \(3, 3\)",
        ),
        (
            lambda t: t.update({_first(t): t[_first(t)].astype(np.float64)}),
            "is float64; it must be float32",
        ),
        (lambda t: t.update({_first(t): t[_first(t)].astype(">f4")}), "it must be float32"),
        (lambda t: t[_first(t)].fill(np.nan), "holds NaN or an infinity"),
        (lambda t: t["classifier.bias"].fill(np.inf), "'classifier.bias' holds NaN"),
    ],
    ids=["missing", "extra", "renamed", "shape", "dtype", "byte order", "nan", "infinity"],
)
def test_what_does_not_match_is_refused(
    vit: Family, change: Callable[[Tensors], object], text: str
) -> None:
    space = vit.space()
    tensors = {k: t.copy() for k, t in encode(space, _vector(space.dimension)).items()}
    change(tensors)
    with pytest.raises(AdapterError, match=text):
        decode(space, tensors, space_digest=space.digest)


def test_another_space_is_refused(vit: Family) -> None:
    space, other = vit.space(), vit.space(rank=2)
    tensors = encode(space, _vector(space.dimension))
    text = f"another adapter space .{other.digest[:12]} instead of {space.digest[:12]}"
    with pytest.raises(AdapterError, match=text):
        decode(space, tensors, space_digest=other.digest)


def test_a_vector_of_another_length_is_refused(vit: Family) -> None:
    with pytest.raises(AdapterError, match="a vector of 71 numbers"):
        encode(vit.space(), _vector(71))
