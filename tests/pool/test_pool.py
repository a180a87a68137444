"""The pool: hostile uploads are refused, and what was accepted survives."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from tiny_models import Family

from fedcert.adapters import AdapterSpace, encode
from fedcert.errors import PoolError
from fedcert.pool import Pool, UploadLimits, store
from fedcert.randomness import keyed_generator


@pytest.fixture(scope="module")
def space(vit: Family) -> AdapterSpace:
    return vit.space(rank=2)


@pytest.fixture
def pool(tmp_path: Path, space: AdapterSpace) -> Pool:
    return Pool(tmp_path / "pool", space)


def _vector(space: AdapterSpace, seed: int) -> np.ndarray:
    noise = keyed_generator("upload", seed).standard_normal(space.dimension)
    return noise.astype(np.float32)


def _add(pool: Pool, space: AdapterSpace, client: str, seed: int, **changes: Any) -> Any:
    upload = {"space_digest": space.digest, "examples": 100, "loss": 0.5} | changes
    tensors = upload.pop("tensors", None) or encode(space, _vector(space, seed))
    return pool.add(client, tensors, **upload)


def _content(folder: Path) -> tuple[object, ...]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    names = tuple(str(p.relative_to(folder)) for p in files)
    return names, tuple(p.read_bytes() for p in files if p.suffix == ".safetensors")


def test_accepted_adapters_come_back_by_client(pool: Pool, space: AdapterSpace) -> None:
    for client, seed in (("b", 1), ("c", 2), ("a", 3)):
        entry = _add(pool, space, client, seed, examples=seed, loss=seed / 4)
        assert (entry.client, entry.examples, entry.loss) == (client, seed, seed / 4)
    assert len(pool) == 3
    assert "b" in pool
    assert "d" not in pool
    assert [entry.client for entry in pool.entries()] == ["a", "b", "c"]
    assert [entry.examples for entry in pool.entries()] == [3, 1, 2]
    np.testing.assert_array_equal(pool.matrix(), [_vector(space, s) for s in (3, 1, 2)])
    assert pool.matrix().dtype == np.float64


def test_an_empty_pool_is_an_empty_matrix(pool: Pool, space: AdapterSpace) -> None:
    assert pool.matrix().shape == (0, space.dimension)
    assert len(pool) == 0


def test_the_pool_survives_reopening(pool: Pool, space: AdapterSpace, tmp_path: Path) -> None:
    _add(pool, space, "a", 1)
    _add(pool, space, "b", 2)
    again = Pool(tmp_path / "pool", space)
    assert again.entries() == pool.entries()
    np.testing.assert_array_equal(again.matrix(), pool.matrix())
    with pytest.raises(PoolError, match="already has another adapter"):
        _add(again, space, "a", 3)


def _filled(value: float) -> Callable[[dict[str, np.ndarray]], object]:
    return lambda tensors: [t.fill(value) for t in tensors.values()]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t.pop("classifier.bias"), "missing 'classifier.bias'"),
        (lambda t: t.update(more=t["classifier.bias"]), "unexpected 'more'"),
        (lambda t: t.update({"classifier.bias": np.ones(3, np.float32)}), r"shape \(3,\)"),
        (lambda t: t.update({"classifier.bias": np.ones(2)}), "must be float32"),
        (_filled(np.nan), "holds NaN or an infinity"),
        (_filled(1e6), "its norm is .*, above the limit of 1000"),
        (_filled(3e38), "its norm is .*, above the limit of 1000"),
        (_filled(0.0), "it is all zeros: nothing was trained"),
        (_filled(-0.0), "it is all zeros: nothing was trained"),
    ],
)
def test_a_bad_upload_is_refused(
    pool: Pool,
    space: AdapterSpace,
    tmp_path: Path,
    change: Callable[[dict[str, np.ndarray]], object],
    text: str,
) -> None:
    _add(pool, space, "good", 1)
    before = _content(tmp_path)
    tensors = {k: t.copy() for k, t in encode(space, _vector(space, 2)).items()}
    change(tensors)
    with pytest.raises(PoolError, match=f"upload of 'bad' refused: .*{text}"):
        _add(pool, space, "bad", 2, tensors=tensors)
    assert _content(tmp_path) == before
    assert [entry.client for entry in pool.entries()] == ["good"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"examples": 0}, "claims to be trained on 0 examples"),
        ({"examples": -3}, "claims to be trained on -3 examples"),
        ({"examples": 2**70}, "claims to be trained on 1180591620717411303424 examples"),
        ({"loss": float("nan")}, "its training loss is not finite"),
        ({"loss": float("inf")}, "its training loss is not finite"),
        ({"space_digest": "0" * 64}, "made for another adapter space .000000000000 instead"),
    ],
)
def test_bad_claims_are_refused(
    pool: Pool, space: AdapterSpace, changes: dict[str, Any], text: str
) -> None:
    with pytest.raises(PoolError, match=f"upload of 'a' refused: .*{text}"):
        _add(pool, space, "a", 1, **changes)
    assert len(pool) == 0


def test_the_norm_limit_is_a_setting(tmp_path: Path, space: AdapterSpace) -> None:
    norm = float(np.linalg.norm(_vector(space, 1).astype(float)))
    strict = Pool(tmp_path / "strict", space, limits=UploadLimits(max_norm=norm * 0.999))
    with pytest.raises(PoolError, match="its norm is"):
        _add(strict, space, "a", 1)
    _add(
        Pool(tmp_path / "lax", space, limits=UploadLimits(max_norm=norm * 1.001)), space, "a", 1
    )


def test_the_same_upload_twice_is_fine(pool: Pool, space: AdapterSpace, tmp_path: Path) -> None:
    first = _add(pool, space, "a", 1)
    before = _content(tmp_path)
    assert _add(pool, space, "a", 1).digest == first.digest
    assert _content(tmp_path) == before
    assert len(pool) == 1


def test_a_second_adapter_of_a_client_is_refused(
    pool: Pool, space: AdapterSpace, tmp_path: Path
) -> None:
    _add(pool, space, "a", 1)
    before = _content(tmp_path)
    with pytest.raises(PoolError, match="'a' refused: it already has another adapter"):
        _add(pool, space, "a", 2)
    assert _content(tmp_path) == before


def test_a_copied_adapter_is_refused(pool: Pool, space: AdapterSpace, tmp_path: Path) -> None:
    _add(pool, space, "a", 1)
    before = _content(tmp_path)
    with pytest.raises(PoolError, match="'b' refused: the very same adapter came from ano"):
        _add(pool, space, "b", 1)
    assert _content(tmp_path) == before


def test_client_names_are_not_file_names(
    pool: Pool, space: AdapterSpace, tmp_path: Path
) -> None:
    names = ["../../escape", "a/b", "", "x" * 5000, "'; DROP TABLE adapters; --"]
    for seed, name in enumerate(names):
        _add(pool, space, name, seed)
    assert {entry.client for entry in pool.entries()} == set(names)
    assert len(pool.matrix()) == len(names)
    assert [p.name for p in tmp_path.iterdir()] == ["pool"]


def test_a_pool_of_another_space_is_refused(
    pool: Pool, vit: Family, space: AdapterSpace, tmp_path: Path
) -> None:
    _add(pool, space, "a", 0)
    with pytest.raises(PoolError, match=r"another adapter space .*; use another folder"):
        Pool(tmp_path / "pool", vit.space(rank=3))
    assert len(pool) == 1


def test_a_pool_without_an_adapter_is_of_no_space_yet(
    pool: Pool, vit: Family, tmp_path: Path
) -> None:
    """The first try of a deployment had the wrong settings, and failed before any came in."""
    other = vit.space(rank=3)
    taken = Pool(tmp_path / "pool", other)
    _add(taken, other, "a", 0)
    with pytest.raises(PoolError, match="another adapter space"):
        Pool(tmp_path / "pool", vit.space(rank=2))
    assert len(pool) == 1


def _only_file(folder: Path) -> Path:
    (path,) = (folder / "pool" / "adapters").iterdir()
    return path


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (_flip, r"the adapter of 'a' is damaged \(digest\)"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "'a' cannot be read"),
        (lambda path: path.unlink(), "'a' cannot be read: .*No such file"),
    ],
    ids=["flipped bit", "cut short", "missing"],
)
def test_a_damaged_file_is_found(
    pool: Pool, space: AdapterSpace, tmp_path: Path, damage: Any, text: str
) -> None:
    _add(pool, space, "a", 1)
    damage(_only_file(tmp_path))
    with pytest.raises(PoolError, match=text):
        pool.matrix()
    # The client may send it again.
    _add(pool, space, "a", 1)
    np.testing.assert_array_equal(pool.matrix(), [_vector(space, 1)])


def test_a_damaged_index_is_found(pool: Pool, space: AdapterSpace, tmp_path: Path) -> None:
    _add(pool, space, "a", 1)
    (tmp_path / "pool" / "pool.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(PoolError, match=r"pool.sqlite: the pool's index cannot be used"):
        pool.entries()
    with pytest.raises(PoolError, match=r"pool.sqlite: the pool's index cannot be used"):
        Pool(tmp_path / "pool", space)


def test_a_full_disk_leaves_the_pool_as_it_was(
    pool: Pool, space: AdapterSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object, **_options: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    _add(pool, space, "a", 1)
    before = _content(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(store, "write_atomically", full)
        with pytest.raises((OSError, PoolError), match="No space left on device"):
            _add(pool, space, "b", 2)
    assert _content(tmp_path) == before
    assert [entry.client for entry in pool.entries()] == ["a"]
    _add(pool, space, "b", 2)
    assert len(pool.matrix()) == 2


def test_a_crash_before_the_index_leaves_a_file_that_nobody_lists(
    pool: Pool, space: AdapterSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = store.write_atomically

    def killed(path: Path, content: bytes) -> NoReturn:
        real(path, content)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(store, "write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            _add(pool, space, "a", 1)
    assert len(pool) == 0
    assert _only_file(tmp_path).exists()
    _add(pool, space, "a", 2)
    np.testing.assert_array_equal(pool.matrix(), [_vector(space, 2)])


def test_two_uploads_at_once_do_not_mix(
    pool: Pool, space: AdapterSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two servers on one pool: no other upload comes between check and insertion."""
    real, inside = store.write_atomically, threading.Barrier(2)

    def waiting(path: Path, content: bytes) -> None:
        with suppress(threading.BrokenBarrierError):
            inside.wait(0.3)
        real(path, content)

    refused: list[str] = []

    def upload(seed: int) -> None:
        try:
            _add(Pool(tmp_path / "pool", space), space, "a", seed)
        except PoolError as error:
            refused.append(str(error))

    monkeypatch.setattr(store, "write_atomically", waiting)
    threads = [threading.Thread(target=upload, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 1
    assert "already has another adapter" in refused[0]
    assert len(pool.matrix()) == 1


# Labels


def test_a_pool_keeps_the_labels_of_its_adapters_in_order(
    tmp_path: Path, space: AdapterSpace
) -> None:
    pool = Pool(tmp_path, space)
    pool.reserve_for(["a", "b"])
    pool.reserve_for(["defect", "ok"])  # nothing came of the run before
    _add(pool, space, "site", 1)
    Pool(tmp_path, space).reserve_for(["defect", "ok"])
    for others in (["ok", "defect"], ["defect", "ok", "dirty"], ["defect", "OK"]):
        with pytest.raises(PoolError, match="has the labels defect, ok, in this order"):
            Pool(tmp_path, space).reserve_for(others)


def test_what_is_no_privacy_is_taken_for_none(tmp_path: Path, space: AdapterSpace) -> None:
    pool = Pool(tmp_path, space)
    claims = [None, "1", -1.0, 0, float("nan"), float("inf"), 10**400, 0.5]
    for number, claim in enumerate(claims):
        _add(pool, space, f"site-{number}", number, mu=claim)
    assert [entry.mu for entry in pool.entries()] == [None] * 7 + [0.5]
