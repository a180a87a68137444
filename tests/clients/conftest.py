from __future__ import annotations

from pathlib import Path

import pytest
from simulations.federation import Federation, tiny_settings

from fedcert.settings import RunSettings


@pytest.fixture
def settings() -> RunSettings:
    return tiny_settings()


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path / "run")
