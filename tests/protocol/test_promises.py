"""Statements that hold at once are divided beforehand, and go to no more clients than that."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedcert.certificates import RecipeTable, SimultaneousPromise
from fedcert.errors import ProtocolError
from fedcert.protocol.authority import SeedAuthority
from fedcert.protocol.device import DeviceState
from fedcert.records.signing import key_from_seed
from fedcert.settings import RunSettings
from fedcert.settings.recipes import recipe_table

from .conftest import OTHER_BUNDLE, RECIPES, draw


def _simultaneous(clients: int) -> RecipeTable:
    promise = SimultaneousPromise(clients=clients, delta=0.05)
    return RecipeTable(
        tuple(
            (start, replace(recipe, delta=0.05 / clients, promises=(promise,)))
            for start, recipe in RECIPES.rows
        )
    )


def test_no_more_clients_get_a_seed_than_delta_was_divided_for(
    server: SeedAuthority, tmp_path
) -> None:
    recipes = _simultaneous(2)
    server.publish(OTHER_BUNDLE, recipes)
    for number in range(3):
        examples = draw(40, seed=number)
        commitment = DeviceState(tmp_path / f"state-{number}").commit(
            examples,
            client=f"c-{number}",
            key=key_from_seed(bytes([number + 1] * 32)),
            bundle=OTHER_BUNDLE,
            recipe=recipes.recipe_for(40),
        )
        if number < 2:
            assert server.issue(commitment).recipe.promises
        else:
            with pytest.raises(ProtocolError, match="hold together for 2 clients"):
                server.issue(commitment)


def test_settings_divide_delta_before_anything_is_seen() -> None:
    settings = RunSettings.from_flat(
        {"certificate.promises": "abstention=0.2@1.5, gain", "certificate.simultaneous": 4}
    )
    _, recipe = recipe_table(settings).rows[0]
    assert [promise.kind for promise in recipe.promises] == [
        "abstention",
        "gain",
        "simultaneous",
    ]
    assert recipe.total_delta == pytest.approx(0.05 / 4)
    assert recipe.delta == pytest.approx(0.05 / 8)


@pytest.mark.parametrize("wrong", ["abstention=much", "gain=twice", "nothing", "sets=1"])
def test_a_promise_that_makes_no_sense_is_refused_with_the_settings(wrong: str) -> None:
    with pytest.raises(Exception, match="promises"):
        RunSettings.from_flat({"certificate.promises": wrong})
