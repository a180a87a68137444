"""Images: no shape and no range is guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcert.data import ImageInputs, input_spec_from_config, read_examples
from fedcert.errors import BundleError, DataError, SettingsError
from fedcert.scenarios import load_scenario

RGB = ImageInputs(channels=3, height=8, width=8, low=0.0, high=255.0)
IMAGES = np.arange(4 * 3 * 8 * 8, dtype=np.float64).reshape(4, 3, 8, 8) % 256
LAST = np.moveaxis(IMAGES, 1, -1)


def _read(folder: Path, images: Any, spec: ImageInputs = RGB) -> tuple[Any, list[str]]:
    said: list[str] = []
    np.savez(folder / "t.npz", input=images, label=np.arange(len(images)) % 2)
    examples = read_examples(folder / "t.npz", spec=spec, labels=("a", "b"), warn=said.append)
    return examples.inputs, said


def test_shapes_that_say_what_they_are(tmp_path: Path) -> None:
    inputs, said = _read(tmp_path, IMAGES)
    np.testing.assert_array_equal(inputs, IMAGES)
    assert said == []
    inputs, said = _read(tmp_path, IMAGES.reshape(4, -1))
    np.testing.assert_array_equal(inputs, IMAGES)
    assert ["state the layout" in text for text in said] == [True]


def test_channels_that_stand_last_are_transposed_aloud(tmp_path: Path) -> None:
    inputs, said = _read(tmp_path, LAST)
    np.testing.assert_array_equal(inputs, IMAGES)
    assert len(said) == 1
    assert "channels last, as (8, 8, 3), and were transposed to (3, 8, 8)" in said[0]


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (RGB, (8, 3, 8)),
        (RGB, (3, 64)),
        (RGB, (64, 3)),
        (RGB, (2, 12, 8)),
        (ImageInputs(3, 4, 8, 0, 255), (8, 4, 3)),
        (ImageInputs(1, 4, 8, 0, 255), (8, 4)),
        (ImageInputs(5, 4, 8, 0, 255), (4, 8, 5)),
    ],
)
def test_other_shapes_are_refused(
    tmp_path: Path, spec: ImageInputs, shape: tuple[int, ...]
) -> None:
    with pytest.raises(DataError, match=r"images have the shape .* channels, height, width"):
        _read(tmp_path, np.zeros((4, *shape)), spec)


def test_a_cube_is_as_declared(tmp_path: Path) -> None:
    images = np.arange(54.0).reshape(2, 3, 3, 3)
    inputs, said = _read(tmp_path, images, ImageInputs(3, 3, 3, 0, 60))
    np.testing.assert_array_equal(inputs, images)
    assert said == []


@pytest.mark.parametrize(
    ("scale", "high", "odd"), [(1 / 255, 255, True), (1 / 255, 16, True), (1, 255, False)]
)
def test_values_in_a_small_part_of_their_range(
    tmp_path: Path, scale: float, high: float, odd: bool
) -> None:
    _, said = _read(tmp_path, IMAGES * scale, ImageInputs(3, 8, 8, 0, high))
    assert [
        f"between 0 and 1, a small part of the range from 0 to {high:g}" in s for s in said
    ] == ([True] * odd)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (IMAGES[0, :1], r"line 3 has the shape \(1, 8, 8\), and the first one \(3, 8, 8\)"),
        ([[1, 2], [3]], "line 3 is ragged"),
        ("no image", "line 3 holds something else than numbers"),
        (None, "line 3 has the shape"),
        (np.full((3, 8, 8), np.nan), "line 3 holds NaN or an infinity"),
        (np.full((3, 8, 8), 256.0), r"line 3 has values outside \[0, 255\]"),
    ],
)
def test_an_image_that_does_not_fit_is_named(tmp_path: Path, image: Any, message: str) -> None:
    """By a refusal if it is one of two; else it counts as an error, with its line."""
    path = _jsonl(tmp_path, [IMAGES[0], IMAGES[1], image, image])
    with pytest.raises(DataError, match=f"{message}.*2 of 4 inputs cannot be read"):
        read_examples(path, spec=RGB, labels=("a", "b"))
    said: list[str] = []
    path = _jsonl(tmp_path, [*IMAGES[:2], image, IMAGES[3]])
    found = read_examples(path, spec=RGB, labels=("a", "b"), warn=said.append)
    assert found.labels.tolist() == [0, 0, -1, 0]
    assert (
        "1 of the 4 examples cannot be read, or have no label of the task (line 3)" in said[0]
    )
    np.testing.assert_array_equal(found.usable.inputs, IMAGES[[0, 1, 3]])


def test_each_image_has_its_own_layout(tmp_path: Path) -> None:
    said: list[str] = []
    path = _jsonl(tmp_path, [IMAGES[0], LAST[1], IMAGES[2].ravel()])
    found = read_examples(path, spec=RGB, labels=("a", "b"), warn=said.append)
    np.testing.assert_array_equal(found.inputs, IMAGES[:3])
    assert ["channels last" in text for text in said] == [False, True]


def _jsonl(folder: Path, images: list[Any]) -> Path:
    rows = [
        {"input": i.tolist() if isinstance(i, np.ndarray) else i, "label": "a"} for i in images
    ]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "t.jsonl"


def _table(folder: Path, images: Any, **options: Any) -> Any:
    count = len(images)
    np.savez(
        folder / "t.npz",
        input=images,
        label=np.arange(count) % 2,
        client=np.arange(count) // 20,
    )
    chosen = {"source": str(folder / "t.npz"), "smallest": 4, "smallest_new": 4, "new": 1}
    return load_scenario("table", chosen | options)


def test_a_table_takes_channels_last(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 9, 3))
    last = _table(tmp_path, images)
    assert last.inputs == ImageInputs(3, 8, 9, 0.0, 255.0)
    assert any("channels last, as (8, 9, 3)" in note for note in last.notes)
    found = last.training_examples(last.upstream_clients[0]).inputs
    (tmp_path / "first").mkdir()
    first = _table(tmp_path / "first", np.moveaxis(images, -1, 1))
    assert first.inputs == last.inputs
    assert first.notes == ()
    assert {image.tobytes() for image in found} <= {
        np.ascontiguousarray(image, dtype=np.float32).tobytes()
        for image in np.moveaxis(images, -1, 1)
    }


@pytest.mark.parametrize("shape", [(3, 8, 3), (3, 3, 3), (4, 4, 3)])
def test_a_table_does_not_guess(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="may have their channels first or last"):
        _ = _table(tmp_path, np.zeros((40, *shape))).inputs


def test_a_table_says_that_its_values_are_small(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((60, 8, 8))
    assert any("small part of the range" in note for note in _table(tmp_path, images).notes)
    assert _table(tmp_path, images, high=1.0).notes == ()


@pytest.mark.parametrize("layout", ["CHW", "HWC"])
def test_a_stated_layout_is_the_only_one(layout: str) -> None:
    """Images of 3 x 3 with three channels look alike in both; nothing is guessed."""
    spec = ImageInputs(3, 3, 3, 0, 255, layout=layout)
    raw = np.random.default_rng(0).integers(0, 256, (2, 3, 3, 3))
    wanted = raw if layout == "CHW" else np.moveaxis(raw, -1, 1)
    np.testing.assert_array_equal(spec.normalize(raw), wanted)
    np.testing.assert_array_equal(spec.normalize(raw.reshape(2, -1)), wanted)
    assert spec.remarks(raw, spec.normalize(raw)) == ()
    assert input_spec_from_config(spec.to_config()) == spec
    other = ImageInputs(3, 8, 4, 0, 255, layout=layout)
    shape = (8, 4, 3) if layout == "CHW" else (3, 8, 4)
    with pytest.raises(DataError, match=rf"was stated \({layout}\); transpose them"):
        other.normalize(np.zeros((2, *shape)))


def test_rows_of_numbers_in_several_channels_are_remarked_on() -> None:
    flat = np.random.default_rng(0).integers(0, 256, (2, 192))
    [remark] = RGB.remarks(flat, RGB.normalize(flat))
    assert "read in the order channels, height, width; state the layout" in remark


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"layout": "WHC"}, "there is no layout 'WHC'; choose CHW or HWC"),
        ({"mean": [0.5], "std": [0.5]}, "mean has 1 numbers for 3 channels"),
        ({"mean": [0.5] * 3}, "given together"),
        ({"mean": [0.5] * 3, "std": [0.0] * 3}, "std positive"),
    ],
)
def test_a_damaged_specification_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        ImageInputs(3, 8, 8, 0, 255, **changes)
    with pytest.raises(BundleError, match=said):
        input_spec_from_config(RGB.to_config() | changes)


def test_a_table_whose_layout_is_stated(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 3, 9, 3))
    for layout in ("CHW", "HWC"):
        scenario = _table(tmp_path, images, layout=layout)
        height, width = (9, 3) if layout == "CHW" else (3, 9)
        assert scenario.inputs == ImageInputs(3, height, width, 0.0, 255.0, layout=layout)
    with pytest.raises(SettingsError, match="there is no layout 'x'"):
        _table(tmp_path, images, layout="x")
