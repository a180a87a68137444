"""What a client says of itself, where the server's means depend on it."""

from __future__ import annotations

from collections.abc import Mapping

from fedcert.errors import FedcertError

__all__ = ["claimed_examples"]

# Nobody's examples count more than this, whatever a client says.
_MOST_EXAMPLES = 10**6


def claimed_examples(said: Mapping[str, float]) -> int:
    """Return how many examples a client trained on, by its word.

    Parameters
    ----------
    said : Mapping[str, float]
        The numbers in its metrics.

    Returns
    -------
    int
        From 1 to a million: a mean that counts examples is nobody's alone.

    Raises
    ------
    FedcertError
        If there are none, or more.
    """
    examples = said.get("num-examples", 0.0)
    if not 1 <= examples <= _MOST_EXAMPLES:
        raise FedcertError(f"its metrics must hold num-examples from 1 to {_MOST_EXAMPLES:,}")
    return int(examples)
