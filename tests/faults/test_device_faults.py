"""What devices do when something goes wrong: each fault is brought about, and looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedcert.simulations.faults.devices import DEVICE_FAULTS
from fedcert.simulations.faults.fault import Fault


@pytest.mark.parametrize("fault", DEVICE_FAULTS, ids=lambda fault: fault.name)
def test_a_device_fault_ends_as_expected(fault: Fault, tmp_path: Path) -> None:
    assert fault.inject(tmp_path) == fault.expected
