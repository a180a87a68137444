"""What a server does with hostile uploads: each fault is brought about, and looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedcert.simulations.faults.fault import Fault
from fedcert.simulations.faults.uploads import UPLOAD_FAULTS


@pytest.mark.parametrize("fault", UPLOAD_FAULTS, ids=lambda fault: fault.name)
def test_an_upload_fault_ends_as_expected(fault: Fault, tmp_path: Path) -> None:
    assert fault.inject(tmp_path) == fault.expected
