"""Verification: each tampering is found, by the check that is meant for it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_models import Family

from fedcert.adapters import write_peft_adapter
from fedcert.bundles import Bundle
from fedcert.certificates import Certificate, Check, RecipeTable, UnionRecipe, verify_record
from fedcert.certificates.record import encode_vector
from fedcert.data import Examples
from fedcert.errors import AdapterError
from fedcert.personalization import personalize
from fedcert.verification import check_adapter, check_bundle, check_data, verify

from .conftest import KEY, Served, make_bundle, shuffled, with_input, with_label

BUNDLE_CHECKS = {
    *("bundle", "base model", "adapter space", "prior", "labels"),
    *("recipe table", "seed", "candidate"),
}


def _failed(checks: Iterable[Check]) -> set[str]:
    return {check.name for check in checks if not check.passed}


def _named(checks: Iterable[Check], name: str) -> str:
    return next(check.detail for check in checks if check.name == name)


def test_a_true_certificate_verifies(served: Served) -> None:
    bundle, adapter = served.bundle, served.result.adapter
    checks = [
        *verify_record(served.certificate).checks,
        *check_bundle(served.certificate, bundle),
        *check_adapter(served.certificate, bundle, adapter),
        *check_data(
            served.certificate, bundle, served.model.base, adapter, served.examples
        ).checks,
    ]
    assert _failed(checks) == set()
    names = {check.name for check in checks}
    assert names >= BUNDLE_CHECKS | {"adapter", "export", "support set", "error count"}


def test_a_bundle_that_knows_the_base_model_by_its_weights_still_serves(
    served: Served, vit: Family, tmp_path: Path
) -> None:
    """As bundles did before the digest covered the configuration; the note says so."""
    weights = vit.base.weights
    older = replace(
        served.bundle,
        base_digest=weights,
        space=replace(served.bundle.space, base_digest=weights),
    )
    older.save(tmp_path / "bundle")
    bundle = Bundle.load(tmp_path / "bundle")
    base = bundle.load_base(str(vit.folder))
    model = bundle.task(base).model()
    result = personalize(
        bundle, model, served.examples, client="c-1", key=KEY, folder=tmp_path / "out"
    )
    checks = [
        *verify_record(result.certificate).checks,
        *check_bundle(result.certificate, bundle),
        *check_adapter(result.certificate, bundle, result.adapter),
        *check_data(result.certificate, bundle, base, result.adapter, served.examples).checks,
    ]
    assert _failed(checks) == set()
    assert result.certificate.digests.base_model == weights
    assert any("does not cover the configuration" in check.detail for check in checks)


def test_it_verifies_from_files_alone(served: Served, vit: Family, tmp_path: Path) -> None:
    served.bundle.save(tmp_path / "bundle")
    bundle = Bundle.load(tmp_path / "bundle")
    adapter = served.result.adapter
    certificate = Certificate.read(adapter.parent / "certificate.json")
    base = bundle.load_base(str(vit.folder))
    listed = shuffled(served.examples, 5)
    assert _failed(check_bundle(certificate, bundle)) == set()
    assert _failed(check_adapter(certificate, bundle, adapter)) == set()
    assert _failed(check_data(certificate, bundle, base, adapter, listed).checks) == set()


def _candidate(certificate: Certificate, **changes: Any) -> Certificate:
    return replace(certificate, candidate=replace(certificate.candidate, **changes))


def _digests(certificate: Certificate, **changes: str) -> Certificate:
    return replace(certificate, digests=replace(certificate.digests, **changes))


def _moved(certificate: Certificate, by: float) -> Certificate:
    vector = certificate.adapter_vector
    vector[3] += by
    return _candidate(certificate, vector=encode_vector(vector))


def _other_index(certificate: Certificate) -> Certificate:
    return _candidate(certificate, index=(certificate.candidate.index + 1) % 64)


OTHER_RECIPE = UnionRecipe(candidates=63, delta=0.05)


@pytest.mark.parametrize(
    ("tamper", "failed", "text"),
    [
        (_other_index, {"candidate"}, "the adapter is not candidate"),
        (lambda c: _moved(c, 1e-5), {"candidate"}, "is not candidate .*difference 1.0e-05"),
        (
            lambda c: _candidate(c, vector=encode_vector(np.ones(41))),
            {"candidate"},
            "another length",
        ),
        (
            lambda c: _candidate(c, seed="ab" * 32),
            {"seed"},
            "does not follow from bundle, client and n: it was chosen",
        ),
        (lambda c: replace(c, client="c-2"), {"seed"}, "it was chosen"),
        (lambda c: replace(c, recipe=OTHER_RECIPE), {"recipe table"}, "another recipe"),
        (lambda c: replace(c, labels=("no", "yes")), {"labels"}, "another labels"),
        (lambda c: _digests(c, bundle="0" * 64), {"bundle"}, "names another bundle"),
        (lambda c: _digests(c, base_model="0" * 64), {"base model"}, "another base model"),
        (lambda c: _digests(c, space="0" * 64), {"adapter space"}, "another adapter space"),
        (lambda c: _digests(c, prior="0" * 64), {"prior"}, "another prior"),
    ],
)
def test_a_tampered_certificate_does_not_fit_the_bundle(
    served: Served, tamper: Callable[[Certificate], Certificate], failed: set[str], text: str
) -> None:
    tampered = tamper(served.certificate)
    checks = check_bundle(tampered, served.bundle)
    assert _failed(checks) == failed
    (name,) = failed
    assert re.search(text, _named(checks, name))
    # Nor does it keep its signature.
    assert "signature" in _failed(verify_record(tampered).checks)


def test_rounding_on_another_machine_is_no_tampering(served: Served) -> None:
    assert _failed(check_bundle(_moved(served.certificate, 9e-7), served.bundle)) == set()


def test_another_size_changes_recipe_and_seed(served: Served) -> None:
    size = 64 - served.certificate.support_size  # of the other recipe
    tampered = replace(served.certificate, support_size=size)
    assert _failed(check_bundle(tampered, served.bundle)) == {"recipe table", "seed"}


def test_another_bundle_is_found(served: Served, vit: Family) -> None:
    """A server that fits its prior again has another bundle, and other seeds."""
    checks = check_bundle(served.certificate, make_bundle(vit, seed=1))
    assert _failed(checks) == {"bundle", "prior", "seed"}
    table = RecipeTable(((1, OTHER_RECIPE),))
    checks = check_bundle(served.certificate, make_bundle(vit, recipes=table))
    assert _failed(checks) == {"bundle", "recipe table", "seed"}


def _export(served: Served, folder: Path, vector: np.ndarray) -> Path:
    write_peft_adapter(served.bundle.space, vector, folder / "adapter", base_name="vit")
    return folder / "adapter"


def _described(served: Served, folder: Path, **changes: Any) -> Path:
    """Copy the adapter folder, and change what it says of itself."""
    shutil.copytree(served.result.adapter, folder)
    about = json.loads((folder / "classifier.json").read_text()) | changes
    (folder / "classifier.json").write_text(json.dumps(about))
    return folder


@pytest.mark.parametrize("labels", [["mine", "other"], ["other", "yours"], ["other"]])
def test_other_labels_beside_the_adapter_are_found(
    served: Served, labels: list[str], tmp_path: Path
) -> None:
    """With swapped names the certified tensors predict what they were never certified for."""
    folder = _described(served, tmp_path / "a", labels=labels)
    checks = check_adapter(served.certificate, served.bundle, folder)
    assert _failed(checks) == {"adapter labels"}
    assert f"has the labels {', '.join(labels)}, the certificate other, mine" in _named(
        checks, "adapter labels"
    )


@pytest.mark.parametrize(
    ("mark", "failed"),
    [
        ({"threshold": 0.5}, "adapter threshold"),
        ({"threshold": float("nan")}, "adapter threshold"),
        ({"early_exit": {"adapter": "a0" * 32, "above": 0.0}}, "adapter early exit"),
    ],
    ids=["abstains", "never answers", "lets another answer"],
)
def test_a_folder_that_answers_otherwise_than_is_promised_is_found(
    served: Served, mark: dict[str, Any], failed: str, tmp_path: Path
) -> None:
    """Whoever predicts goes by the folder: what nobody promised must not be in it."""
    folder = _described(served, tmp_path / "a", **mark)
    checks = check_adapter(served.certificate, served.bundle, folder)
    assert _failed(checks) == {failed}


def test_where_the_base_model_of_a_folder_is_open_it_is_said(
    served: Served, tmp_path: Path
) -> None:
    """A digest of another one may be that of an older form, which only the model shows."""
    model = json.loads((served.result.adapter / "classifier.json").read_text())["base_model"]
    other = _described(served, tmp_path / "a", base_model=model | {"digest": "0" * 64})
    for folder, is_open in ((served.result.adapter, False), (other, True)):
        report = verify(served.certificate, bundle=served.bundle, adapter=folder)
        said = {each.name: each.detail for each in report.unchecked}
        assert ("base-model" in said) == is_open
    assert "000000000000" in said["base-model"]


def test_a_folder_that_names_another_base_model_is_found(
    served: Served, tmp_path: Path
) -> None:
    """Whoever predicts with it takes the base model that it names."""
    model = json.loads((served.result.adapter / "classifier.json").read_text())["base_model"]
    folder = _described(served, tmp_path / "a", base_model=model | {"digest": "0" * 64})
    base, examples = served.model.base, served.examples
    checks = check_data(served.certificate, served.bundle, base, folder, examples).checks
    assert _failed(checks) == {"adapter's base model"}


def test_inputs_that_the_folder_encodes_otherwise_are_found(
    served: Served, tmp_path: Path
) -> None:
    inputs = served.bundle.inputs.to_config() | {"high": 255.0}
    folder = _described(served, tmp_path / "a", inputs=inputs)
    checks = check_adapter(served.certificate, served.bundle, folder)
    assert _failed(checks) == {"adapter inputs"}


def test_another_adapter_is_found(served: Served, tmp_path: Path) -> None:
    other = _export(served, tmp_path, served.bundle.prior.sample("0" * 64, count=1)[0])
    checks = check_adapter(served.certificate, served.bundle, other)
    assert _failed(checks) == {"adapter"}
    assert "other tensors than the certified" in _named(checks, "adapter")


def test_a_changed_weight_is_found(served: Served, tmp_path: Path) -> None:
    folder = _export(served, tmp_path, served.certificate.adapter_vector)
    path = folder / "adapter_model.safetensors"
    assert _failed(check_adapter(served.certificate, served.bundle, folder)) == set()
    tensors = load_file(path)
    name = sorted(tensors)[0]
    tensors[name] = np.nextafter(tensors[name], 9)
    save_file(tensors, path)
    assert _failed(check_adapter(served.certificate, served.bundle, folder)) == {"adapter"}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"lora_alpha": 4}, "lora_alpha"),
        ({"target_modules": ["q_proj"]}, "target_modules"),
        ({"modules_to_save": []}, "modules_to_save"),
        ({"use_rslora": True}, "use_rslora"),
    ],
)
def test_other_settings_of_the_same_tensors_are_found(
    served: Served, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    folder = _export(served, tmp_path, served.certificate.adapter_vector)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    checks = check_adapter(served.certificate, served.bundle, folder)
    assert _failed(checks) == {"adapter settings"}
    assert named in _named(checks, "adapter settings")


def test_an_adapter_of_another_vector_is_found(served: Served, tmp_path: Path) -> None:
    """Folder and digest agree, but the candidate is another one."""
    moved = _moved(served.certificate, 0.5)
    checks = check_adapter(moved, served.bundle, served.result.adapter)
    assert _failed(checks) == {"export"}
    folder = tmp_path / "adapter"
    digest = write_peft_adapter(
        served.bundle.space, moved.adapter_vector, folder, base_name="vit"
    )
    whole = _digests(moved, adapter=digest)
    assert _failed(check_adapter(whole, served.bundle, folder)) == set()
    assert _failed(check_bundle(whole, served.bundle)) == {"candidate"}


def test_a_missing_adapter_is_an_error(served: Served, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="this is not an adapter folder"):
        check_adapter(served.certificate, served.bundle, tmp_path)


def _check_data(
    served: Served, examples: Examples, certificate: Certificate
) -> tuple[Check, ...]:
    return check_data(
        certificate, served.bundle, served.model.base, served.result.adapter, examples
    ).checks


@pytest.mark.parametrize(
    "change",
    [
        lambda e: with_input(e, 3, 1.25),
        lambda e: with_label(e, 0),
        lambda e: e.take(range(1, len(e))),
        lambda e: e.take([*range(len(e)), 0]),
        lambda e: e.take([1, *range(1, len(e))]),
    ],
    ids=["pixel", "label", "dropped", "repeated", "replaced"],
)
def test_other_data_are_found(served: Served, change: Callable[[Examples], Examples]) -> None:
    checks = _check_data(served, change(served.examples), served.certificate)
    assert _failed(checks) == {"support set"}
    assert "not the examples that the certificate was made" in _named(checks, "support set")


@pytest.mark.parametrize("by", [-1, 1])
def test_a_wrong_error_count_is_found(served: Served, by: int) -> None:
    true = served.certificate.errors
    assert true > 0
    wrong = replace(served.certificate, errors=true + by)
    checks = _check_data(served, served.examples, wrong)
    assert _failed(checks) == {"error count"}
    assert f"counted {true} errors" in _named(checks, "error count")
    assert f"the certificate says {true + by} on" in _named(checks, "error count")


def test_fewer_certifying_examples_are_found(served: Served) -> None:
    wrong = replace(served.certificate, certified_on=served.certificate.certified_on - 1)
    assert _failed(_check_data(served, served.examples, wrong)) == {"error count"}


def test_errors_are_counted_with_the_folder_that_is_shown(
    served: Served, tmp_path: Path
) -> None:
    """A worse adapter in its place shows in the count."""
    worse = _export(served, tmp_path, -served.certificate.adapter_vector)
    checks = check_data(
        served.certificate, served.bundle, served.model.base, worse, served.examples
    ).checks
    assert _failed(checks) == {"error count"}
