"""Which ledger of spent examples goes with a key."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedcert.cli.inputs import default_state
from fedcert.errors import SettingsError
from fedcert.protocol.spent import SpentLedger


def test_a_nodes_key_comes_with_the_nodes_ledger(tmp_path: Path) -> None:
    key = tmp_path / "client.key"
    assert default_state(key) == tmp_path / "client.state"
    SpentLedger(tmp_path / "state")
    assert default_state(key) == tmp_path / "state"
    # Two ledgers, each of which knows what the other does not.
    SpentLedger(tmp_path / "client.state")
    with pytest.raises(SettingsError, match="two ledgers of spent examples"):
        default_state(key)
