"""A run that began before base models had their present digest goes on with its pool."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import Family

from fedcert.errors import PoolError
from fedcert.pool import Pool
from fedcert.strategies.run import _pool_of


def test_a_pool_that_knows_the_base_model_by_its_weights(vit: Family, tmp_path: Path) -> None:
    space = vit.space()
    older = replace(space, base_digest=vit.base.weights)
    Pool(tmp_path / "pool", older)
    _, used = _pool_of(tmp_path / "pool", vit.base, space)
    assert used.digest == older.digest
    _, used = _pool_of(tmp_path / "new", vit.base, space)
    assert used.digest == space.digest


def test_a_pool_of_another_space_is_refused_as_before(vit: Family, tmp_path: Path) -> None:
    space = vit.space()
    Pool(tmp_path / "pool", vit.space(rank=2))
    with pytest.raises(PoolError, match=f"instead of {space.digest[:12]}"):
        _pool_of(tmp_path / "pool", vit.base, space)
