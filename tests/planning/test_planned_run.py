"""A federation whose recipes are planned: who plans, what comes of it, who is not believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from simulations.federation import (
    CLIENTS,
    NEW,
    SCENARIO,
    UPSTREAM,
    Federation,
    tiny_settings,
)

from fedcert.adapters import FinetuneSettings
from fedcert.bundles import Bundle
from fedcert.certificates import Certificate, PosteriorSplitRecipe, Recipe, verify_record
from fedcert.clients.client_app import make_client_app
from fedcert.clients.node import node_of
from fedcert.data.inputs import ImageInputs
from fedcert.errors import BundleError, SettingsError
from fedcert.messages import MANIFEST, PLAN, REPLY, TRAIN
from fedcert.messages.flower import arrays_of, content, payload_of
from fedcert.planning import menu, recipe_name
from fedcert.runs.events import Events
from fedcert.runs.progress import Viewer
from fedcert.scenarios import load_scenario
from fedcert.search.drawing import NO_CONSTANTS
from fedcert.settings import RunSettings
from fedcert.simulations.simulating import simulate
from fedcert.strategies import planning
from fedcert.strategies.planning import Planning, planning_of
from fedcert.strategies.run import Run
from fedcert.strategies.serving import ServedRun, serve
from fedcert.verification import check_adapter, check_bundle, check_data

Rows = list[dict[str, Any]]
Menu = tuple[Recipe, ...]


def _settings(**changes: Any) -> RunSettings:
    return tiny_settings(certificate__recipe="planned", **changes)


@pytest.fixture(autouse=True)
def small_menu(monkeypatch: pytest.MonkeyPatch) -> Menu:
    """Replace the menu by the union and a quick posterior split.

    Which of them wins, two planning clients decide between near-equal means: nothing here
    depends on it.
    """
    union = menu(candidates=50, delta=0.05)[0]
    posterior = PosteriorSplitRecipe(
        candidates=50,
        delta=0.05,
        first_share=union.first_share,
        choose_fraction=0.25,
        chains=8,
        steps=8,
    )
    recipes = (union, posterior)
    monkeypatch.setattr(planning, "menu", lambda **_: recipes)
    return recipes


@pytest.fixture
def planned(tmp_path: Path) -> Federation:
    return Federation(tmp_path / "run", _settings())


@pytest.fixture(scope="module")
def planners() -> list[str]:
    """The clients that plan in every run here: the seed is the same."""
    chosen = planning.planning_of(
        _settings(),
        NO_CONSTANTS,
        local_head=True,
        posterior="mean",
        training=_settings().finetune_settings(),
        barred=(),
    )
    assert chosen is not None
    return sorted(chosen.clients_among(CLIENTS[:UPSTREAM], pooled=(), must_train=10))


class _Told(Viewer):
    def __init__(self) -> None:
        self.said: list[str] = []
        self.phases: list[tuple[str, int | None, int]] = []

    def on_phase(self, name: str, total: int | None) -> None:
        self.phases.append((name, total, 0))

    def on_progress(self, done: int, total: int | None) -> None:
        self.phases[-1] = self.phases[-1][0], total, done

    def on_note(self, text: str) -> None:
        self.said.append(text)


def _serve(federation: Federation, told: _Told | None = None) -> ServedRun:
    events = Events(told or _Told())
    return serve(federation.grid, federation.settings, output=federation.output, events=events)


# A run without trouble


def test_certificates_have_the_plans_recipe_and_verify(
    tmp_path: Path, small_menu: Menu, planners: list[str]
) -> None:
    settings = _settings(evaluation__baselines=False)
    run = simulate(settings, output=tmp_path / "run", runner="inprocess")
    bundle = Bundle.load(run.output / "bundle")
    assert bundle.plan is not None
    assert [(row.n, row.clients) for row in bundle.plan.rows] == [(16, 2), (32, 2)]
    assert bundle.recipes == bundle.plan.table()
    base = bundle.load_base(str(run.output / "base-model"))
    for client in CLIENTS[UPSTREAM:]:
        folder = run.output / "clients" / client
        certificate = Certificate.read(folder / "certificate.json")
        prescribed = bundle.plan.expected(32).recipe
        assert prescribed in small_menu
        assert certificate.recipe.with_delta(0.05) == prescribed
        examples = load_scenario(SCENARIO, {}).support_examples(client, 32)
        report = verify_record(certificate).extended(
            [
                *check_bundle(certificate, bundle),
                *check_adapter(certificate, bundle, folder / "adapter"),
                *check_data(certificate, bundle, base, folder / "adapter", examples).checks,
            ]
        )
        assert report.passed, report.failures
    shown = run.results["plan"]
    assert [(row["n"], row["recipe"]) for row in shown] == [
        (row.n, recipe_name(row.recipe)) for row in bundle.plan.rows
    ]
    page = (run.output / "report.html").read_text(encoding="utf-8")
    assert "What was planned" in page
    assert f"32 examples: {recipe_name(bundle.plan.expected(32).recipe)}" in page
    assert run.results["failures"] == []
    assert run.results["prior"]["pool_size"] == UPSTREAM - len(planners)


def test_planning_clients_train_nothing_and_spend_their_examples(
    planned: Federation, planners: list[str]
) -> None:
    told = _Told()
    outcome = _serve(planned, told)
    assert outcome.strategy.planners == {*planners}
    assert len(planners) == 2
    pooled = {entry.client for entry in planned.pool().entries()}
    assert pooled == {*CLIENTS[:UPSTREAM]} - {*planners}
    asked = planned.clients.asked
    assert [client for kind, client in asked if kind == PLAN] == planners
    assert {client for kind, client in asked if kind == TRAIN} == pooled
    assert told.phases[-3:] == [
        ("fit the prior", None, 0),
        ("plan the recipes", 2, 2),
        ("certify new clients", NEW, NEW),
    ]
    for client in planners:
        context = planned.grid._contexts[100 + CLIENTS.index(client)]
        node = node_of(context, planned.settings, planned.output)
        examples = node.scenario.training_examples(client)
        assert node.state().spent.purposes(examples) == ["planning"] * len(examples)


def test_the_plan_is_part_of_the_bundle_and_of_its_digest(
    planned: Federation, small_menu: Menu, tmp_path: Path
) -> None:
    bundle = _serve(planned).strategy.bundle
    assert bundle is not None
    assert bundle.plan is not None
    loaded = Bundle.load(planned.output / "bundle")
    assert (loaded.plan, loaded.digest) == (bundle.plan, bundle.digest)
    row = bundle.plan.rows[0]
    other = replace(bundle.plan, rows=(replace(row, clients=9), *bundle.plan.rows[1:]))
    assert other.table() == bundle.recipes
    assert replace(bundle, plan=other).digest != bundle.digest
    assert replace(bundle, plan=None).digest != bundle.digest
    # A table that is not the plan's, though both are in order.
    swapped = bundle.with_plan(
        replace(other, rows=tuple(replace(r, recipe=small_menu[0]) for r in other.rows))
    )
    replace(bundle, recipes=swapped.recipes).save(tmp_path / "swapped")
    with pytest.raises(BundleError, match="its recipes are not those of its plan"):
        Bundle.load(tmp_path / "swapped")
    manifest = bundle.manifest() | {"plan": []}
    with pytest.raises(BundleError, match="the plan in the bundle is damaged"):
        Bundle.from_parts(json.dumps(manifest).encode(), bundle.tensors())


def test_a_run_that_goes_on_has_the_same_planners_and_plan(
    planned: Federation, planners: list[str]
) -> None:
    def stop(_message: Message) -> RecordDict:
        raise KeyboardInterrupt

    planned.on(TRAIN, next(c for c in CLIENTS[6:] if c not in planners), stop)
    with pytest.raises(KeyboardInterrupt):
        _serve(planned)
    assert 0 < len(planned.pool()) < 12
    again = _serve(Federation(planned.output, planned.settings)).strategy
    assert again.planners == {*planners}
    whole = _serve(Federation(planned.output.parent / "whole", planned.settings)).strategy
    assert again.bundle is not None
    assert whole.bundle is not None
    assert again.bundle.digest == whole.bundle.digest


@pytest.mark.parametrize(("kind", "tried"), [("text", "mode"), ("image", "mean")])
def test_where_candidates_take_long_modes_are_tried(
    kind: str, tried: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No tiny scenario has texts without names; what is read is not looked at here.
    monkeypatch.setattr(ImageInputs, "kind", kind)
    asked: list[object] = []

    def asking(*args: Any, posterior: object, **terms: Any) -> Planning | None:
        asked.append(posterior)
        return planning_of(*args, posterior=posterior, **terms)

    monkeypatch.setattr("fedcert.strategies.run.planning_of", asking)
    run = Run.of(_settings(), output=tmp_path / "run")
    run.pooling("PooledPrior")
    assert asked == [tried]


def test_an_explicit_recipe_wins(tmp_path: Path) -> None:
    settings = tiny_settings(certificate__recipe="steel", planning__clients=0.3)
    federation = Federation(tmp_path / "run", settings)
    outcome = _serve(federation)
    assert outcome.strategy.planners == frozenset()
    assert federation.clients.count()[PLAN] == 0
    assert outcome.strategy.bundle is not None
    assert outcome.strategy.bundle.plan is None
    assert "plan" not in outcome.strategy.bundle.manifest()
    assert {c.recipe.kind for c in outcome.strategy.certificates.values()} == {"steel"}


# Clients that fail or lie


def _dies(_message: Message) -> RecordDict:
    raise OSError(28, "No space left on device")


def test_a_planning_client_that_fails_is_done_without(
    planned: Federation, planners: list[str]
) -> None:
    planned.on(PLAN, planners[0], _dies)
    strategy = _serve(planned).strategy
    assert [(f.client, f.phase) for f in strategy.failures] == [(planners[0], "planning")]
    assert strategy.bundle is not None
    assert strategy.bundle.plan is not None
    assert {row.clients for row in strategy.bundle.plan.rows} == {1}
    assert len(strategy.certificates) == NEW


def test_without_any_plan_the_settings_recipes_serve(
    planned: Federation, planners: list[str]
) -> None:
    for client in planners:
        planned.on(PLAN, client, _dies)
    told = _Told()
    strategy = _serve(planned, told).strategy
    assert [(f.client, f.phase) for f in strategy.failures] == [
        (client, "planning") for client in planners
    ]
    assert strategy.bundle is not None
    assert strategy.bundle.plan is None
    assert [recipe.kind for _, recipe in strategy.bundle.recipes.rows] == ["union", "split"]
    assert told.said == [
        "WARNING: no client planned (see planning.clients), so the recipe table of the "
        "settings stays"
    ]
    assert len(strategy.certificates) == NEW


def _lying(federation: Federation, client: str, change: Callable[[Rows], object]) -> None:
    """Let a planning client change its own honest answer, raw JSON and all."""
    honest = make_client_app(federation.settings, federation.output)
    context = federation.grid._contexts[100 + CLIENTS.index(client)]

    def handler(message: Message) -> RecordDict:
        words = payload_of(honest(message, context).content, REPLY)
        text = json.dumps({"replays": change(words["replays"])})
        return RecordDict({REPLY: ConfigRecord({"json": text})})

    federation.on(PLAN, client, handler)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda rows: [{**row, "bound": 0} for row in rows], "the bound must be from"),
        (lambda rows: [{**row, "bound": float("nan")} for row in rows], "must be finite"),
        (lambda rows: [{**row, "recipe": 2} for row in rows], "recipe must be from 0 to 1"),
        (lambda rows: rows[:1], "not each recipe once"),
    ],
)
def test_an_answer_that_cannot_be_honest_has_no_say(
    planned: Federation, planners: list[str], change: Callable[[Rows], object], cause: str
) -> None:
    _lying(planned, planners[0], change)
    strategy = _serve(planned).strategy
    [failure] = strategy.failures
    assert (failure.client, failure.phase) == (planners[0], "planning")
    assert cause in failure.cause
    assert strategy.bundle is not None
    assert strategy.bundle.plan is not None
    assert {row.clients for row in strategy.bundle.plan.rows} == {1}


def test_a_new_client_does_not_plan(planned: Federation, planners: list[str]) -> None:
    """A server that asked one would spend the examples that are to certify."""
    seen: list[Message] = []

    def keep(message: Message) -> RecordDict:
        seen.append(message)
        raise OSError

    planned.on(PLAN, planners[0], keep)
    _serve(planned)
    context = planned.grid._contexts[100 + UPSTREAM]
    reply = make_client_app(planned.settings, planned.output)(seen[0], context)
    words = payload_of(reply.content, REPLY)
    assert "only upstream clients plan" in words["failed"]


def test_sizes_beyond_a_clients_examples_are_an_error_of_that_client(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "run", _settings(planning__sizes="64,128"))
    strategy = _serve(federation).strategy
    assert {f.cause for f in strategy.failures} == {
        "its 48 examples are fewer than any size to plan for"
    }
    assert strategy.bundle is not None
    assert strategy.bundle.plan is None


def test_the_question_holds_the_bundle_that_will_be_published_but_for_its_recipes(
    planned: Federation, planners: list[str]
) -> None:
    seen: list[Bundle] = []

    def look(message: Message) -> RecordDict:
        manifest = payload_of(message.content, MANIFEST)["bundle"]
        seen.append(Bundle.from_parts(manifest.encode(), arrays_of(message.content)))
        return content({"failed": "seen enough"}, key=REPLY)

    planned.on(PLAN, planners[0], look)
    bundle = _serve(planned).strategy.bundle
    assert bundle is not None
    assert bundle.plan is not None
    assert seen[0].with_plan(bundle.plan).digest == bundle.digest


# Who plans


def _planning(share: float = 0.25, seed: int = 0) -> Planning:
    return Planning(share=share, sizes=(16,), recipes=(), seed=seed)


MANY = [f"client-{i}" for i in range(40)]


def test_the_seed_chooses_the_planning_clients() -> None:
    chosen = _planning().clients_among(MANY, pooled=(), must_train=10)
    assert len(chosen) == 10
    assert chosen == _planning().clients_among(MANY[::-1], pooled=(), must_train=10)
    assert chosen != _planning(seed=1).clients_among(MANY, pooled=(), must_train=10)
    assert chosen < _planning(0.5).clients_among(MANY, pooled=(), must_train=10)


def test_who_would_rather_plan_comes_first() -> None:
    by_seed = _planning().clients_among(MANY, pooled=(), must_train=10)
    willing = [client for client in MANY if client not in by_seed][:4]

    def chosen(**more: Any) -> frozenset[str]:
        return _planning().clients_among(
            MANY, **({"pooled": (), "must_train": 10, "willing": willing} | more)
        )

    assert chosen() > {*willing}
    assert len(chosen()) == 10
    assert chosen() - {*willing} < by_seed
    # Nobody plans who has trained, and no more plan than are to.
    assert willing[0] not in chosen(pooled=willing[:1])
    assert len(chosen(willing=MANY)) == 10


def test_a_scenario_says_who_plans(
    planned: Federation, planners: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    willing = [client for client in CLIENTS[:UPSTREAM] if client not in planners][:2]
    scenario = planned.settings.scenario
    kind = type(load_scenario(scenario.name, scenario.options))
    monkeypatch.setattr(kind, "planning_clients", tuple(willing))
    outcome = _serve(planned)
    assert outcome.strategy.planners == {*willing}
    roster = outcome.strategy.roster(planned.grid)
    assert not outcome.strategy.planners & outcome.strategy.source.clients(roster)


def test_a_client_in_the_pool_never_plans() -> None:
    chosen = _planning().clients_among(MANY, pooled=(), must_train=10)
    others = [client for client in MANY if client not in chosen]
    assert _planning().clients_among(MANY, pooled=others, must_train=10) == chosen
    assert _planning().clients_among(MANY, pooled=others[:7], must_train=10) == chosen
    assert not _planning().clients_among(MANY, pooled=MANY, must_train=10)


@pytest.mark.parametrize(("must_train", "planning"), [(30, 10), (31, 9), (40, 0), (50, 0)])
def test_as_many_train_as_the_prior_needs(must_train: int, planning: int) -> None:
    chosen = _planning().clients_among(MANY, pooled=(), must_train=must_train)
    assert len(chosen) == planning


# Settings


def test_the_sizes_are_a_list_or_text_or_a_single_one() -> None:
    for given in ("8, 16", [8, 16]):
        read = RunSettings.from_mapping({"planning": {"sizes": given}})
        assert read.planning_sizes() == (8, 16)
    assert RunSettings.read(None, ["planning.sizes=16"]).planning_sizes() == (16,)


@pytest.mark.parametrize("sizes", ["", "16,", "0", "16,16", "32,16", "1.5", "-1", "many", []])
def test_sizes_that_do_not_increase_are_named(sizes: object) -> None:
    with pytest.raises(SettingsError, match=r"'planning\.sizes': give sizes from 1 on in incr"):
        RunSettings.from_mapping({"planning": {"sizes": sizes}})


@pytest.mark.parametrize(
    ("other", "text"),
    [
        ({"privacy": {"epsilon": 1.0}}, "planning clients answer without noise"),
        ({"prior": {"training": "federated"}}, "'planned' does not go with prior.training"),
    ],
)
def test_what_a_plan_does_not_go_with(other: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        RunSettings.from_mapping({"certificate": {"recipe": "planned"}, **other})
    assert not RunSettings.from_mapping({"certificate": {"recipe": "union"}, **other}).planned


def test_planning_clients_can_be_limited() -> None:
    limited = Planning(share=0.15, sizes=(16,), recipes=(), seed=0, most=3)
    chosen = limited.clients_among(MANY, pooled=(), must_train=10)
    assert len(chosen) == 3
    free = Planning(share=0.15, sizes=(16,), recipes=(), seed=0)
    assert chosen < free.clients_among(MANY, pooled=(), must_train=10)


def test_where_heads_are_trained_alone_nothing_is_tuned_below_them() -> None:
    alone = FinetuneSettings(head_only=True)
    names = {recipe_name(r) for r in menu(candidates=9, delta=0.05, local_head=True)}
    fewer = {
        recipe_name(r) for r in menu(candidates=9, delta=0.05, local_head=True, training=alone)
    }
    assert {name.split()[0] for name in names - fewer} == {
        "finetune",
        "posterior_mean+finetune",
        "finetune+tuned_head",
    }
    assert "local_head 0.5" in fewer
