"""Settings: from TOML, overrides and flat keys to one checked object, and back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulations.federation import SCENARIO

from fedcert.certificates import RecipeTable, check_issuable, points_of
from fedcert.errors import CertificateError, SettingsError
from fedcert.settings import RunSettings
from fedcert.settings.recipes import recipe_table

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
SCALARS = st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False) | TEXT
OPTIONS = st.dictionaries(
    TEXT,
    st.recursive(
        SCALARS,
        lambda v: st.lists(v, max_size=3) | st.dictionaries(TEXT, v, max_size=2),
        max_leaves=5,
    ),
    max_size=3,
)


def _round_trip(before: RunSettings, folder: Path) -> RunSettings:
    path = folder / "settings.toml"
    path.write_text(before.to_toml(), encoding="utf-8")
    return RunSettings.read(path)


def test_the_defaults_come_back_from_toml(tmp_path: Path) -> None:
    assert _round_trip(RunSettings(), tmp_path) == RunSettings()


def test_every_setting_comes_back_from_toml(tmp_path: Path) -> None:
    changed = RunSettings.from_mapping(
        {
            "seed": 2**40,
            "scenario": {"name": SCENARIO, "options": {"upstream": 30}},
            "adapter": {"rank": 2, "last_layers": 3, "projections": "a, b"},
            "training": {"steps": 1, "learning_rate": 1e-7, "weight_decay": 0.0},
            "prior": {"kind": "jitter", "audit_share": 0.25, "on_memorization": "fail"},
            "certificate": {"delta": 1e-3, "recipe": "steel", "split_from": 100},
            "server": {"timeout": 1.5, "nodes": 7},
            "evaluation": {"baselines": False, "candidates": 3},
        }
    )
    assert _round_trip(changed, tmp_path) == changed


@given(options=OPTIONS)
@settings(max_examples=150, deadline=None)
def test_any_option_of_a_scenario_comes_back_from_toml(
    tmp_path_factory: pytest.TempPathFactory, options: dict[str, Any]
) -> None:
    before = RunSettings.from_mapping({"scenario": {"options": options}})
    after = _round_trip(before, tmp_path_factory.getbasetemp())
    assert after == before
    assert str(after) == str(before)  # 1, 1.0 and true are equal, but not the same


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RunSettings().seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"sed": 1}, "setting 'sed': there is no such setting"),
        ({"training": {"step": 1}}, "setting 'training.step': there is no such setting"),
        ({"seed": -1}, "setting 'seed': .* greater than or equal to 0 (got -1)"),
        ({"seed": "one"}, "setting 'seed': .* valid integer.* (got 'one')"),
        ({"training": 5}, "setting 'training': .* (got 5)"),
        ({"prior": 5}, "'prior': this is a section, [prior] with keys below it (got 5)"),
        ({"seed": True}, "setting 'seed': a number is wanted here (got True)"),
        ({"certificate": {"delta": True}}, "'certificate.delta': a number is wanted here"),
        ({"training": {"steps": 0}}, "'training.steps': .* greater than or equal to 1 (got 0)"),
        ({"training": {"steps": 1.5}}, "'training.steps': .*integer.* (got 1.5)"),
        ({"training": {"learning_rate": 0}}, "'training.learning_rate': .* greater than 0"),
        (
            {"training": {"learning_rate": float("nan")}},
            "'training.learning_rate': .* (got nan)",
        ),
        (
            {"training": {"learning_rate": float("inf")}},
            "'training.learning_rate': .*finite.* (got inf)",
        ),
        ({"adapter": {"rank": 0}}, "'adapter.rank': .* (got 0)"),
        ({"adapter": {"tied": -1}}, "'adapter.tied': .* (got -1)"),
        (
            {"adapter": {"tied": 4}, "training": {"lora_ranks": "2"}},
            "'adapter.tied': .* 4 numbers that all modules share, .*lora_ranks = \"2\"; leave",
        ),
        ({"prior": {"audit_share": 0.5}}, "'prior.audit_share': .* less than 0.5 (got 0.5)"),
        (
            {"prior": {"kind": "gan"}},
            "'prior.kind': there is no such prior; choose diffusion, ",
        ),
        (
            {"prior": {"on_memorization": "x"}},
            "'prior.on_memorization': .*'warn', 'fail' or 'fallback'",
        ),
        ({"certificate": {"delta": 0}}, "'certificate.delta': .* greater than 0 (got 0)"),
        ({"certificate": {"delta": 1}}, "'certificate.delta': .* less than 1 (got 1)"),
        ({"certificate": {"candidates": 0}}, "'certificate.candidates': .* (got 0)"),
        ({"certificate": {"point": "a"}}, "point = 'a' needs certificate.points"),
        ({"certificate": {"points": "a, b"}}, "point '' is none of a, b"),
        ({"certificate": {"points": "a, b", "point": "c"}}, "'c' is none of a, b"),
        ({"certificate": {"promises": "exit=a"}}, "'exit' needs certificate.points"),
        (
            {"certificate": {"points": "a, b", "point": "a", "promises": "exit=b"}},
            "stands before 'a' in certificate.points, and 'b' does not",
        ),
        ({"certificate": {"promises": "exit"}}, "'exit' needs an operating point"),
        ({"certificate": {"promises": "gain, simultaneous"}}, "setting of its own: certif"),
        (
            {"certificate": {"promises": "points=a"}},
            "settings of their own: certificate.points",
        ),
        ({"certificate": {"recipe": "luck"}}, "setting 'certificate.recipe': .*'luck'"),
        ({"server": {"min_pool": 9}}, "'server.min_pool': .* greater than or equal to 10"),
        ({"server": {"timeout": 0}}, "'server.timeout': .* greater than 0"),
        ({"evaluation": {"baselines": "perhaps"}}, "'evaluation.baselines': .*boolean"),
        (
            {"server": {"min_pool": 10}},
            "setting 'server.min_pool': of 10 adapters the audit holds 1 back, and 9 are too "
            "few for the diffusion prior; it needs 10",
        ),
        (
            {"server": {"min_pool": 14}, "prior": {"audit_share": 0.4}},
            "setting 'server.min_pool': of 14 adapters the audit holds 6 back, and 8 are too",
        ),
    ],
)
def test_a_mistake_is_named(values: dict[str, Any], text: str) -> None:
    pattern = re.escape(text).replace(r"\.\*", ".*")
    with pytest.raises(SettingsError, match=pattern) as caught:
        RunSettings.from_mapping(values)
    assert "\n" not in str(caught.value)
    assert "value error" not in str(caught.value).lower()


@pytest.mark.parametrize("kind", ["gaussian", "jitter", "pool"])
def test_baselines_do_with_a_smaller_pool(kind: str) -> None:
    values = {"server": {"min_pool": 10}, "prior": {"kind": kind}}
    assert RunSettings.from_mapping(values).server.min_pool == 10


# Overrides


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("seed=7", "seed", 7),
        (" seed = 7 ", "seed", 7),
        ("training.steps=3", "training.steps", 3),
        ("training.batch-size=3", "training.batch_size", 3),
        ("training.learning_rate=1e-3", "training.learning_rate", 1e-3),
        ("evaluation.baselines=false", "evaluation.baselines", False),
        (f"scenario.name={SCENARIO}", "scenario.name", SCENARIO),
        (f'scenario.name="{SCENARIO}"', "scenario.name", SCENARIO),
        ("scenario.options.x=a=b", "scenario.options", {"x": "a=b"}),
        ("scenario.options={a = 1}", "scenario.options", {"a": 1}),
        ("scenario.options.digits=[1, 2]", "scenario.options", {"digits": [1, 2]}),
        ("scenario.options.name=7 = 8", "scenario.options", {"name": "7 = 8"}),
    ],
)
def test_overrides_are_toml_values_or_words(override: str, path: str, value: object) -> None:
    found: Any = RunSettings.read(None, [override])
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value)


def test_overrides_beat_the_file_and_later_ones_earlier_ones(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("seed = 1\n[training]\nsteps = 5\nbatch_size = 6\n")
    read = RunSettings.read(path, ["seed=2", "training.steps=7", "seed=3"])
    assert (read.seed, read.training.steps, read.training.batch_size) == (3, 7, 6)


def test_dates_of_a_scenario_come_back_too(tmp_path: Path) -> None:
    dates = "{from = 2024-02-29, until = 2024-03-01T12:00:00+01:00, at = 07:30:00}"
    before = RunSettings.read(None, [f"scenario.options.days={dates}"])
    assert _round_trip(before, tmp_path) == before


def test_what_toml_has_no_word_for_is_not_written() -> None:
    odd = RunSettings.from_mapping({"scenario": {"options": {"x": None}}})
    with pytest.raises(SettingsError, match="the setting None cannot be written as TOML"):
        odd.to_toml()


@pytest.mark.parametrize("override", ["seed", "", "=", "=3", " = 3"])
def test_an_override_without_key_or_value(override: str) -> None:
    with pytest.raises(SettingsError, match="is not of the form key=value"):
        RunSettings.read(None, [override])


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["seed=1", "seed.x=2"], "setting 'seed.x': 'seed' is a value, not a section"),
        (["sceanrio.name=x"], "setting 'sceanrio': there is no such setting"),
        (["training.steps="], "setting 'training.steps': .*integer"),
        (["training.steps=many"], r"setting 'training.steps': .*integer.* \(got 'many'\)"),
        (["a..b=1"], "setting 'a': there is no such setting"),
    ],
)
def test_an_override_of_something_else(overrides: list[str], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        RunSettings.read(None, overrides)


# Files


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"seed = ", r"settings\.toml: not valid TOML"),
        (b"seed = 1\nseed = 2", r"settings\.toml: not valid TOML"),
        (b"\xff\xfe", r"settings\.toml: not valid TOML"),
        (b"sead = 1", "'sead': there is no such setting"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=text) as caught:
        RunSettings.read(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml: cannot be read \(No such file"):
        RunSettings.read(tmp_path / "none.toml")
    with pytest.raises(SettingsError, match=r"cannot be read \(Is a directory\)"):
        RunSettings.read(tmp_path)


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.touch()
    assert RunSettings.read(path) == RunSettings()


# Flat keys, as in Flower's run config


def test_flat_keys_with_dashes() -> None:
    read = RunSettings.from_flat(
        {
            "training.batch-size": 3,
            "server.min_pool": 30,
            "scenario.options.training-size": 50,
            "scenario.name": "",
            "seed": 0,
        }
    )
    assert read.training.batch_size == 3
    assert read.server.min_pool == 30
    assert read.scenario.options == {"training_size": 50}
    assert read.scenario.name == "digits"


def test_flat_keys_that_do_not_exist() -> None:
    with pytest.raises(SettingsError, match=r"'server\.pool_min': there is no such setting"):
        RunSettings.from_flat({"server.pool-min": 3})


# What a scenario recommends


@pytest.fixture
def _recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    from tiny_scenario import Tiny

    defaults = {"training": {"steps": 7, "batch_size": 8}, "adapter": {"rank": 3}}
    monkeypatch.setattr(Tiny, "defaults", defaults)


@pytest.mark.usefixtures("_recommended")
def test_a_scenario_recommends_settings_and_the_runs_own_win(tmp_path: Path) -> None:
    read = RunSettings.from_flat({"scenario.name": SCENARIO, "training.steps": 9})
    assert (read.training.steps, read.training.batch_size, read.adapter.rank) == (9, 8, 3)
    assert read.training.learning_rate == RunSettings().training.learning_rate
    assert _round_trip(read, tmp_path) == read
    assert RunSettings.from_flat({}) == RunSettings()


@pytest.mark.usefixtures("_recommended")
def test_a_recommendation_does_not_hide_a_mistake() -> None:
    with pytest.raises(SettingsError, match="setting 'training':"):
        RunSettings.from_mapping({"scenario": {"name": SCENARIO}, "training": 5})
    with pytest.raises(SettingsError, match=r"setting 'training\.stops': there is no such"):
        RunSettings.from_flat({"scenario.name": SCENARIO, "training.stops": 5})


@pytest.mark.parametrize("name", ["nowhere", "no_module:Class", "", "json:Nothing"])
def test_a_scenario_that_is_not_there(name: str) -> None:
    with pytest.raises(SettingsError, match=r"there is no scenario"):
        RunSettings.from_mapping({"scenario": {"name": name}})


# What follows from them


def test_the_recipe_table_follows_from_the_settings() -> None:
    def kinds(**certificate: Any) -> list[tuple[int, str]]:
        table = recipe_table(RunSettings.from_mapping({"certificate": certificate}))
        return [(start, recipe.kind) for start, recipe in table.rows]

    assert kinds() == [(1, "union"), (64, "split")]
    assert kinds(recipe="steel", split_from=10) == [(1, "steel"), (10, "split")]
    assert kinds(split_from=1) == [(1, "split")]
    assert kinds(recipe="split") == [(1, "split")]
    assert kinds(recipe="default", candidates=1000) == [(1, "default"), (64, "split")]
    recipe = recipe_table(RunSettings.from_mapping({"certificate": {"delta": 0.1}}))
    assert {r.delta for _, r in recipe.rows} == {0.1}
    assert {r.first_share for _, r in recipe.rows} == {0.99}


def test_bounds_are_randomized_if_the_settings_say_so() -> None:
    def table(**certificate: Any) -> RecipeTable:
        return recipe_table(RunSettings.from_mapping({"certificate": certificate}))

    assert [recipe.randomized for _, recipe in table().rows] == [False, False]
    assert [recipe.randomized for _, recipe in table(randomized=True).rows] == [True, True]
    with pytest.raises(SettingsError, match=r"kind 'steel' cannot be randomized"):
        table(randomized=True, recipe="steel")


def test_projections_are_separated_by_commas() -> None:
    read = RunSettings.from_mapping({"adapter": {"projections": "q_proj, v_proj"}})
    assert read.projections() == ("q_proj", "v_proj")


def test_the_training_section_is_the_librarys_own_type() -> None:
    read = RunSettings.from_mapping({"training": {"steps": 3, "batch_size": 4}})
    assert (read.finetune_settings().steps, read.finetune_settings().batch_size) == (3, 4)


@pytest.mark.parametrize(
    ("upstream", "fewest"), [(0, 20), (128, 20), (26, 20), (20, 15), (6, 5), (5, 4), (2, 4)]
)
def test_a_small_federation_needs_fewer_adapters(upstream: int, fewest: int) -> None:
    assert RunSettings().fewest_adapters(upstream) == fewest
    assert RunSettings.from_flat({"server.min_pool": 12}).fewest_adapters(upstream) == 12
    federated = RunSettings.from_flat({"prior.training": "federated"})
    assert federated.fewest_adapters(upstream) == 20


@pytest.mark.parametrize("simultaneous", [2, 3, 7, 11, 997])
@pytest.mark.parametrize("promises", ["", "gain", "gain, abstention", "gain, reference"])
def test_all_clients_together_have_no_more_than_delta(simultaneous: int, promises: str) -> None:
    certificate = {"simultaneous": simultaneous, "promises": promises}
    _, recipe = recipe_table(RunSettings.from_mapping({"certificate": certificate})).rows[0]
    check_issuable("client", ["a", "b"], recipe)
    total = simultaneous * recipe.total_delta
    assert 0.05 * (1 - 1e-6) < total <= 0.05 * (1 + 1e-12)
    greedy = recipe.with_delta(recipe.delta * 1.001)
    with pytest.raises(CertificateError, match=f"{simultaneous} certificates with delta"):
        check_issuable("client", ["a", "b"], greedy)


@pytest.mark.parametrize("simultaneous", [0, 3, 7])
@pytest.mark.parametrize("points", [("a", "b"), ("a", "b", "c"), tuple("abcdefg")])
@pytest.mark.parametrize("promises", ["", "exit=a", "exit=a@1.5, gain, sets=3"])
def test_all_points_of_all_clients_together_have_no_more_than_delta(
    points: tuple[str, ...], simultaneous: int, promises: str
) -> None:
    certificate = {"simultaneous": simultaneous, "promises": promises}
    certificate |= {"points": ", ".join(points), "point": points[-1]}
    _, recipe = recipe_table(RunSettings.from_mapping({"certificate": certificate})).rows[0]
    for promise in recipe.promises:
        promise.check_delta(recipe.total_delta)
    parts = len(points) * max(1, simultaneous)
    assert 0.05 * (1 - 1e-6) < parts * recipe.total_delta <= 0.05 * (1 + 1e-12)
    assert points_of(recipe.promises).points == points


@pytest.mark.parametrize("scenario", ["table", "named-intents"])
@pytest.mark.parametrize("method", ["prior", "fedavg", "fedp2eft"])
def test_a_recommended_plan_goes_with_every_method(scenario: str, method: str) -> None:
    settings = RunSettings.from_mapping({"scenario": {"name": scenario}, "method": method})
    assert settings.certificate.recipe == "planned"
    assert settings.planned == (method == "prior")


@pytest.mark.parametrize(
    ("method", "option", "value", "wanted"),
    [
        ("fedl2p", "descent_examples", 16.5, "takes a whole number here, not 16.5"),
        ("fedp2eft", "net_rounds", True, "takes a whole number here, not True"),
        ("fedp2eft", "plain", 1, "takes true or false here, not 1"),
        ("fedp2eft", "budget", "half", "takes a number here, not 'half'"),
    ],
)
def test_an_option_of_another_type_is_refused(
    method: str, option: str, value: object, wanted: str
) -> None:
    flat = {"method": method, f"averaging.options.{option}": value}
    with pytest.raises(SettingsError, match=f"'averaging.options.{option}': .* {wanted}"):
        RunSettings.from_flat(flat).method_of()
    RunSettings.from_flat({"method": method, "averaging.options.net_rate": 1}).method_of()
