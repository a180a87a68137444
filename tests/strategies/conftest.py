from __future__ import annotations

from pathlib import Path

import pytest
from simulations.federation import Federation

from fedcert.strategies.pooled_prior import PooledPrior


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path / "run")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> PooledPrior:
    """What a federation without any trouble ends with, for comparison."""
    return Federation(tmp_path_factory.mktemp("undisturbed") / "run").start()
