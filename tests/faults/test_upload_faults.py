"""What a server does with hostile uploads: each fault is brought about, and looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.fault import Fault, Recorder, bring_about
from faults.uploads import UPLOAD_FAULTS


@pytest.mark.parametrize("fault", UPLOAD_FAULTS, ids=lambda fault: fault.name)
def test_an_upload_fault_ends_as_expected(
    fault: Fault, tmp_path: Path, record_property: Recorder
) -> None:
    bring_about(fault, tmp_path, record_property)
