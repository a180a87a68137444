"""Which state folder, and so which ledger of spent examples, belongs to a key."""

from __future__ import annotations

from pathlib import Path

from fedcert.errors import SettingsError

__all__ = ["LEDGER_FILE", "NODE_KEY", "NODE_STATE", "commands_state", "has_ledger", "state_of"]

LEDGER_FILE = "spent.sqlite"
"""In a client's state folder."""
NODE_KEY = "client.key"
"""A deployed node's key, in its own folder."""
NODE_STATE = "state"
"""A deployed node's state folder, beside its key."""


def state_of(key: Path) -> Path:
    """Return the state folder that belongs to a key, for whoever uses it outside a node.

    What a node of a deployment trained on and certified is spent for commands as well.

    Parameters
    ----------
    key : Path
        File of the key; it need not exist.

    Returns
    -------
    Path
        The node's folder ``state`` if this is a node's key and the node has a ledger;
        otherwise a folder with the key's name and the ending ``.state``.

    Raises
    ------
    SettingsError
        If there are two, each of which knows what the other does not.
    """
    own, node = commands_state(key), key.parent / NODE_STATE
    if key.name != NODE_KEY or not has_ledger(node):
        return own
    if own.exists():
        raise SettingsError(
            f"the key {key} has two ledgers of spent examples: {own} knows what commands "
            f"committed to and certified, {node} what the node trained on and certified. Name "
            "one as the state folder (--state): the node's for examples that the node may have "
            "used; the other to go on with what was committed to there"
        )
    return node


def commands_state(key: Path) -> Path:
    """Return the state folder that commands begin for a key."""
    return key.with_suffix(".state")


def has_ledger(folder: Path) -> bool:
    """Return whether a state folder has a ledger."""
    return (folder / LEDGER_FILE).is_file()
