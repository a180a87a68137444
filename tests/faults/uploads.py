"""Faults of uploads: adapters that a server must not take, however they come."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from faults.fault import Fault, Outcome
from faults.submissions import SUBMISSION_FAULTS
from faults.upload_rig import (
    HONEST,
    Upload,
    collect,
    honest_vector,
    make_space,
    upload,
)
from fedcert.adapters.codec import encode
from fedcert.errors import PoolError
from fedcert.messages import ARRAYS, REPLY
from fedcert.pool.robustness import screen_pool
from fedcert.randomness import keyed_generator

__all__ = ["UPLOAD_FAULTS", "large_upload"]

_MANY, _FEW = 1000, 200
_LARGE = 600 * 10**6
_PATIENCE = 20.0  # seconds
_SPACE = make_space()
_VECTOR = honest_vector(_SPACE, 99)


def _one(make: Upload) -> Callable[[Path], Outcome]:
    """Have one client send something beside the honest ones."""
    return lambda folder: Outcome(collect(folder, {"hostile": make}).told())


def _bias(values: Any) -> Upload:
    """Make an upload whose bias is something else."""
    array = np.asarray(values, dtype=np.float32)
    return lambda: upload(_SPACE, _VECTOR, arrays={"classifier.bias": array})


def _renamed() -> RecordDict:
    return upload(_SPACE, _VECTOR, arrays={"classifier.shift": np.zeros(2, np.float32)})


def _another_space() -> RecordDict:
    other = make_space("b")
    return upload(other, honest_vector(other, 99))


def large_upload(size: int) -> RecordDict:
    """Pack a tensor of so many bytes; its zeros take no memory until somebody reads them."""
    records = upload(_SPACE, _VECTOR)
    array = Array(dtype="float32", shape=(size // 4,), stype="numpy.ndarray", data=bytes(size))
    records[ARRAYS] = ArrayRecord({"classifier.bias": array})
    return records


def _large(folder: Path) -> Outcome:
    """Send 600 MB, and see how much memory the server takes while it refuses them."""
    sent, started = large_upload(_LARGE), time.process_time()
    tracemalloc.start()
    try:
        collected = collect(folder, {"hostile": lambda: sent})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    if peak > _LARGE / 20 or time.process_time() - started > _PATIENCE:
        return Outcome(f"decoded or copied: {peak:,} bytes")
    return Outcome(f"{collected.told()}; neither decoded nor copied")


def _many_words(folder: Path) -> Outcome:
    words = RecordDict({REPLY: ConfigRecord({"json": "[" * (65 * 2**20)})})
    return Outcome(collect(folder, {"hostile": lambda: words}).told())


def _many_names(folder: Path) -> Outcome:
    """Send one adapter under a thousand names."""
    clones = {f"clone-{index:04d}": lambda: upload(_SPACE, _VECTOR) for index in range(_MANY)}
    return Outcome(collect(folder, clones).told())


def _one_name(folder: Path) -> Outcome:
    """Send an adapter a thousand times as one client, and then another one."""
    pool, started = collect(folder, {}).pool, time.process_time()

    def send(vector: np.ndarray) -> None:
        pool.add(
            "hostile", encode(_SPACE, vector), space_digest=_SPACE.digest, examples=1, loss=0.0
        )

    for _ in range(_MANY):
        send(_VECTOR)
    if time.process_time() - started > _PATIENCE:
        return Outcome("the server was kept busy")
    try:
        send(2 * _VECTOR)
    except PoolError as error:
        reason = str(error).removeprefix("upload of 'hostile' ")
        return Outcome(f"counted once, another one {reason}; {len(pool)} pooled")
    return Outcome("one client has two adapters in the pool")


def _many_near_copies(folder: Path) -> Outcome:
    """Send adapters that differ by a hair under names of their own, two for each honest one.

    With more than three for each honest one they would set the scale of what is usual:
    against that only enrolling clients helps (docs/security.md).
    """

    def near(index: int) -> Upload:
        noise = 1e-3 * keyed_generator("a hair", index).standard_normal(_SPACE.dimension)
        return lambda: upload(_SPACE, _VECTOR + noise)

    pool = collect(folder, {f"clone-{index:04d}": near(index) for index in range(_FEW)}).pool
    names = [entry.client for entry in pool.entries()]
    more = [honest_vector(_SPACE, 1000 + index) for index in range(100)]
    kept = screen_pool(np.concatenate([pool.matrix(), more])).kept
    in_fit = sum(row < len(names) and names[row].startswith("clone") for row in kept.tolist())
    return Outcome(f"{len(pool) - HONEST} pooled, {in_fit} in the fit")


def _told(cause: str, *, refused: int = 1, pooled: int = HONEST) -> Outcome:
    return Outcome(f"{refused} refused: {cause}; {pooled} pooled")


_OURS = "upload of 'hostile' refused:"
_NOT_FINITE = f"{_OURS} the adapter's 'classifier.bias' holds NaN or an infinity"

UPLOAD_FAULTS = (
    Fault(
        "an upload with a tensor of another name",
        _told(
            f"{_OURS} the adapter's tensors do not match the space: unexpected "
            "'classifier.shift'"
        ),
        _one(_renamed),
    ),
    Fault(
        "an upload with a tensor of another shape",
        _told(f"{_OURS} the adapter's 'classifier.bias' has shape (3,); it must be (2,)"),
        _one(_bias([1.0, 2.0, 3.0])),
    ),
    Fault("an upload with NaN", _told(_NOT_FINITE), _one(_bias([np.nan, 0.0]))),
    Fault("an upload with an infinity", _told(_NOT_FINITE), _one(_bias([0.0, np.inf]))),
    Fault(
        "an upload with a huge norm",
        _told(f"{_OURS} its norm is 1e+30, above the limit of 1000"),
        _one(_bias([1e30, 0.0])),
    ),
    Fault(
        "an upload from another base model",
        _told(
            f"{_OURS} the adapter was made for another adapter space (ed9d1b5d527c instead of "
            "f1c5334b9de5): another base model, rank, or set of modules"
        ),
        _one(_another_space),
    ),
    Fault(
        "an upload of 600 MB",
        Outcome(
            "1 refused: the message's arrays have 600,000,000 bytes; at most 20,816 are taken; "
            f"{HONEST} pooled; neither decoded nor copied"
        ),
        _large,
    ),
    Fault(
        "a reply with 68 MB of words",
        _told("the message's 'reply' record has 68,157,440 characters, more than 67,108,864"),
        _many_words,
    ),
    Fault(
        "one adapter under 1,000 names",
        _told(
            "upload of '…' refused: the very same adapter came from another client",
            refused=_MANY - 1,
            pooled=HONEST + 1,
        ),
        _many_names,
    ),
    Fault(
        "one adapter 1,000 times from one client",
        Outcome(
            "counted once, another one refused: it already has another adapter in the pool; "
            f"{HONEST + 1} pooled"
        ),
        _one_name,
    ),
    Fault(
        "copies that differ by a hair, two for each honest upload",
        Outcome(f"{_FEW} pooled, 1 in the fit"),
        _many_near_copies,
    ),
    *SUBMISSION_FAULTS,
)
