"""What projection cost an upload, kept in the pool."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_models import Family

from fedcert.adapters import AdapterSpace, encode
from fedcert.errors import PoolError
from fedcert.pool import Pool
from fedcert.randomness import keyed_generator


@pytest.fixture(scope="module")
def space(vit: Family) -> AdapterSpace:
    return vit.space(rank=2)


def _add(pool: Pool, space: AdapterSpace, client: str, residual: float | None) -> None:
    vector = keyed_generator("residuals", client).standard_normal(space.dimension)
    extra = {} if residual is None else {"residual": residual}
    pool.add(
        client,
        encode(space, vector.astype(np.float32)),
        space_digest=space.digest,
        examples=10,
        loss=0.5,
        **extra,
    )


def test_mean_and_worst_are_those_of_projected_uploads(
    tmp_path: Path, space: AdapterSpace
) -> None:
    pool = Pool(tmp_path, space)
    _add(pool, space, "in-space", None)
    assert pool.residuals() == {}
    _add(pool, space, "a", 0.25)
    _add(pool, space, "b", 0.75)
    again = Pool(tmp_path, space)
    assert [entry.residual for entry in again.entries()] == [0.25, 0.75, 0.0]
    assert again.residuals() == {
        "projected_uploads": 2,
        "residual_mean": 0.5,
        "residual_worst": 0.75,
    }


@pytest.mark.parametrize("residual", [-0.1, 1.5, float("nan")])
def test_an_impossible_residual_is_refused(
    residual: float, tmp_path: Path, space: AdapterSpace
) -> None:
    pool = Pool(tmp_path, space)
    with pytest.raises(PoolError, match="claims to have lost a share of"):
        _add(pool, space, "a", residual)
    assert len(pool) == 0
