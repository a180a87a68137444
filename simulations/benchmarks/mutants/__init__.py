"""Certificates broken in one way each, which playing them out has to catch.

One list for tests, benchmarks, and pages. Beside each mutant plays what it was made from, in
the same world: a world that no certificate survives would show nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fedcert.simulations.benchmarks.mutants import (
    by_living,
    by_numbers,
    by_promises,
    by_protocol,
    by_recipes,
    by_samples,
)
from fedcert.simulations.benchmarks.mutants.base import Mutant, Page

__all__ = ["MUTANTS", "Mutant", "rows"]

MUTANTS: tuple[Mutant, ...] = (
    *by_recipes.MUTANTS,
    *by_numbers.MUTANTS,
    *by_protocol.MUTANTS,
    *by_samples.MUTANTS,
    *by_promises.MUTANTS,
    *by_living.MUTANTS,
)
"""All of them."""


def rows(page: Page, episodes: int, *, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Play the mutants of a page, and what each was made from.

    Parameters
    ----------
    page : str
        ``"certificates"`` or ``"promises"``.
    episodes : int
        How often each is played.
    seed : int (default: 0)
        Draws the episodes.

    Yields
    ------
    dict
        ``{"mutant", "breaks", "of", "episodes", "false", "honest", "delta"}``: how often the
        mutant was false, and how often the honest one.
    """
    for number, mutant in enumerate(MUTANTS):
        if mutant.page == page:
            drawn = (seed, number)
            yield {
                "mutant": mutant.name,
                "breaks": mutant.breaks,
                "of": mutant.of,
                "episodes": episodes,
                "false": mutant.play(episodes, drawn),
                "honest": mutant.honest(episodes, drawn),
                "delta": mutant.delta,
            }
