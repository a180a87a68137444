"""What devices do when something goes wrong: each fault is brought about, and looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.devices import DEVICE_FAULTS
from faults.fault import Fault, Recorder, bring_about


@pytest.mark.parametrize("fault", DEVICE_FAULTS, ids=lambda fault: fault.name)
def test_a_device_fault_ends_as_expected(
    fault: Fault, tmp_path: Path, record_property: Recorder
) -> None:
    bring_about(fault, tmp_path, record_property)
