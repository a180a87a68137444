"""What comes of trouble with nodes."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults.deployed_nodes import DEPLOYED_NODE_FAULTS
from faults.fault import Fault, Recorder, bring_about
from faults.nodes import NODE_FAULTS

from fedcert.deployment.processes import marked


def _name(fault: Fault) -> str:
    return fault.name


@pytest.mark.parametrize("fault", NODE_FAULTS, ids=_name)
def test_a_fault_of_a_node(fault: Fault, tmp_path: Path, record_property: Recorder) -> None:
    bring_about(fault, tmp_path, record_property)


@pytest.mark.deploy
@pytest.mark.parametrize("fault", DEPLOYED_NODE_FAULTS, ids=_name)
def test_a_fault_of_a_process(fault: Fault, tmp_path: Path, record_property: Recorder) -> None:
    bring_about(fault, tmp_path, record_property)
    assert marked(str(tmp_path.resolve())) == []
