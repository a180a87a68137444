"""A run that began before base models had their present digest goes on with its pool."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_models import Family

from fedcert.adapters import AdapterSpace, encode
from fedcert.errors import PoolError
from fedcert.pool import Pool
from fedcert.strategies.run import _pool_of


def test_a_pool_that_knows_the_base_model_by_its_weights(vit: Family, tmp_path: Path) -> None:
    space = vit.space()
    older = replace(space, base_digest=vit.base.weights)
    _filled(tmp_path / "pool", older)
    _, used = _pool_of(tmp_path / "pool", vit.base, space)
    assert used.digest == older.digest
    _, used = _pool_of(tmp_path / "new", vit.base, space)
    assert used.digest == space.digest


def test_a_pool_of_another_space_is_refused_as_before(vit: Family, tmp_path: Path) -> None:
    space = vit.space()
    _filled(tmp_path / "pool", vit.space(rank=2))
    with pytest.raises(PoolError, match=f"instead of {space.digest[:12]}"):
        _pool_of(tmp_path / "pool", vit.base, space)


def _filled(folder: Path, space: AdapterSpace) -> None:
    adapter = encode(space, np.ones(space.dimension, dtype=np.float32))
    Pool(folder, space).add("a", adapter, space_digest=space.digest, examples=100, loss=0.5)
