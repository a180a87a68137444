"""What comes of trouble with nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedcert.deployment.processes import marked
from fedcert.simulations.faults.deployed_nodes import DEPLOYED_NODE_FAULTS
from fedcert.simulations.faults.fault import Fault
from fedcert.simulations.faults.nodes import NODE_FAULTS


def _name(fault: Fault) -> str:
    return fault.name


@pytest.mark.parametrize("fault", NODE_FAULTS, ids=_name)
def test_a_fault_of_a_node(fault: Fault, tmp_path: Path) -> None:
    assert fault.inject(tmp_path) == fault.expected


@pytest.mark.deploy
@pytest.mark.parametrize("fault", DEPLOYED_NODE_FAULTS, ids=_name)
def test_a_fault_of_a_process(fault: Fault, tmp_path: Path) -> None:
    assert fault.inject(tmp_path) == fault.expected
    assert marked(str(tmp_path.resolve())) == []
