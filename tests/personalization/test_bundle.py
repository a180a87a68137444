"""The bundle: what a device downloads, whole or not at all."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_sums import write_sums
from safetensors.numpy import load_file, save_file
from tiny_models import Family

from fedcert.bundles import FORMAT, Bundle
from fedcert.bundles.archives import pack
from fedcert.canonical import digest_tensors
from fedcert.errors import BundleError, ModelError
from fedcert.models.base import load_base_model

from .conftest import make_bundle

MANIFEST, TENSORS, SUMS = "bundle.json", "bundle.safetensors", "bundle.sha256"
SEED = "0123456789abcdef" * 4


def test_round_trip(bundle: Bundle, tmp_path: Path) -> None:
    bundle.save(tmp_path / "bundle")
    again = Bundle.load(tmp_path / "bundle")
    assert again.digest == bundle.digest
    assert again.manifest() == bundle.manifest()
    assert (again.labels, again.inputs, again.recipes) == (
        bundle.labels,
        bundle.inputs,
        bundle.recipes,
    )
    np.testing.assert_array_equal(
        again.prior.sample(SEED, count=5), bundle.prior.sample(SEED, count=5)
    )


def test_an_archive_is_the_bundle_too(bundle: Bundle, tmp_path: Path) -> None:
    first = bundle.pack(tmp_path / "a.zip")
    bundle.save(tmp_path / "bundle")
    assert Bundle.load(tmp_path / "bundle").pack(tmp_path / "b.zip") == first
    assert Bundle.load(tmp_path / "a.zip").digest == bundle.digest
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        packed = {name: archive.read(name) for name in archive.namelist()}
    files = {path.name: path.read_bytes() for path in (tmp_path / "bundle").iterdir()}
    assert packed == files


def test_an_archive_of_something_else_is_no_bundle(bundle: Bundle, tmp_path: Path) -> None:
    files = bundle.files()
    del files[TENSORS]
    pack(files, tmp_path / "a.zip")
    with pytest.raises(BundleError, match=f"no {TENSORS}; this is not a bundle"):
        Bundle.load(tmp_path / "a.zip")


def test_the_list_of_sums_is_that_of_sha256sum(bundle: Bundle, tmp_path: Path) -> None:
    bundle.save(tmp_path / "bundle")
    folder = tmp_path / "bundle"
    kept = (folder / SUMS).read_bytes()
    write_sums(folder)
    assert (folder / SUMS).read_bytes() == kept


@pytest.mark.parametrize("name", [MANIFEST, TENSORS, SUMS])
def test_a_flipped_byte_of_any_file_is_refused(
    bundle: Bundle, tmp_path: Path, name: str
) -> None:
    bundle.save(tmp_path / "bundle")
    path = tmp_path / "bundle" / name
    content = path.read_bytes()
    named = {MANIFEST: MANIFEST, TENSORS: TENSORS, SUMS: r"bundle\.\w+ is not the file"}[name]
    for position in range(0, len(content), max(1, len(content) // 40)):
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(bytes(damaged))
        with pytest.raises(BundleError, match=f"the bundle is damaged: {named}"):
            Bundle.load(tmp_path / "bundle")


@pytest.mark.parametrize("payload", [pickle.dumps(print), pickle.dumps({"a": 1}, 0)])
def test_a_pickle_is_never_read(bundle: Bundle, tmp_path: Path, payload: bytes) -> None:
    bundle.save(tmp_path / "bundle")
    for name, text in ((TENSORS, f"{TENSORS} cannot be read"), (MANIFEST, "is damaged")):
        kept = (tmp_path / "bundle" / name).read_bytes()
        (tmp_path / "bundle" / name).write_bytes(payload)
        write_sums(tmp_path / "bundle")
        with pytest.raises(BundleError, match=text):
            Bundle.load(tmp_path / "bundle")
        (tmp_path / "bundle" / name).write_bytes(kept)


def test_saving_replaces_a_bundle_as_a_whole(
    vit: Family, bundle: Bundle, tmp_path: Path
) -> None:
    other = make_bundle(vit, seed=1)
    bundle.save(tmp_path / "bundle")
    other.save(tmp_path / "bundle")
    assert Bundle.load(tmp_path / "bundle").digest == other.digest != bundle.digest
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_the_digest_covers_every_part(vit: Family, bundle: Bundle) -> None:
    others = [
        replace(bundle, base_name="other"),
        replace(bundle, base_revision="main"),
        replace(bundle, labels=("no", "yes")),
        replace(bundle, notes={}),
        replace(bundle, inputs=replace(bundle.inputs, high=17.0)),  # type: ignore[type-var]
        replace(bundle, recipes=type(bundle.recipes)(bundle.recipes.rows[:1])),
        replace(bundle, prior=make_bundle(vit, seed=1).prior),
        replace(bundle, space=replace(bundle.space, basis=_moved(bundle))),
    ]
    assert len({bundle.digest, *(other.digest for other in others)}) == 9


def _moved(bundle: Bundle) -> dict[str, np.ndarray]:
    return {name: np.nextafter(array, 9) for name, array in bundle.space.basis.items()}


def test_arrays_in_another_memory_order_are_saved_right(bundle: Bundle, tmp_path: Path) -> None:
    turned = {name: np.asfortranarray(a) for name, a in bundle.space.basis.items()}
    other = replace(bundle, space=replace(bundle.space, basis=turned))
    other.save(tmp_path / "bundle")
    assert Bundle.load(tmp_path / "bundle").digest == bundle.digest


def test_any_flipped_byte_of_the_arrays_is_found(bundle: Bundle, tmp_path: Path) -> None:
    bundle.save(tmp_path / "bundle")
    path = tmp_path / "bundle" / TENSORS
    content = path.read_bytes()
    for position in np.linspace(0, len(content) - 1, 25).astype(int):
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(BundleError, match="damaged"):
            Bundle.load(tmp_path / "bundle")


@pytest.mark.parametrize("name", [MANIFEST, TENSORS, SUMS])
def test_a_missing_file_is_named(bundle: Bundle, tmp_path: Path, name: str) -> None:
    bundle.save(tmp_path / "bundle")
    (tmp_path / "bundle" / name).unlink()
    with pytest.raises(BundleError, match=f"no {name}; this is not a bundle"):
        Bundle.load(tmp_path / "bundle")


def test_a_folder_that_is_not_there_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nowhere: there is no such folder or file"):
        Bundle.load(tmp_path / "nowhere")


def test_another_array_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    bundle.save(tmp_path / "bundle")
    tensors = load_file(tmp_path / "bundle" / TENSORS)
    save_file(tensors | {"extra": np.zeros(1)}, tmp_path / "bundle" / TENSORS)
    text = f"{TENSORS} is not the file that {SUMS} lists"
    with pytest.raises(BundleError, match=text):
        Bundle.load(tmp_path / "bundle")
    write_sums(tmp_path / "bundle")
    with pytest.raises(BundleError, match="its arrays do not match its manifest"):
        Bundle.load(tmp_path / "bundle")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b"{}", b"\xff\xfe", b"[" * 100_000], ids=str
)
def test_a_manifest_that_is_none_is_refused(bundle: Bundle, content: bytes) -> None:
    with pytest.raises(BundleError, match="the bundle is damaged"):
        Bundle.from_parts(content, bundle.tensors())


def test_a_manifest_that_says_something_twice_is_refused(bundle: Bundle) -> None:
    """One reader would take the first, and another the last."""
    twice = b'{"labels":["other","names"],' + bundle.manifest_bytes().removeprefix(b"{")
    with pytest.raises(BundleError, match="the key 'labels' appears twice"):
        Bundle.from_parts(twice, bundle.tensors())


def _edited(bundle: Bundle, change: Callable[[dict[str, Any]], object]) -> bytes:
    content = deepcopy(bundle.manifest())
    change(content)
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda m: m.update(format="fedcert.bundle/2"), rf"'fedcert.bundle/2'; .*'{FORMAT}'"),
        (lambda m: m.update(tensors="0" * 64), "its arrays do not match its manifest"),
        (lambda m: m["space"].update(rank=3), "does not fit at"),
        (lambda m: m["space"].update(sign_rule="none"), "use the fedcert version that made"),
        (lambda m: m["prior"].update(kind="oracle"), "unknown prior 'oracle'"),
        (lambda m: m["prior"].update(kind="pool"), "the pool prior is damaged: 'pool'"),
        (lambda m: m["inputs"].update(kind="sound"), "unknown input kind 'sound'"),
        (lambda m: m["inputs"].pop("low"), "the input specification is damaged: .*'low'"),
        (lambda m: m["recipes"][0]["recipe"].update(kind="free"), "unknown recipe kind 'free'"),
        (lambda m: m["recipes"][0]["recipe"].update(delta=2), "delta must lie between"),
        (lambda m: m["base_model"].update(digest="0" * 64), "belongs to another base model"),
        (lambda m: m.update(extra=1), r"bundle\.extra is not a known field"),
        (lambda m: m["base_model"].update(extra=1), "it holds something unknown"),
    ],
)
def test_an_edited_manifest_is_refused(
    bundle: Bundle, change: Callable[[dict[str, Any]], object], text: str
) -> None:
    with pytest.raises(BundleError, match=text):
        Bundle.from_parts(_edited(bundle, change), bundle.tensors())


@pytest.mark.parametrize(
    "name",
    [
        "format",
        "base_model",
        "space",
        "prior",
        "inputs",
        "labels",
        "recipes",
        "notes",
        "tensors",
    ],
)
@pytest.mark.parametrize("value", [..., None, 3, "x", [[]]], ids=repr)
def test_a_part_of_another_kind_is_a_bundle_error(
    bundle: Bundle, name: str, value: object
) -> None:
    """Whatever a server sends, a device says in one line what is wrong with it."""

    def change(manifest: dict[str, Any]) -> None:
        manifest.pop(name) if value is ... else manifest.update({name: value})

    with pytest.raises(BundleError, match="bundle"):
        Bundle.from_parts(_edited(bundle, change), bundle.tensors())


def test_a_prior_of_another_length_is_refused(vit: Family, bundle: Bundle) -> None:
    other = replace(bundle, space=vit.space(rank=3, last_layers=1))
    text = "its prior has 42 coordinates, its space 52"
    with pytest.raises(BundleError, match=text):
        Bundle.from_parts(other.manifest_bytes(), other.tensors())


def test_the_base_model_is_known_by_its_weights(
    vit: Family, bert: Family, bundle: Bundle, tmp_path: Path
) -> None:
    assert bundle.load_base(str(vit.folder)).digest == bundle.base_digest
    with pytest.raises(ModelError, match="other weights or another configuration"):
        bundle.load_base(str(bert.folder))
    three = replace(bundle, labels=("a", "b", "c"))
    with pytest.raises(ModelError, match="has 2 labels, but the task has 3; save it with"):
        three.load_base(str(vit.folder))
    with pytest.raises(ModelError, match="cannot load a base model from the folder"):
        bundle.load_base(str(tmp_path))


def test_a_single_changed_weight_is_another_base_model(
    vit: Family, bundle: Bundle, tmp_path: Path
) -> None:
    changed = vit.fresh().model
    changed.vit.layernorm.bias.data[0] += 1e-6
    changed.save_pretrained(tmp_path)
    assert load_base_model(str(tmp_path), num_labels=2).layout == vit.base.layout
    with pytest.raises(ModelError, match=f"instead of {bundle.base_digest[:12]}"):
        bundle.load_base(str(tmp_path))


def test_the_manifest_names_the_arrays(bundle: Bundle) -> None:
    assert bundle.manifest()["tensors"] == digest_tensors(bundle.tensors())
    assert {name.split(".")[0] for name in bundle.tensors()} == {"space", "prior"}


def test_the_digest_is_computed_once(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """It hashes every tensor, and is asked for at each step of a personalization."""
    hashed: list[int] = []

    def counted(self: Bundle) -> dict[str, np.ndarray]:
        hashed.append(1)
        return tensors(self)

    fresh, tensors = replace(bundle), Bundle.tensors
    monkeypatch.setattr(Bundle, "tensors", counted)
    assert fresh.digest == fresh.digest == bundle.digest
    assert len(hashed) <= 2  # the bundle's own may have been asked for before
