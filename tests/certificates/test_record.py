"""The record: what is written is what is read, and nothing else is accepted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcert.canonical import canonical_json
from fedcert.certificates import (
    Certificate,
    DefaultRecipe,
    FirstStage,
    HybridRecipe,
    MixedUnionRecipe,
    PosteriorSplitRecipe,
    Recipe,
    SplitRecipe,
    SteelRecipe,
    SwapRecipe,
    UnionRecipe,
    WeightedUnionRecipe,
    verify_record,
)
from fedcert.certificates.wording import FIRST_ASSUMPTIONS
from fedcert.errors import CertificateError
from fedcert.records import LARGEST

from .conftest import KEY, Issuer

BLESSED = Path(__file__).parent / "blessed"

RECIPES = {
    "union": UnionRecipe(candidates=20_000, delta=0.05),
    "steel": SteelRecipe(candidates=20_000, delta=0.05),
    "split": SplitRecipe(candidates=20_000, delta=0.045000000000000005),
    "posterior_split": PosteriorSplitRecipe(candidates=20_000, delta=0.05, finalists=2),
    "hybrid": HybridRecipe(candidates=20_000, delta=0.05, choose_fraction=0.1),
    "weighted_union": WeightedUnionRecipe(candidates=20_000, delta=0.05),
    "swap": SwapRecipe(candidates=20_000, delta=0.05, choose_fraction=0.25),
    "mixed_union": MixedUnionRecipe(candidates=20_000, delta=0.05, constants=3, share=0.9),
    "default": DefaultRecipe(candidates=1, delta=0.05),
    "finalists": PosteriorSplitRecipe(
        candidates=20_000,
        delta=0.05,
        finalists=3,
        refinement="posterior_mean+finetune+local_head",
        pull=0.1,
    ),
}
FIRST = [name for name in RECIPES if name not in ("swap", "default", "finalists")]
"""Those that there were when certificates had their first words."""
STAGE = FirstStage(errors=1, profile=(0, 3, 97, 900, 19_000, 0, 0, 0, 0))
PARTICULARS: dict[str, dict[str, Any]] = {
    "posterior_split": {"index": 1},
    "hybrid": {"first_stage": STAGE},
    "default": {"index": 0},
    "finalists": {"index": 2},
    # The second part's choice, certified on the first 20 of 80.
    "swap": {"index": 20_000 + 1234, "certified_on": 20},
}
"""What else is issued with a recipe of that kind."""
each_recipe = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())


@each_recipe
def test_it_survives_a_round_trip(make: Issuer, recipe: Recipe, tmp_path: Path) -> None:
    certificate = make(recipe, **PARTICULARS.get(recipe.kind, {}))
    path = tmp_path / "certificates" / "one.json"
    certificate.write(path)
    assert Certificate.read(path) == certificate
    assert Certificate.from_json(certificate.to_json()) == certificate
    assert Certificate.from_json(certificate.to_json().encode()) == certificate
    assert verify_record(Certificate.read(path)).passed


def test_the_layout_of_the_text_is_free(make: Issuer) -> None:
    certificate = make()
    compact = canonical_json(certificate.to_object())
    assert len(compact) < len(certificate.to_json())
    assert Certificate.from_json(compact) == certificate


def test_it_is_written_for_people(make: Issuer) -> None:
    text = make(client="Zoë").to_json()
    assert json.loads(text)["client"] == "Zoë"
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert '\n  "client": "Zoë",\n' in text
    assert text.endswith("}\n")


def test_numbers_that_happen_to_be_whole_survive(make: Issuer) -> None:
    certificate = make(errors=80)
    assert certificate.bound == 1.0
    assert Certificate.from_json(canonical_json(certificate.to_object())) == certificate


def test_the_vector_survives_bit_by_bit(make: Issuer) -> None:
    vector = np.array([0.1, -0.0, 5e-324, 1.7976931348623157e308])
    read = Certificate.from_json(make(vector=vector).to_json()).adapter_vector
    assert read.dtype == np.float64
    assert read.tobytes() == vector.tobytes()


def test_chance(make: Issuer) -> None:
    certificate = make(labels=["no", "yes"])
    assert certificate.chance == 0.5
    assert certificate.nonvacuous
    assert not make(labels=["no", "yes"], errors=40).nonvacuous


def test_the_payload_leaves_out_the_value_of_the_signature_alone(make: Issuer) -> None:
    certificate = make()
    payload = json.loads(certificate.payload())
    payload["signature"]["value"] = certificate.signature.value
    assert payload == certificate.to_object()


@pytest.mark.parametrize("name", FIRST)
def test_certificates_of_the_first_version_verify(name: str) -> None:
    assert verify_record(Certificate.read(BLESSED / f"{name}.json")).passed


@pytest.mark.parametrize("name", RECIPES)
def test_certificates_of_earlier_versions_verify(name: str) -> None:
    assert verify_record(Certificate.read(BLESSED / "second-words" / f"{name}.json")).passed


@pytest.mark.parametrize("name", FIRST)
def test_the_first_version_had_other_assumptions_and_nothing_else(name: str) -> None:
    first, second = (
        Certificate.read(folder / f"{name}.json").to_object()
        for folder in (BLESSED, BLESSED / "second-words")
    )
    assert first.pop("assumptions") == list(FIRST_ASSUMPTIONS)
    assert second.pop("assumptions") != list(FIRST_ASSUMPTIONS)
    for each in (first, second):
        del each["signature"]["value"], each["library"]
    assert first == second


@pytest.mark.parametrize("name", RECIPES)
def test_the_record_has_not_changed_but_for_an_assumption(make: Issuer, name: str) -> None:
    blessed = Certificate.read(BLESSED / "second-words" / f"{name}.json")
    made = make(RECIPES[name], **PARTICULARS.get(name, {}))
    assert set(made.assumptions) - set(blessed.assumptions) == {
        "How many examples there are was fixed beforehand, without regard to their labels."
    }
    again = replace(made, library=blessed.library, assumptions=blessed.assumptions)
    assert again.payload() == blessed.payload()


def _set(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        target: Any = content
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value

    return change


def _drop(*path: str | int) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        target: Any = content
        for key in path[:-1]:
            target = target[key]
        del target[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("format", value="fedcert.certificate/2"), r"format is '.*/2'; this version"),
        (_drop("format"), r"certificate\.format is missing"),
        (_drop("errors"), r"certificate\.errors is missing"),
        (_set("note", value="hi"), r"certificate\.note is not a known field"),
        (_set("client", value=""), r"certificate\.client must be text, not ''"),
        (_set("client", value=7), r"certificate\.client must be text, not 7"),
        (_set("client", value="\ud800"), r"certificate\.client holds half of a surrogate"),
        (_set("errors", value="3"), r"certificate\.errors must be an integer, not '3'"),
        (_set("errors", value=3.5), r"certificate\.errors must be an integer, not 3\.5"),
        (_set("errors", value=True), r"certificate\.errors must be an integer, not True"),
        (_set("errors", value=-1), r"certificate\.errors must be from 0 to"),
        (_set("support_size", value=2**53), r"certificate\.support_size must be from 0 to"),
        (_set("bound", value=None), r"certificate\.bound must be a number, not None"),
        (_set("bound", value=False), r"certificate\.bound must be a number, not False"),
        (_set("bound", value=10**400), r"certificate\.bound must be a finite number"),
        (_set("delta", value=[]), r"certificate\.delta must be a number, not \[\]"),
        (_set("recipe", value="union"), r"certificate\.recipe: a recipe must be an object"),
        (_set("recipe", "luck", value=1), r"certificate\.recipe: .* has no luck"),
        (_drop("recipe", "delta"), r"certificate\.recipe: .* also needs delta"),
        (
            _drop("recipe", "margin_tolerance"),
            r"certificate\.recipe leaves out an argument",
        ),
        (_set("ledger", value={}), r"certificate\.ledger must be an array, not \{\}"),
        (_set("ledger", 0, value=[]), r"certificate\.ledger\[0\] must be an object"),
        (_drop("ledger", 0, "delta"), r"certificate\.ledger\[0\]\.delta is missing"),
        (_set("labels", 1, value=2), r"certificate\.labels\[1\] must be text, not 2"),
        (_set("labels", 1, value="alarm"), r"certificate\.labels must name two or more"),
        (_set("labels", value=["one"]), r"certificate\.labels must name two or more"),
        (_set("candidate", value=None), r"certificate\.candidate must be an object"),
        (_set("candidate", "seed", value="AB" * 32), r"candidate\.seed must be 64 lower"),
        (_set("candidate", "vector", value="*"), r"candidate\.vector must be base64"),
        (_set("candidate", "vector", value="é"), r"candidate\.vector must be base64"),
        (_set("candidate", "vector", value="AAAA"), r"vector must hold a whole number"),
        (_set("candidate", "vector", value="AAAAAAAA8H8="), r"vector must be finite"),
        (_set("digests", "prior", value="b3"), r"certificate\.digests\.prior must be 64"),
        (_set("digests", "salt", value="b3"), r"certificate\.digests\.salt is not a known"),
        (_set("witness", value=""), r"certificate\.witness must be text, not ''"),
        (_set("assumptions", value="none"), r"certificate\.assumptions must be an array"),
        (_set("signature", "algorithm", value="none"), r"algorithm must be 'ed25519'"),
        (_set("signature", "public_key", value=""), r"signature\.public_key must be 64"),
        (_set("signature", "value", value="00"), r"signature\.value must be 128 lower"),
    ],
)
def test_a_wrong_field_is_named(
    make: Issuer, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    content = json.loads(make().to_json())
    change(content)
    with pytest.raises(CertificateError, match=message):
        Certificate.from_json(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("first_stage", value=None), r"certificate\.first_stage must be an object"),
        (_set("first_stage", "mean", value=1), r"first_stage\.mean is not a known field"),
        (_drop("first_stage", "errors"), r"first_stage\.errors is missing"),
        (_set("first_stage", "errors", value=-1), r"first_stage\.errors must be from 0"),
        (_set("first_stage", "profile", value=7), r"first_stage\.profile must be an array"),
        (_set("first_stage", "profile", 1, value=1.5), r"profile\[1\] must be an integer"),
        (_set("first_stage", "profile", 1, value=2**53), r"profile\[1\] must be from 0"),
    ],
)
def test_a_wrong_first_stage_is_named(
    make: Issuer, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    content = json.loads(make(RECIPES["hybrid"], first_stage=STAGE).to_json())
    change(content)
    with pytest.raises(CertificateError, match=message):
        Certificate.from_json(json.dumps(content))


def test_a_hybrid_needs_its_first_stage(make: Issuer) -> None:
    with pytest.raises(CertificateError, match="its first stage, which is missing"):
        make(RECIPES["hybrid"])


@pytest.mark.parametrize("key", sorted(json.loads((BLESSED / "union.json").read_text())))
def test_no_field_can_be_left_out(make: Issuer, key: str) -> None:
    content = json.loads(make().to_json())
    del content[key]
    with pytest.raises(CertificateError, match=rf"certificate\.{key} is missing"):
        Certificate.from_json(json.dumps(content))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"errors": 3', '"errors": 3, "errors": 3', "the key 'errors' appears twice"),
        ('"delta": 0.05', '"delta": NaN', "NaN is not a number that JSON knows"),
        ('"delta": 0.05', '"delta": -Infinity', "-Infinity is not a number"),
        ('"delta": 0.05', '"delta": 1e999', "the number 1e999 is not finite"),
        ('"delta": 0.05', '"delta": 0.050', "the number 0.050 should be written 0.05"),
        ('"errors": 3', f'"errors": {"3" * 5000}', "the certificate is damaged"),
    ],
)
def test_ambiguous_json_is_refused(make: Issuer, old: str, new: str, message: str) -> None:
    text = make().to_json()
    assert old in text
    with pytest.raises(CertificateError, match=message):
        Certificate.from_json(text.replace(old, new))


@pytest.mark.parametrize("keep", [0, 1, 100, -3])
def test_a_torn_file_is_damaged(make: Issuer, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "one.json"
    path.write_text(make().to_json()[:keep])
    with pytest.raises(
        CertificateError, match=r"the certificate .*one\.json is damaged: it is not JSON"
    ):
        Certificate.read(path)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 100_000, "{'a': 1}"])
def test_other_content_is_damaged(content: bytes | str) -> None:
    with pytest.raises(CertificateError, match="the certificate is damaged"):
        Certificate.from_json(content)


@pytest.mark.parametrize("content", ["[]", "null", "7", '"certificate"'])
def test_other_json_is_not_a_certificate(content: str) -> None:
    with pytest.raises(CertificateError, match="certificate must be an object"):
        Certificate.from_json(content)


def test_a_file_that_no_certificate_fills_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(LARGEST + 1)  # nothing but a hole: it takes no space on the disk
    with pytest.raises(CertificateError, match=r"huge\.json has more than [0-9,]+ bytes"):
        Certificate.read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match=r"none\.json: No such file"):
        Certificate.read(tmp_path / "none.json")


@each_recipe
def test_a_changed_digit_is_detected_wherever_it_stands(make: Issuer, recipe: Recipe) -> None:
    text = canonical_json(make(recipe, **PARTICULARS.get(recipe.kind, {})).to_object()).decode()
    positions = [i for i, character in enumerate(text) if character in "0123456789"]
    assert len(positions) > 400
    for i in positions:
        digit = (int(text[i]) + 1) % 10
        assert not _accepted(f"{text[:i]}{digit}{text[i + 1 :]}"), text[i - 30 : i + 10]


def _accepted(text: str) -> bool:
    try:
        return verify_record(Certificate.from_json(text)).passed
    except CertificateError:
        return False


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"errors": 81}, "81 errors on 80 examples cannot be"),
        ({"certified_on": 79}, "of 80 examples the recipe certifies on 80, but the record"),
        ({"index": 20_000}, "there is no candidate 20000 among 20000"),
        ({"index": -1}, "there is no candidate -1 among 20000"),
        ({"first_stage": STAGE}, "of kind 'union' do not depend on a first stage"),
        ({"client": ""}, r"certificate\.client must be text"),
        ({"labels": []}, "there must be two or more labels, not 0"),
        ({"labels": ["a", "a"]}, "two or more distinct labels"),
        ({"seed": "00"}, r"certificate\.candidate\.seed must be 64"),
        ({"vector": np.zeros((2, 2))}, r"has shape \(d,\), not \(2, 2\)"),
        ({"vector": np.zeros(0)}, r"has shape \(d,\), not \(0,\)"),
        ({"vector": np.array([np.nan])}, "an adapter vector must be finite"),
    ],
)
def test_nothing_is_issued_that_would_not_verify(
    make: Issuer, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(CertificateError, match=message):
        make(**changes)


def test_counts_may_come_from_numpy(make: Issuer) -> None:
    counts: dict[str, Any] = {
        "errors": np.int64(3),
        "index": np.int32(5),
        "support_size": np.int64(80),
    }
    assert make(**counts, key=KEY).errors == 3


def test_an_unwitnessed_certificate_says_so(make: Issuer) -> None:
    assert make().statement.endswith(
        "This certificate is unwitnessed: nothing outside this device shows that the seed "
        "and the examples were not tried several times."
    )


@pytest.mark.parametrize(
    ("delta", "confidence"),
    [
        (0.05, "0.95"),
        (0.045000000000000005, "0.954999999999999995"),
        (1e-30, f"0.{'9' * 30}"),
    ],
)
def test_the_confidence_is_not_rounded_up(make: Issuer, delta: float, confidence: str) -> None:
    statement = make(UnionRecipe(candidates=2_000, delta=delta)).statement
    assert statement.startswith(f"With probability at least {confidence} over the draw")


def test_a_bound_at_chance_says_so(make: Issuer) -> None:
    statement = make(labels=["no", "yes"], errors=40).statement
    assert "wrong with probability 1/2, so the bound says no more than chance." in statement
