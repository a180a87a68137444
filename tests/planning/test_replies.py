"""Answers of planning clients: one that cannot be honest has no say."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from fedcert.errors import ProtocolError
from fedcert.planning import (
    Replayed,
    menu,
    replays_from_config,
    replays_to_config,
    worth_trying,
)

RECIPES = menu(candidates=50, delta=0.045, constants=2)
SIZES = (16, 256)

Rows = list[dict[str, Any]]


def _honest() -> Rows:
    found = [
        Replayed(index, n, 0.9, 0.9)
        for n in SIZES
        for index, recipe in enumerate(RECIPES)
        if worth_trying(recipe, n)
    ]
    return replays_to_config(found)


def _changed(**changes: Any) -> Callable[[Rows], object]:
    return lambda rows: [{**rows[0], **changes}, *rows[1:]]


def test_an_honest_answer_is_taken() -> None:
    rows = json.loads(json.dumps(_honest()))
    assert replays_to_config(replays_from_config(rows, RECIPES, SIZES)) == rows


def test_sizes_that_a_client_lacks_may_be_missing() -> None:
    rows = [row for row in _honest() if row["n"] == 16]
    tried = [recipe for recipe in RECIPES if worth_trying(recipe, 16)]
    assert len(replays_from_config(rows, RECIPES, SIZES)) == len(tried)


@pytest.mark.parametrize("name", ["bound", "mean"])
def test_the_lowest_bound_is_taken_and_nothing_below(name: str) -> None:
    for changed in range(len(_honest())):
        rows = _honest()
        row = rows[changed]
        row[name] = RECIPES[row["recipe"]].lowest_bound(row["n"])
        assert replays_from_config(rows, RECIPES, SIZES)
        row[name] -= 1e-6
        with pytest.raises(ProtocolError, match=rf"the {name} must be from 0\.\d+ to 1 with"):
            replays_from_config(rows, RECIPES, SIZES)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_changed(bound=0), "the bound must be from"),
        (_changed(bound=0.0), "the bound must be from"),
        (_changed(bound=-1), "the bound must be from"),
        (_changed(bound=1.000001), "the bound must be from"),
        (_changed(bound=math.nan), "bound must be finite"),
        (_changed(bound=math.inf), "bound must be finite"),
        (_changed(mean=0.0), "the mean must be from"),
        (_changed(mean=1.000001), "the mean must be from"),
        (_changed(mean=math.nan), "mean must be finite"),
        (_changed(mean="0.5"), "mean must be a number"),
        (_changed(bound=True), "bound must be a number"),
        (_changed(bound="0.5"), "bound must be a number"),
        (_changed(bound=None), "bound must be a number"),
        (_changed(recipe=len(RECIPES)), "recipe must be from 0"),
        (_changed(recipe=-1), "recipe must be from 0"),
        (_changed(recipe="union"), "recipe must be an integer"),
        (_changed(recipe=True), "recipe must be an integer"),
        (_changed(n=17), "nobody asked for n = 17"),
        (_changed(n=0), "n must be from 1"),
        (_changed(n=512), "n must be from 1 to 256"),
        (_changed(n=16.0), "n must be an integer"),
        (_changed(client="other"), "a replay must hold bound, mean, n, recipe alone"),
        (lambda rows: [*rows, rows[0]], "not each recipe once at every size"),
        (lambda rows: rows[1:], "not each recipe once at every size"),
        (lambda rows: [*rows, {**rows[0], "n": 256, "recipe": 7}], "not each recipe once"),
        (lambda _: [], "not each recipe once at every size"),
        (lambda _: None, "its replays are not a list"),
        (lambda rows: {"replays": rows}, "its replays are not a list"),
        (lambda _: [0.5], "a replay must hold"),
        (lambda _: [[0, 16, 0.5]], "a replay must hold"),
    ],
)
def test_an_answer_that_cannot_be_honest_is_refused(
    change: Callable[[Rows], object], text: str
) -> None:
    with pytest.raises(ProtocolError, match=text):
        replays_from_config(change(_honest()), RECIPES, SIZES)
