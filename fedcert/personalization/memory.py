"""Keeping a device's personalization within a memory budget.

Libraries and base model are in memory already when the budget is divided, so they are
measured; the count of errors shares its weights. What is left goes to heads, to candidates,
and to activations; how many candidates run at once changes the time, never the result.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedcert.errors import SettingsError
from fedcert.runs.machine import own_mib
from fedcert.search.session import CHUNK

__all__ = ["ACTIVATIONS_MIB", "COPIES", "RESERVE_MIB", "MemoryPlan", "plan_memory"]

MIB = 2**20
ACTIVATIONS_MIB = 64.0
"""Most memory for activations."""
COPIES = 8
"""Times that a candidate's coordinates are held in float64: noise, two steps of its way through
the prior, itself, its half as float32, what stays alive of the chunk before, and what sorting
takes."""
RESERVE_MIB = 64.0
"""For pages of libraries that the rest of a run touches for the first time, and the page
writer."""
_LEAST_ACTIVATIONS, _FEWEST = 4.0, 16


@dataclass(frozen=True)
class MemoryPlan:
    """How much may be in memory at once.

    Attributes
    ----------
    activations_mib : float (default: 64)
        For activations, see `fedcert.search.BatchedScorer`.
    chunk : int (default: 1024)
        Candidates drawn at a time.
    """

    activations_mib: float = ACTIVATIONS_MIB
    chunk: int = CHUNK


def plan_memory(budget_mib: float, *, dimension: int) -> MemoryPlan:
    """Divide what a budget for the whole process leaves.

    Parameters
    ----------
    budget_mib : float
        For the whole process, libraries and base model included.
    dimension : int
        d, coordinates of a candidate.

    Returns
    -------
    MemoryPlan
        Most memory for activations, and how many candidates are drawn at a time.

    Raises
    ------
    SettingsError
        If it cannot be kept; the message says what it takes at least.
    """
    used = own_mib()
    candidate = 8 * COPIES * dimension / MIB  # more than the head that PEFT copies
    least = used + candidate + RESERVE_MIB + _LEAST_ACTIVATIONS + _FEWEST * candidate
    if budget_mib < least:
        raise SettingsError(
            f"a budget of {budget_mib:.0f} MiB is too small: libraries, bundle and base model "
            f"take {used:.0f} MiB, and the work at least {least - used:.0f} MiB more; give "
            f"--memory {least + 1:.0f} or more, or take a smaller base model"
        )
    spare = budget_mib - least
    return MemoryPlan(
        activations_mib=min(ACTIVATIONS_MIB, _LEAST_ACTIVATIONS + spare / 3),
        chunk=min(CHUNK, _FEWEST + int(spare / 3 / candidate)),
    )
