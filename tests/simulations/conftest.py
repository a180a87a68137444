from __future__ import annotations

import pytest

from fedcert.simulations.simulating import Simulation
from simulations.federation import finished_simulation


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    return finished_simulation(tmp_path_factory.getbasetemp() / "simulation")
