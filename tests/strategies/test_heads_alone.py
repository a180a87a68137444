"""What asks for a head to be tuned alone is named where a base model has no such head."""

from __future__ import annotations

from typing import Any

import pytest
from simulations.federation import tiny_settings
from tiny_models import Family

from fedcert.adapters import AdapterSpace
from fedcert.errors import SettingsError
from fedcert.settings.recipes import method_recipes
from fedcert.strategies.run import _check_head


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({"method": "local", "personal__tuned_head": True}, "'personal.tuned_head'"),
        ({"method": "fedrep"}, "'method'"),
    ],
)
def test_the_setting_is_named(vit: Family, changes: dict[str, Any], asked: str) -> None:
    settings = tiny_settings(**changes)
    recipes = method_recipes(settings, settings.method_of())
    linear = AdapterSpace.of(vit.base, rank=2)
    _check_head(settings, recipes, linear)
    with pytest.raises(SettingsError, match=f"setting {asked}: new clients would train"):
        _check_head(settings, recipes, AdapterSpace(**{**vars(linear), "head": ()}))
