"""Every method, launched as a user does: run, report, certificate, and verification."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models.tiny_encoders import save_encoder
from simulations.federation import CLIENTS, UPSTREAM, tiny_settings

from fedcert.bundles import Bundle
from fedcert.certificates import Certificate, PosteriorSplitRecipe
from fedcert.errors import SettingsError
from fedcert.methods import METHODS
from fedcert.models import with_label_names
from fedcert.reports.results import read_results
from fedcert.scenarios import load_scenario
from fedcert.search import BatchedScorer
from fedcert.search.session import SupportSession
from fedcert.settings import RunSettings
from fedcert.settings.recipes import method_recipes
from fedcert.simulations.simulating import Simulation, simulate
from fedcert.verification import verify

pytestmark = pytest.mark.filterwarnings("ignore:the labels")

# A base model with a head of its own is no zero-shot classifier.
TRAINED = [kind for kind in METHODS if kind != "zero-shot"]


def quick(method: str, **changes: Any) -> RunSettings:
    """Return settings of a run of a method that takes a second."""
    few: dict[str, Any] = {
        "averaging__rounds": 2,
        "averaging__clients": 5,
        "averaging__steps": 3,
        "averaging__head_steps": 3,
        "personal__steps": 4,
        "averaging__options": {"net_rounds": 2} if method in {"fedp2eft", "fedl2p"} else {},
    }
    return tiny_settings(method=method, **few | changes)


def _named(folder: Path, method: str, **changes: Any) -> RunSettings:
    """Return settings whose clients have labels of their own, by name."""
    source = save_encoder(folder / "source", "bert")
    base = with_label_names(source, folder / "base", pooling="mean")
    scenario = {
        "scenario__name": "tiny_names:TinyNames",
        "scenario__options__base": str(base),
    }
    return quick(method, **scenario, **changes)


def _check(simulation: Simulation, settings: RunSettings) -> None:
    """Look at what any run leaves behind, and verify its certificates with all there is."""
    results = read_results(simulation.results)
    assert results.method == settings.method
    assert not results.failures
    assert (simulation.output / "report.html").is_file()
    bundle = Bundle.load(simulation.output / "bundle")
    scenario = load_scenario(settings.scenario.name, settings.scenario.options)
    for client in scenario.new_clients:
        folder = simulation.output / "clients" / client
        certificate = Certificate.read(folder / "certificate.json")
        assert certificate.protocol is not None  # committed before the seed came
        found = verify(
            certificate,
            bundle=bundle,
            adapter=folder / "adapter",
            data=scenario.support_examples(client, 32),
            base=bundle.load_base(str(scenario.base_model())),
        )
        assert found.passed, found.reasons
        if certificate.recipe.kind == "default":
            assert certificate.certified_on == 32
            np.testing.assert_array_equal(certificate.adapter_vector, bundle.prior.center())


@pytest.mark.parametrize("method", TRAINED)
def test_every_method_is_a_run_that_ends_in_certificates(tmp_path: Path, method: str) -> None:
    settings = quick(method)
    simulation = simulate(settings, output=tmp_path / "run", runner="inprocess")
    _check(simulation, settings)
    assert read_results(simulation.results).clients[0].elsewhere_error is not None
    asked = [c for c in CLIENTS[:UPSTREAM] if (tmp_path / "run" / "clients" / c).is_dir()]
    assert bool(asked) == (METHODS[method].asks != "nothing")


@pytest.mark.parametrize("method", ["zero-shot", "local", "fedrep", "mr-mtl", "fedp2eft"])
def test_methods_serve_clients_with_labels_of_their_own(tmp_path: Path, method: str) -> None:
    settings = _named(tmp_path, method)
    _check(simulate(settings, output=tmp_path / "run", runner="inprocess"), settings)


@pytest.mark.parametrize("plain", [False, True])
def test_a_codebook_competes_at_its_price_and_is_verified(tmp_path: Path, plain: bool) -> None:
    options = {"net_rounds": 2, "codes": 3, "plain": plain}
    settings = quick("fedp2eft", averaging__options=options)
    simulation = simulate(settings, output=tmp_path / "run", runner="inprocess")
    _check(simulation, settings)  # verification makes the finalists again
    certificate = Certificate.read(
        simulation.output / "clients" / CLIENTS[-1] / "certificate.json"
    )
    recipe = certificate.recipe
    assert isinstance(recipe, PosteriorSplitRecipe)
    assert recipe.finalists == 3 + plain
    alone = replace(recipe, refinement="learned", finalists=1)
    assert certificate.bound > alone.bound(certificate.errors, certificate.certified_on)


@pytest.mark.slow
@pytest.mark.parametrize("method", TRAINED)
def test_ray_gives_what_this_process_gives(tmp_path: Path, method: str) -> None:
    # On a busy machine Ray's workers take minutes to begin; who misses the roll call is drawn
    # for no round, and then the runs differ.
    settings = quick(method, server__timeout=600.0)
    here, ray = (
        simulate(settings, output=tmp_path / runner, runner=runner)
        for runner in ("inprocess", "ray")
    )
    for simulation in (here, ray):
        _check(simulation, settings)  # nobody was lost, which would explain a difference
    _same_up_to_rounding(here, ray)


def _same_up_to_rounding(one: Simulation, other: Simulation) -> None:
    """Compare what two runs published and certified.

    Two processes may add in another order, and Adam divides by a gradient's size: centers may
    differ by a thousandth of an ordinary entry, and an answer that nearly was the other one.
    """
    centers = [Bundle.load(run.output / "bundle").prior.center() for run in (one, other)]
    scale = max(np.abs(centers[0]).max(), 1e-9)
    np.testing.assert_allclose(centers[1], centers[0], rtol=0, atol=1e-3 * scale)
    for client in CLIENTS[UPSTREAM:]:
        first, second = (
            Certificate.read(run.output / "clients" / client / "certificate.json")
            for run in (one, other)
        )
        assert first.recipe == second.recipe
        assert first.certified_on == second.certified_on
        assert abs(first.errors - second.errors) <= 1


def test_a_method_that_does_not_fit_is_refused_before_anybody_works(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="zero-shot takes a base model whose logits"):
        simulate(quick("zero-shot"), output=tmp_path / "run", runner="inprocess")
    assert not (tmp_path / "run" / "clients").exists()
    with pytest.raises(SettingsError, match=r"did you mean 'fedrep'\?"):
        quick("fedrap")
    with pytest.raises(SettingsError, match="the method ditto adds no noise"):
        quick("ditto", privacy__epsilon=1.0)
    with pytest.raises(SettingsError, match=r"averaging\.options"):
        quick("fedavg", averaging__options={"widht": 3})


@pytest.mark.parametrize("method", ["fedavg-local", "fedp2eft"])
def test_a_tuned_head_competes_with_what_a_method_learns(tmp_path: Path, method: str) -> None:
    settings = _named(tmp_path, method, personal__tuned_head=True)
    simulation = simulate(settings, output=tmp_path / "run", runner="inprocess")
    _check(simulation, settings)
    recipe = Bundle.load(simulation.output / "bundle").recipes.recipe_for(32)
    assert isinstance(recipe, PosteriorSplitRecipe)
    assert recipe.finalists == 2
    assert "tuned_head" in recipe.refinements
    alone = _named(tmp_path, method)
    learned = method_recipes(alone, alone.method_of())
    assert learned is not None
    assert "tuned_head" not in learned.recipe_for(32).refinements  # type: ignore[attr-defined]


def test_a_tuned_head_changes_nothing_where_there_is_one_or_nothing_is_learned() -> None:
    for method in ("fedrep", "fedavg", "zero-shot", "prior"):
        settings = [quick(method, personal__tuned_head=flag) for flag in (False, True)]
        tables = [method_recipes(each, each.method_of()) for each in settings]
        assert tables[0] == tables[1]


def test_the_center_that_is_kept_is_part_of_what_is_certified(tmp_path: Path) -> None:
    settings = quick("fedavg-local", personal__keep=0.75)
    simulation = simulate(settings, output=tmp_path / "run", runner="inprocess")
    _check(simulation, settings)
    bundle = Bundle.load(simulation.output / "bundle")
    kept = bundle.recipes.recipe_for(32)
    assert isinstance(kept, PosteriorSplitRecipe)
    examples = load_scenario(settings.scenario.name, {}).support_examples(CLIENTS[-1], 32)
    base = bundle.load_base(str(simulation.output / "base-model"))
    scorer = BatchedScorer(bundle.task(base).model(), margin_tolerance=1e-4)
    session = SupportSession(kept, bundle.prior, scorer, examples, seed="0" * 64)
    center = bundle.prior.center()
    moved = [
        recipe.refine(session.only(recipe.choosing(32)))[0] - center
        for recipe in (kept, replace(kept, keep=0.0))
    ]
    assert np.abs(moved[1]).max() > 0.01
    np.testing.assert_allclose(moved[0], moved[1] / 4, atol=1e-7)
