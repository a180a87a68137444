"""The phases that a run of the server goes through."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["SHOWN", "Phase"]


class Phase(StrEnum):
    """What the server is doing; docs/architecture.md draws how one follows another."""

    ROLL_CALL = "roll call"
    """Ask every node who it is, and decide whether the latest bundle serves."""

    TRAIN = "train"
    """Gather adapters, for this version of the bundle or for the next one."""

    FIT = "fit"
    """Make a prior of what clients sent, in one go or in a dialogue with them."""

    PLAN = "plan"
    """Let upstream clients that train nothing replay the recipes."""

    COMMIT = "commit"
    """Send new clients the bundle, and take their commitments."""

    CERTIFY = "certify"
    """Answer each commitment with its seed, and take the certificates."""


SHOWN = {
    Phase.ROLL_CALL: "call the roll",
    Phase.TRAIN: "train upstream adapters",
    Phase.FIT: "fit the prior",
    Phase.PLAN: "plan the recipes",
    # One for the two: a client that has committed is not done yet.
    Phase.COMMIT: "certify new clients",
}
"""What a phase is called in the event stream, and so in status and progress bars."""
