"""Which ledger of spent examples goes with a key."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedcert.errors import SettingsError
from fedcert.protocol.ledgers import state_of
from fedcert.protocol.spent import SpentLedger


def test_a_nodes_key_comes_with_the_nodes_ledger(tmp_path: Path) -> None:
    key = tmp_path / "client.key"
    assert state_of(key) == tmp_path / "client.state"
    SpentLedger(tmp_path / "state")
    assert state_of(key) == tmp_path / "state"
    # Two ledgers, each of which knows what the other does not.
    SpentLedger(tmp_path / "client.state")
    with pytest.raises(SettingsError, match="two ledgers of spent examples"):
        state_of(key)
