"""Every mutant is caught by playing it out, where what it was made from keeps its delta."""

from __future__ import annotations

from collections import Counter

import pytest

from fedcert.certificates.promises.base import PROMISES
from fedcert.simulations.benchmarks import mutants
from fedcert.simulations.benchmarks.episodes import excess
from fedcert.simulations.benchmarks.mutants import MUTANTS, Mutant
from fedcert.simulations.benchmarks.mutants_table import mutants_table

SIGNIFICANCE = 1e-4
OF_RECIPES = [mutant for mutant in MUTANTS if mutant.page == "certificates"]
OF_PROMISES = [mutant for mutant in MUTANTS if mutant.page == "promises"]


def _name(mutant: Mutant) -> str:
    return f"{mutant.of}: {mutant.name}"


@pytest.mark.parametrize("mutant", OF_RECIPES, ids=_name)
def test_mutants_of_recipes_are_caught_and_their_origins_are_not(mutant: Mutant) -> None:
    assert excess(mutant.play(5_000, 1), 5_000, mutant.delta) < SIGNIFICANCE / 1000
    assert excess(mutant.honest(5_000, 1), 5_000, mutant.delta) >= SIGNIFICANCE


# What these were made from is played in `test_promise_coverage` and `test_living`.
@pytest.mark.parametrize("mutant", OF_PROMISES, ids=_name)
def test_mutants_of_promises_are_caught(mutant: Mutant) -> None:
    assert excess(mutant.play(2_000, 3), 2_000, mutant.delta) < SIGNIFICANCE


def test_there_are_enough_of_them_and_each_is_one_of_its_own() -> None:
    assert len(MUTANTS) >= 20
    names = Counter((mutant.of, mutant.name, mutant.breaks) for mutant in MUTANTS)
    # Two classes are played with two settings each.
    assert sum(names.values()) - len(names) <= 2
    assert all(mutant.breaks[0].isupper() for mutant in MUTANTS)


def test_every_promise_has_one() -> None:
    own = {kind for kind, cls in PROMISES.items() if cls.__module__.startswith("fedcert.")}
    assert own <= {mutant.of for mutant in OF_PROMISES}


def test_the_table_says_what_is_broken_and_how_often_it_is_false() -> None:
    row = {"mutant": "m", "breaks": "All is broken", "of": "split", "episodes": 1000}
    row |= {"false": 100, "honest": 40, "delta": 0.05}
    lines = mutants_table([row, row | {"of": "gain", "false": 51}])
    assert "| split | All is broken | 0.100 | 0.082 to 0.120 | 0.040 |" in lines
    assert lines.index("| gain | All is broken | 0.051 | 0.038 to 0.067 | 0.040 |") == 6
    assert "1 of 2 are caught." in lines[2]


def test_rows_are_those_of_a_page_and_come_out_the_same_again() -> None:
    rows = list(mutants.rows("certificates", 20))
    assert [row["mutant"] for row in rows] == [mutant.name for mutant in OF_RECIPES]
    assert rows == list(mutants.rows("certificates", 20))
