"""Examples, their digests, and how they become model inputs."""

from __future__ import annotations

import numpy as np
import pytest

from fedcert.data import Examples, ImageInputs, input_spec_from_config
from fedcert.errors import BundleError, DataError
from fedcert.randomness import keyed_generator

KEY = "k" * 64


def _images(count: int) -> Examples:
    generator = keyed_generator("examples")
    return Examples(generator.random((count, 1, 2, 2)), generator.integers(0, 2, count))


def _texts(*texts: str) -> Examples:
    return Examples(np.array(texts, dtype=object), np.zeros(len(texts), dtype=np.int64))


def test_every_input_needs_a_label() -> None:
    with pytest.raises(DataError, match="3 inputs came with 2 labels; give one label per"):
        Examples(np.zeros((3, 1)), np.zeros(2, dtype=np.int64))


def test_the_multiset_is_what_counts() -> None:
    examples = _images(6)
    digest = examples.multiset_digest(KEY)
    assert examples.take([3, 1, 5, 0, 2, 4]).multiset_digest(KEY) == digest
    assert examples.take([0, 1, 2, 3, 4]).multiset_digest(KEY) != digest
    assert examples.take([0, 1, 2, 3, 4, 4]).multiset_digest(KEY) != digest
    assert examples.multiset_digest("l" * 64) != digest
    flipped = Examples(examples.inputs, 1 - examples.labels)
    assert flipped.multiset_digest(KEY) != digest


def test_a_relabeled_example_is_the_same_example() -> None:
    examples = _images(6)
    flipped = Examples(examples.inputs, 1 - examples.labels)
    assert flipped.input_digests(KEY) == examples.input_digests(KEY)
    assert len(set(examples.input_digests(KEY))) == 6
    assert not set(examples.input_digests(KEY)) & set(examples.input_digests("l" * 64))


def test_precision_of_storage_does_not_make_another_example() -> None:
    examples = Examples(_images(4).inputs.astype(np.float32), np.zeros(4, dtype=np.int64))
    wide = Examples(examples.inputs.astype(np.float64), examples.labels)
    assert wide.input_digests(KEY) == examples.input_digests(KEY)


def test_texts_are_the_same_up_to_case_and_space() -> None:
    first = _texts("What's the  weather?\n", "STRASSE").input_digests(KEY)
    assert _texts(" what's the weather?", "stra\u00dfe").input_digests(KEY) == first
    assert _texts("what's the whether?").input_digests(KEY)[0] not in first


def test_the_canonical_order_does_not_depend_on_the_listing() -> None:
    examples = _images(8)
    ordered = examples.canonical_order(KEY)
    turned = examples.take(np.arange(8)[::-1]).canonical_order(KEY)
    np.testing.assert_array_equal(turned.inputs, ordered.inputs)
    np.testing.assert_array_equal(turned.labels, ordered.labels)
    assert not np.array_equal(examples.canonical_order("l" * 64).inputs, ordered.inputs)


def test_images_are_scaled_onto_minus_one_to_one() -> None:
    spec = ImageInputs(channels=1, height=1, width=3, low=2.0, high=10.0)
    encoded = spec.encode(spec.normalize(np.array([[2, 6, 10]])))
    assert encoded.keys() == {"pixel_values"}
    assert encoded["pixel_values"].tolist() == [[[[-1.0, 0.0, 1.0]]]]


def test_no_images_keep_their_shape() -> None:
    spec = ImageInputs(channels=1, height=2, width=2, low=0.0, high=1.0)
    assert spec.normalize(np.zeros((0, 4))).shape == (0, 1, 2, 2)


def test_an_input_specification_is_its_saved_form() -> None:
    spec = ImageInputs(channels=3, height=2, width=5, low=-1.0, high=1.0)
    assert input_spec_from_config(spec.to_config()) == spec


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({}, "unknown input kind None; this version knows .*image"),
        ({"kind": "sound"}, "unknown input kind 'sound'"),
        ({"kind": "image", "channels": 1}, "the input specification is damaged"),
        ({"kind": "image", "depth": 1}, "the input specification is damaged"),
    ],
)
def test_a_damaged_specification_is_refused(config: dict[str, object], text: str) -> None:
    with pytest.raises(BundleError, match=text):
        input_spec_from_config(config)
