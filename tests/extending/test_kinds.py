"""What strangers send names kinds, and never makes this process run their code."""

from __future__ import annotations

import hashlib
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict

from extending.blocks import blocks, command
from extending.conftest import Forget
from fedcert.certificates import Certificate, Recipe, RecipeTable, verify_record
from fedcert.certificates.recipes import UnionRecipe, register
from fedcert.clients.client_app import node_here
from fedcert.data.kinds import input_spec_from_config
from fedcert.errors import BundleError, FedcertError, SettingsError
from fedcert.extensions import import_extensions
from fedcert.priors import PRIORS, GaussianPrior, prior_from_parts, register_prior
from fedcert.settings import RunSettings
from fedcert.settings.recipes import recipe_table

SENTINEL = "import pathlib; pathlib.Path({place!r}).write_text('ran')\nclass Evil: pass\n"
NAMES = ["evil", "evil:Evil", "evil.Evil", "evil/Evil", "../evil", "builtins:eval", "os:system"]


@pytest.fixture
def ran(tmp_path: Path, forget: Forget, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a module on the import path that leaves a file behind if it is ever imported."""
    sentinel = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(SENTINEL.format(place=str(sentinel)))
    monkeypatch.syspath_prepend(tmp_path)
    return sentinel


def _never_ran(sentinel: Path) -> None:
    assert not sentinel.exists()
    assert "evil" not in sys.modules


@pytest.mark.parametrize("name", NAMES)
def test_a_kind_is_never_imported(name: str, ran: Path) -> None:
    for attempt in (
        lambda: prior_from_parts(name, {}, {}),
        lambda: Recipe.from_config({"kind": name, "candidates": 1, "delta": 0.05}),
        lambda: RecipeTable.from_config([{"from": 1, "recipe": {"kind": name}}]),
        lambda: input_spec_from_config({"kind": name}),
    ):
        with pytest.raises(FedcertError, match="unknown"):
            attempt()
    _never_ran(ran)


@pytest.mark.parametrize("name", NAMES)
def test_neither_bundle_nor_certificate_gets_code_imported(
    name: str,
    ran: Path,
    gradients_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    manifest = json.loads((gradients_run / "bundle" / "bundle.json").read_text())
    tensors = (gradients_run / "bundle" / "bundle.safetensors").read_bytes()
    certificate = gradients_run / "clients" / "new-0" / "certificate.json"
    for change in _manifests(manifest, name):
        files = {
            "bundle.json": json.dumps(change).encode(),
            "bundle.safetensors": tensors,
        }
        # Whoever forges a bundle can add up its files as well.
        sums = [f"{hashlib.sha256(files[file]).hexdigest()}  {file}\n" for file in files]
        files["bundle.sha256"] = "".join(sums).encode()
        for file, content in files.items():
            (bundle / file).write_bytes(content)
        arguments = ("verify", certificate, "--bundle", bundle)
        assert command(*arguments, monkeypatch=monkeypatch) == 1
        shown = capfd.readouterr().err
        assert "unknown" in shown or "is not a known field" in shown
    record = json.loads(certificate.read_text())
    record["recipe"]["kind"] = name
    forged = tmp_path / "certificate.json"
    forged.write_text(json.dumps(record))
    assert command("verify", forged, monkeypatch=monkeypatch) == 1
    _never_ran(ran)


def _manifests(manifest: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return manifests that name a module wherever a kind is named."""
    recipes = json.loads(json.dumps(manifest["recipes"]))
    recipes[0]["recipe"]["kind"] = name
    return [
        manifest | {"prior": manifest["prior"] | {"kind": name}, "imports": "evil"},
        manifest | {"recipes": recipes},
        manifest | {"inputs": manifest["inputs"] | {"kind": name}},
    ]


def test_the_module_above_would_have_left_its_mark(ran: Path) -> None:
    import_extensions(["evil"])
    assert ran.read_text() == "ran"


def _module(folder: Path, name: str, text: str) -> str:
    (folder / f"{name}.py").write_text(text)
    return name


TAKEN = """
from dataclasses import dataclass
from fedcert.certificates import UnionRecipe
from fedcert.certificates.recipes import register

@register
@dataclass(frozen=True, kw_only=True)
class Free(UnionRecipe):
    def weight(self, choice=None):
        return 2**53
"""


def test_fedcerts_own_kinds_cannot_be_replaced(
    tmp_path: Path, forget: Forget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    name = _module(tmp_path, "impostor", TAKEN)
    with pytest.raises(SettingsError, match="impostor cannot be imported: ValueError: two rec"):
        import_extensions([name])
    assert type(Recipe.from_config({"kind": "union", "candidates": 2, "delta": 0.1})) is (
        UnionRecipe
    )
    disguised = type("UnionRecipe", (UnionRecipe,), dict(vars(UnionRecipe)))
    assert disguised.__module__ == UnionRecipe.__module__
    with pytest.raises(ValueError, match="two recipes call themselves 'union'"):
        register(disguised)
    for kind in ("gaussian", "interpolated"):
        impostor = type("Impostor", (GaussianPrior,), {"kind": kind})
        with pytest.raises(ValueError, match=f"two priors call themselves '{kind}'"):
            register_prior(impostor)
    assert PRIORS["gaussian"] is GaussianPrior


@pytest.mark.parametrize("kind", ["", "a:b", "os.path", "Upper", "a b", 3, "x" * 65, None])
def test_a_kind_must_be_a_plain_word(kind: Any, forget: Forget) -> None:
    impostor = type("Mine", (GaussianPrior,), {"kind": kind})
    with pytest.raises(ValueError, match="needs a kind of lower-case letters"):
        register_prior(impostor)


def test_an_incomplete_class_is_refused(forget: Forget) -> None:
    incomplete = type("Half", (Recipe,), {"kind": "half"})
    with pytest.raises(ValueError, match="Half must be a frozen dataclass"):
        register(incomplete)
    text = "the prior Half lacks config, dimension, fit, from_parts, noise_width, "
    from fedcert.priors import Prior

    with pytest.raises(ValueError, match=text):
        register_prior(type("Half", (Prior,), {"kind": "half"}))


def test_a_class_that_is_defined_anew_takes_its_place(forget: Forget) -> None:
    first, again = (type("Mine", (GaussianPrior,), {"kind": "mine"}) for _ in range(2))
    register_prior(first)
    register_prior(again)
    assert PRIORS["mine"] is again


def test_the_same_kind_with_another_meaning_does_not_verify(
    desk: Path, recipe_run: Path, forget: Forget, tmp_path: Path
) -> None:
    forget()
    text = blocks("extending.md", "file")["fixed_split.py"]
    changed = text.replace("return WEIGHT_DENOMINATOR", "return WEIGHT_DENOMINATOR // 2")
    (tmp_path / "fixed_split.py").write_text(changed)
    sys.path.insert(0, str(tmp_path))
    import_extensions(["fixed_split"])
    record = Certificate.read(recipe_run / "clients" / "new-0" / "certificate.json")
    assert "bound" in {check.name for check in verify_record(record).failures}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("no_such_module", "there is no module no_such_module on the import path"),
        ("os.no_such", "there is no module os.no_such"),
        ("1up", "'1up' is not the name of a module"),
        ("a b", "'a b' is not the name of a module"),
        ("broken", "the module broken cannot be imported: ZeroDivisionError: division by zero"),
        ("needy", "the module needy needs the package 'nowhere_to_be_found'; install it"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named(
    name: str, text: str, tmp_path: Path, forget: Forget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    _module(tmp_path, "broken", "1 / 0")
    _module(tmp_path, "needy", "import nowhere_to_be_found")
    with pytest.raises(SettingsError, match=text):
        RunSettings.from_flat({"imports": name})


def test_settings_import_before_they_look_kinds_up(desk: Path, forget: Forget) -> None:
    own = {"imports": "student_prior, fixed_split", "prior.kind": "student"}
    with pytest.raises(SettingsError, match=r"'prior\.kind': there is no such prior"):
        RunSettings.from_flat({"prior.kind": "student"})
    settings = RunSettings.from_flat({**own, "certificate.recipe": "fixed_split"})
    assert recipe_table(settings).recipe_for(40).kind == "fixed_split"
    (desk / "own.toml").write_text(settings.to_toml())
    forget()
    assert RunSettings.read(desk / "own.toml") == settings


def test_a_process_that_gets_settings_ready_made_imports_too(
    desk: Path, forget: Forget
) -> None:
    # Ray's workers get them pickled.
    settings = RunSettings.from_flat(
        {"scenario.name": "gradients:Gradients", "imports": "student_prior"}
    )
    pickled = pickle.dumps(settings)
    forget()
    assert "student" not in PRIORS
    context = Context(1, 1, {"partition-id": 0, "num-partitions": 16}, RecordDict(), {})
    node_here(context, pickle.loads(pickled), desk / "run")
    assert "student" in PRIORS


def test_a_bundle_error_is_what_library_users_catch(
    ran: Path, gradients_run: Path, tmp_path: Path
) -> None:
    from fedcert.bundles import Bundle

    manifest = json.loads((gradients_run / "bundle" / "bundle.json").read_text())
    manifest["prior"]["kind"] = "somebodys"
    loaded = Bundle.load(gradients_run / "bundle")
    with pytest.raises(BundleError, match="cannot be used here: unknown prior 'somebodys'"):
        Bundle.from_parts(json.dumps(manifest).encode(), loaded.tensors())
