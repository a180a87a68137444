"""The examples of docs/extending.md and docs/baselines.md, as written there."""

from __future__ import annotations

import importlib
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flwr.common.config import validate_config
from tiny_models import Family

from extending.blocks import blocks, command, run_commands, unnamed
from extending.conftest import Forget
from fedcert.adapters import FinetuneSettings
from fedcert.bundles import Bundle
from fedcert.certificates import Certificate, binomial_upper_bound, verify_record
from fedcert.errors import CertificateError, PriorError
from fedcert.extensions import import_extensions
from fedcert.priors import GaussianPrior, prior_from_parts
from fedcert.simulations.benchmarks.comparison import Upstream
from fedcert.verification import check_bundle

PAGE = "extending.md"
FILES = blocks(PAGE, "file")
COMMANDS = blocks(PAGE, "run")
SEED = "0123456789abcdef" * 4


def test_nothing_on_the_page_goes_untested() -> None:
    assert unnamed(PAGE, "python") == unnamed(PAGE, "sh") == []
    assert set(FILES) == {
        "gradients.py",
        "student_prior.py",
        "fixed_split.py",
        "check_recipe.py",
        "my_server.py",
        "run_my_server.py",
    }
    assert set(COMMANDS) == {"app", "scenario", "prior", "recipe"}


def test_the_app_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_commands(COMMANDS["app"], monkeypatch)
    assert (tmp_path / "my-app" / "my_app" / "server_app.py").is_file()


def test_the_examples_are_clean(page_folder: Path) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ruff", "check", "--no-cache"),
            *("--config", str(root / "pyproject.toml"), "--ignore", "D102"),
            # To whoever writes them, fedcert is a package like any other.
            *("--config", "lint.isort.known-first-party=[]"),
            *sorted(path.name for path in page_folder.glob("*.py")),
        ],
        cwd=page_folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_scenario_runs(gradients_run: Path) -> None:
    results = json.loads((gradients_run / "results.json").read_text())
    assert results["failures"] == []
    assert [row["verified"] for row in results["clients"]] == [True, True]
    assert all(row["bound"] < results["chance"] for row in results["clients"])


def test_strangers_are_told_that_they_lack_a_prior(
    student_run: Path,
    desk: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    certificate = student_run / "clients/new-0/certificate.json"
    check = ("verify", certificate, "--bundle", student_run / "bundle")
    assert command(*check, monkeypatch=monkeypatch) == 1
    said = capfd.readouterr().err
    assert "the bundle cannot be used here: unknown prior 'student'" in said
    assert "--import MODULE" in said
    assert "student_prior" not in sys.modules
    # What needs no prior still works: the record alone.
    assert command("verify", certificate, monkeypatch=monkeypatch) == 0
    assert command("--import", "student_prior", *check, monkeypatch=monkeypatch) == 0
    bundle = Bundle.load(student_run / "bundle")
    assert (bundle.prior.kind, bundle.prior.config()) == ("student", {"freedom": 5})


@pytest.mark.usefixtures("desk")
def test_the_prior_keeps_the_contract_of_priors() -> None:
    student = importlib.import_module("student_prior").StudentPrior
    pool = np.random.default_rng(0).normal(size=(40, 6)) * np.arange(1, 7)
    prior = student.fit(pool, seed=0)
    draws = prior.sample(SEED, count=4000)
    assert draws.shape == (4000, 6)
    chunks = [prior.sample(SEED, start=start, count=500) for start in range(0, 4000, 500)]
    np.testing.assert_allclose(np.concatenate(chunks), draws, rtol=0, atol=1e-12)
    # Standard latents in every direction, with heavier tails than a Gaussian's.
    latents = prior._latent.encode(draws)
    assert np.abs(latents.std(axis=0) - 1).max() < 0.15
    assert (np.abs(latents) > 4).mean() > 1e-3
    assert prior_from_parts("student", prior.config(), prior.tensors()).digest == prior.digest
    config = prior.config() | {"freedom": 10**12}
    with pytest.raises(PriorError, match="damaged: freedom must be from 3 to 100"):
        prior_from_parts("student", config, prior.tensors())


def test_strangers_are_told_that_they_lack_a_recipe(
    recipe_run: Path,
    desk: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = recipe_run / "clients/new-0/certificate.json"
    assert command("verify", path, monkeypatch=monkeypatch) == 1
    assert "unknown recipe kind 'fixed_split'" in capfd.readouterr().err
    with pytest.raises(CertificateError, match="--import MODULE, if you trust it"):
        Certificate.read(path)
    assert "fixed_split" not in sys.modules
    assert command("--import", "fixed_split", "verify", path, monkeypatch=monkeypatch) == 0
    certificate = Certificate.read(path)
    assert certificate.recipe.kind == "fixed_split"
    assert certificate.certified_on == 40 - 16


@pytest.mark.parametrize(
    ("honest", "cheating"),
    [
        ("return Span(self.choosing(n).stop, n)", "return Span(0, n)"),
        ("min(self.choose_on, n // 2)", "n"),
        ("return WEIGHT_DENOMINATOR", "return 2 * WEIGHT_DENOMINATOR"),
    ],
)
def test_a_recipe_that_cheats_is_found_out(
    honest: str,
    cheating: str,
    tmp_path: Path,
    forget: Forget,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = FILES["fixed_split.py"]
    assert text.count(honest) == 1
    changed = text.replace(honest, cheating)
    if cheating == "n":  # choosing on what certifies: the second span must stay where it was
        changed = changed.replace("Span(self.choosing(n).stop, n)", "Span(n // 2, n)")
    (tmp_path / "fixed_split.py").write_text(changed)
    (tmp_path / "check_recipe.py").write_text(FILES["check_recipe.py"])
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises((SystemExit, CertificateError), match=r"promise|budget|weight"):
        runpy.run_path(str(tmp_path / "check_recipe.py"), run_name="__main__")


def test_the_method_of_the_page_on_baselines_learns_and_certifies(
    vit: Family, tmp_path: Path, forget: Forget, monkeypatch: pytest.MonkeyPatch
) -> None:
    (text,) = blocks("baselines.md", "file").values()
    (tmp_path / "nearest.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    model = vit.adapted(rank=2, last_layers=1)
    generator = np.random.default_rng(0)
    pool = generator.normal(size=(9, model.space.dimension))
    pool[4] = pool.mean(axis=0)  # the nearest
    upstream = Upstream(
        model=model,
        clients={},
        pool=pool,
        prior=GaussianPrior.fit(pool, seed=0),
        training=FinetuneSettings(),
        delta=0.05,
        candidates=1,
        steel_candidates=1,
        seed=0,
    )
    (name,) = (path.stem for path in tmp_path.glob("*.py"))
    method = importlib.import_module(name).Nearest
    examples = vit.examples(40)
    np.testing.assert_array_equal(method(upstream=upstream, size=1).learn(examples), pool[4])
    best = method(upstream=upstream)
    found = best.personalize(examples)
    errors = best.score(found.adapters, examples.take(slice(20, None))).wrong.sum()
    assert found.certificate == binomial_upper_bound(int(errors), 20, 0.05)
    # What it learned on, it chose well for: no adapter of the pool has fewer errors there.
    learned_on = examples.take(slice(20))
    counts = best.score(pool, learned_on).wrong.sum(axis=1)
    assert best.score(found.adapters, learned_on).wrong.sum() == counts.min()
    assert best.traffic().new == 16 * 4 * model.space.dimension
    assert best.config() == {
        "method": "nearest to the average",
        "choose_fraction": 0.5,
        "size": 16,
    }


def test_the_strategy_writes_its_journal(desk: Path) -> None:
    runpy.run_path("run_my_server.py", run_name="__main__")
    lines = [json.loads(line) for line in (desk / "journal.jsonl").read_text().splitlines()]
    assert lines[0] == {"round": 1, "pooled": 14, "failed": 0}
    assert lines[-1]["certificates"] == 2
    assert 0 < lines[-1]["mean-certificate"] < 0.5
    assert len(list((desk / "runs/journal/certificates").iterdir())) == 2


def test_flower_finds_the_app_of_the_page_without_importing_it(page_folder: Path) -> None:
    config = {
        "project": {"name": "x", "version": "0.1.0", "description": "x", "license": "x"},
        "tool": {
            "flwr": {
                "app": {
                    "publisher": "x",
                    "components": {"serverapp": "my_server:app", "clientapp": "my_server:app"},
                }
            }
        },
    }
    valid, errors, _ = validate_config(config, check_module=True, project_dir=page_folder)
    assert valid, errors


@pytest.mark.slow
def test_rays_workers_import_what_the_settings_name(desk: Path) -> None:
    """Clients read a bundle there whose prior and recipe are known to who imported them."""
    settings = ["imports=student_prior,fixed_split", "prior.kind=student"]
    settings += ["certificate.recipe=fixed_split", "certificate.split_from=100"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "fedcert.cli", "simulate", "gradients:Gradients", "--json"),
            *("--output", "runs/ray"),
            *(word for setting in settings for word in ("--set", setting)),
        ],
        env=os.environ | {"PYTHONPATH": str(desk)},
        cwd=desk,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["new_clients"] == 2
    import_extensions(["student_prior", "fixed_split"])
    certificate = Certificate.read(desk / "runs/ray/clients/new-1/certificate.json")
    bundle = Bundle.load(desk / "runs/ray/bundle")
    report = verify_record(certificate).extended(check_bundle(certificate, bundle))
    assert report.passed, report.failures
    assert (bundle.prior.kind, certificate.recipe.kind) == ("student", "fixed_split")
