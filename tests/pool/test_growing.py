"""A pool over many runs: who is in it, who is set aside, and one run at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_models import Family

from fedcert.adapters import AdapterSpace, encode
from fedcert.errors import RunError
from fedcert.pool import Pool
from fedcert.pool.locking import only_one
from fedcert.randomness import keyed_generator


@pytest.fixture(scope="module")
def space(vit: Family) -> AdapterSpace:
    return vit.space(rank=2)


def _filled(folder: Path, space: AdapterSpace, clients: str, shift: int = 0) -> Pool:
    pool = Pool(folder, space)
    for client in clients:
        seed = ord(client) + shift
        vector = keyed_generator("upload", seed).standard_normal(space.dimension)
        tensors = encode(space, vector.astype(np.float32))
        pool.add(client, tensors, space_digest=space.digest, examples=9, loss=0.5)
    return pool


def test_what_the_pool_was_at_some_time(tmp_path: Path, space: AdapterSpace) -> None:
    early = _filled(tmp_path / "early", space, "bd")
    late = _filled(tmp_path / "late", space, "cdab")
    assert late.clients() == {"a", "b", "c", "d"}
    np.testing.assert_array_equal(late.matrix({"d", "b", "gone"}), early.matrix())
    assert late.digest() != early.digest()
    _filled(tmp_path / "early", space, "ac")
    assert late.digest() == early.digest()  # whatever the order


def test_the_digest_is_of_adapters_not_of_names(tmp_path: Path, space: AdapterSpace) -> None:
    one = _filled(tmp_path / "one", space, "ab")
    other = _filled(tmp_path / "other", space, "bc", shift=-1)
    assert one.digest() == other.digest()
    assert Pool(tmp_path / "empty", space).digest() != one.digest()


def test_clients_that_are_set_aside_are_remembered(tmp_path: Path, space: AdapterSpace) -> None:
    pool = Pool(tmp_path, space)
    pool.set_aside({"a", "b"})
    pool.set_aside({"b", "c"})
    pool.set_aside([])
    assert Pool(tmp_path, space).planners() == {"a", "b", "c"}
    assert pool.clients() == frozenset()


def test_a_reserved_pool_has_nothing_half_written(tmp_path: Path, space: AdapterSpace) -> None:
    pool = _filled(tmp_path, space, "a")
    torn = tmp_path / "adapters" / ".upload.safetensors.x1"
    torn.write_bytes(b"half")
    with pool.reserved():
        assert not torn.exists()
        assert len(pool.matrix()) == 1


def test_a_pool_is_reserved_once(tmp_path: Path, space: AdapterSpace) -> None:
    with (
        Pool(tmp_path, space).reserved(),
        pytest.raises(RunError, match=rf"in use by another run \(process {os.getpid()} on "),
        Pool(tmp_path, space).reserved(),
    ):
        raise AssertionError("both have it")


def test_a_lock_dies_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import sys, time; from pathlib import Path\n"
            "from fedcert.pool.locking import only_one\n"
            "with only_one(Path(sys.argv[1]), what='it'): print('held', flush=True); "
            "time.sleep(60)",
            str(path),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=f"process {holder.pid} "), only_one(path, what="it"):
            raise AssertionError("both have it")
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        with only_one(path, what="it"):
            pass
    finally:
        holder.kill()
        holder.wait(10)
