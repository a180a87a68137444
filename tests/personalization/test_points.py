"""Operating points: certificates at several depths from the same examples, and early exits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from models.tiny_encoders import save_encoder
from tiny_text import tiny_texts

from fedcert.adapters import AdaptedModel, AdapterSpace
from fedcert.bundles import Bundle
from fedcert.certificates import (
    Certificate,
    ExitPromise,
    Ground,
    PointsPromise,
    PosteriorSplitRecipe,
    RecipeTable,
    SplitRecipe,
    UnionRecipe,
    points_of,
    verify_record,
)
from fedcert.certificates.promises import rounded_down
from fedcert.certificates.promises.points import PointsOutcome
from fedcert.certificates.verification import Check, Unchecked, VerificationReport
from fedcert.data import Examples, TextInputs
from fedcert.errors import BundleError, RefusalError
from fedcert.models import load_base_model, with_label_names
from fedcert.personalization import (
    CertifiedPoint,
    Personalization,
    personalize,
    personalize_points,
)
from fedcert.priors import GaussianPrior
from fedcert.protocol.device import DeviceState
from fedcert.randomness import keyed_generator
from fedcert.records.signing import key_from_seed
from fedcert.verification import report, verify

KEY, NAMES = key_from_seed(bytes(32)), ("bad0 bad1", "good3")
DEPTHS = {"shallow": 1, "deep": 0}
POINTS = tuple(DEPTHS)
EXIT = ExitPromise(share=1.0, early="shallow")


@dataclass
class Device:
    """A client's device, with the bundles of a family and the models that belong to them."""

    folder: Path
    points: dict[str, tuple[Bundle, AdaptedModel]]
    examples: Examples

    @property
    def options(self) -> dict[str, Any]:
        state = DeviceState(self.folder / "state")
        return {"client": "c", "key": KEY, "state": state}

    def certified(self, made: dict[str, Personalization]) -> dict[str, CertifiedPoint]:
        return {
            name: CertifiedPoint(
                each.certificate, each.adapter, self.points[name][0], self.points[name][1].base
            )
            for name, each in made.items()
        }


def family(name: str, kind: str, **changes: Any) -> Any:
    """Return the recipe of an operating point."""
    terms: dict[str, Any] = {"points": POINTS, "point": name, "delta": 0.05} | changes
    promise = PointsPromise(**terms)
    delta = rounded_down(Fraction(str(promise.delta)) / len(promise.points))
    exits = (EXIT,) if name == "deep" else ()
    refined = partial(PosteriorSplitRecipe, chains=4, steps=4)
    kinds: dict[str, Any] = {"union": UnionRecipe, "split": SplitRecipe, "refined": refined}
    return kinds[kind](candidates=8, delta=delta / (1 + len(exits)), promises=(*exits, promise))


def make_bundle(folder: Path, name: str, recipe: Any) -> tuple[Bundle, AdaptedModel]:
    source = save_encoder(folder / "source", "bert")
    base = load_base_model(
        str(with_label_names(source, folder / name, pooling="mean", depth=DEPTHS[name]))
    )
    space = AdapterSpace.of(base, rank=2)
    pool = 0.3 * keyed_generator("points", name).standard_normal((20, space.dimension))
    bundle = Bundle(
        base_name=name,
        base_revision="local",
        base_digest=base.digest,
        space=space,
        prior=GaussianPrior.fit(pool, seed=0),
        inputs=TextInputs.of(base.name, max_length=12),
        labels=(),
        recipes=RecipeTable(((1, recipe),)),
        notes={},
    )
    return bundle, bundle.task(base, labels=NAMES).model()


def make_device(folder: Path, kind: str = "split") -> Device:
    texts = tiny_texts(60)
    examples = texts.take(np.unique(texts.inputs, return_index=True)[1])
    points = {name: make_bundle(folder, name, family(name, kind)) for name in POINTS}
    return Device(folder, points, examples)


@pytest.fixture(scope="module", params=["split", "union"])
def device(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Device:
    return make_device(tmp_path_factory.mktemp("points"), request.param)


@pytest.fixture(scope="module")
def made(device: Device) -> dict[str, Personalization]:
    backwards = list(reversed(device.points.values()))
    return personalize_points(
        backwards, device.examples, folder=device.folder / "made", **device.options
    )


def check(
    device: Device, certificate: Certificate, adapter: Path, **options: Any
) -> VerificationReport:
    point = points_of(certificate.recipe.promises)
    assert point is not None
    bundle, model = device.points[point.point]
    return verify(
        certificate,
        bundle=bundle,
        adapter=adapter,
        data=device.examples,
        base=model.base,
        **options,
    )


def test_all_points_are_certified_on_the_same_examples(
    device: Device, made: dict[str, Personalization]
) -> None:
    assert list(made) == ["shallow", "deep"]
    certificates = [each.certificate for each in made.values()]
    assert sum(each.delta for each in certificates) <= 0.05
    for name, each in made.items():
        assert "are true at once" in each.certificate.statement
        assert Certificate.from_json(each.certificate.to_json()) == each.certificate
        report = check(device, each.certificate, each.adapter)
        assert report.passed, report.reasons
        assert (device.folder / "made" / name / "certificate.json").is_file()


def test_the_exit_is_counted_again_with_the_early_point(
    device: Device, made: dict[str, Personalization]
) -> None:
    deep, early = made["deep"], device.certified(made)["shallow"]
    left = {each.name for each in check(device, deep.certificate, deep.adapter).unchecked}
    assert "early" in left
    report = check(device, deep.certificate, deep.adapter, early=early)
    assert report.passed, report.reasons
    assert "early point" in {each.name for each in report.checks}
    assert "early" not in {each.name for each in report.unchecked}


def test_a_stronger_exit_than_the_counts_give_is_found(
    device: Device, made: dict[str, Personalization]
) -> None:
    deep = made["deep"].certificate
    exits, points = deep.promises or ()
    for changed in (
        {"wrong_at_most": 0.01},
        {"goes_on_at_most": 0.01},
        {"early": None},
        {"weight": 1},
        {"wrong": deep.certified_on + 1},
        {"threshold": None},
        {"wrong_at_most": None},
    ):
        forged = replace(deep, promises=(replace(exits, **changed), points)).signed(KEY)
        assert not verify_record(forged).passed, changed


def test_false_counts_of_the_exit_are_found_with_the_data(
    device: Device, made: dict[str, Personalization]
) -> None:
    deep, early = made["deep"], device.certified(made)["shallow"]
    exits, points = deep.certificate.promises or ()
    known: Any = exits
    recipe = deep.certificate.recipe
    n = deep.certificate.support_size
    ground = recipe.ground(recipe.promises[0], deep.certificate.choice, n)
    fewer = replace(known, goes_on=known.goes_on + 1)
    said = recipe.promises[0].bound(fewer, ground)
    forged = replace(deep.certificate, promises=(said, points)).signed(KEY)
    report = check(device, forged, deep.adapter, early=early)
    assert "promised counts" in {each.name for each in report.failures}


def test_an_exit_has_to_hold_with_the_early_adapter_that_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = make_device(tmp_path, "refined")
    made = personalize_points(
        list(device.points.values()),
        device.examples,
        folder=tmp_path / "made",
        **device.options,
    )
    deep, early = made["deep"], device.certified(made)["shallow"]

    def report() -> VerificationReport:
        return check(device, deep.certificate, deep.adapter, early=early)

    assert report().passed, report().reasons
    # As if nothing were made again to rounding, as on another machine.
    monkeypatch.setattr("fedcert.verification.choice.MEMBERSHIP_TOLERANCE", -1.0)
    assert report().passed, report().reasons
    assert "early exit" in {each.name for each in report().checks}
    # As if the early adapter had been tuned, and another were made again: whatever that one
    # answers, not both of these can be as good.
    center, failed = early.bundle.prior.center(), []
    for shift in (-50.0, 50.0):
        monkeypatch.setattr(
            "fedcert.verification.choice._early_vectors",
            lambda *_arguments, by=shift: [center + by],
        )
        failed += [each.name for each in report().failures]
    assert "early exit" in failed
    # Where no exit is promised there is none to count.
    shallow, late = made["shallow"], device.certified(made)["deep"]
    report_without = check(device, shallow.certificate, shallow.adapter, early=late)
    assert report_without.passed, report_without.reasons
    assert "early exit" not in {each.name for each in report_without.checks}


def test_an_early_point_with_another_bundle_fails_and_raises_nothing(
    device: Device, made: dict[str, Personalization]
) -> None:
    deep, early = made["deep"], device.certified(made)["shallow"]
    bundle, model = device.points["deep"]
    mixed = replace(early, bundle=bundle, base=model.base)
    report = check(device, deep.certificate, deep.adapter, early=mixed)
    assert {"early point", "promised counts"} <= {each.name for each in report.failures}


def test_certificates_of_before_keep_their_words_where_they_are_true() -> None:
    def words(delta: float) -> str:
        promise = PointsPromise(points=POINTS, point="deep", delta=delta)
        return promise.words(PointsOutcome(), Ground(budget=0.01, trials=8, chosen_on=8))

    assert "at least 0.983333 the" in words(0.05 / 3)
    # Six digits round this one up.
    assert "at least 0.9991666666666666" in words(0.05 / 60)


def test_a_family_may_be_certified_once_at_each_point(tmp_path: Path) -> None:
    device = make_device(tmp_path)
    again = personalize_points(
        list(device.points.values()),
        device.examples,
        folder=tmp_path / "made",
        **device.options,
    )
    repeated = personalize_points(
        list(device.points.values()),
        device.examples,
        folder=tmp_path / "again",
        **device.options,
    )
    assert [each.certificate for each in again.values()] == [
        each.certificate for each in repeated.values()
    ]
    counts = [each.errors_by_label for each in repeated.values()]
    assert None not in counts
    assert counts == [each.errors_by_label for each in again.values()]
    bundle, model = device.points["shallow"]
    other = replace(bundle, notes={"another": "bundle"})
    with pytest.raises(RefusalError, match="'shallow' already, with another bundle"):
        personalize(other, model, device.examples, folder=tmp_path / "other", **device.options)
    elsewhere = make_bundle(
        tmp_path / "more", "shallow", family("shallow", "split", points=(*POINTS, "int8"))
    )
    with pytest.raises(RefusalError, match="already spent"):
        personalize(*elsewhere, device.examples, folder=tmp_path / "more", **device.options)


def test_bundles_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    device = make_device(tmp_path)
    shallow, deep = device.points.values()
    alone = replace(deep[0], recipes=RecipeTable(((1, SplitRecipe(candidates=8, delta=0.05)),)))
    more = replace(
        deep[0], recipes=RecipeTable(((1, family("deep", "split", points=(*POINTS, "x"))),))
    )
    for points, words in (
        ([shallow, (alone, deep[1])], "is no operating point"),
        ([shallow, (more, deep[1])], "of different families"),
        ([shallow, shallow], "two bundles are the operating point shallow"),
    ):
        with pytest.raises(BundleError, match=words):
            personalize_points(
                points, device.examples, folder=tmp_path / "made", **device.options
            )
    assert not (tmp_path / "made").exists()


def test_without_the_early_point_nothing_is_said_of_an_exit(tmp_path: Path) -> None:
    device = make_device(tmp_path)
    alone = personalize(
        *device.points["deep"], device.examples, folder=tmp_path / "made", **device.options
    )
    exits, _ = alone.certificate.promises or ()
    assert "says nothing" in alone.certificate.statement
    assert exits.to_object() == {"kind": "exit"}
    report = check(device, alone.certificate, alone.adapter)
    assert report.passed, report.reasons
    assert "early" not in {each.name for each in report.unchecked}


def test_an_adapter_that_the_certifying_examples_may_have_chosen_is_not_taken(
    tmp_path: Path,
) -> None:
    device = make_device(tmp_path)
    # Every example chooses at the early point, and half of them certify at the late one.
    early = make_bundle(tmp_path / "early", "shallow", family("shallow", "union"))
    made = personalize_points(
        [early, device.points["deep"]],
        device.examples,
        folder=tmp_path / "made",
        **device.options,
    )
    exits, _ = made["deep"].certificate.promises or ()
    assert exits.to_object() == {"kind": "exit"}


def test_what_an_early_points_own_verification_leaves_open_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the later certificate's verification says as well is not told twice."""
    names = ("choice", "first stage", "refinement", "threshold", "unlabeled", "public-key")
    left = tuple(Unchecked(name, "whether", None) for name in names)
    found = VerificationReport((Check("data", True, ""),), left)
    monkeypatch.setattr(report, "verify", lambda *_, **__: found)
    point = SimpleNamespace(
        certificate=SimpleNamespace(unlabeled=None),
        bundle=None,
        adapter=None,
        base=None,
        name="a",
    )
    told = report._early(cast(CertifiedPoint, point), cast(Examples, None), None).unchecked
    assert [item.name for item in told] == [f"early {name}" for name in names[:-1]]
