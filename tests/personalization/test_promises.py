"""What a certificate promises beside its bound, from the recipe to the adapter folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import Family

from fedcert.adapters.classifier_file import read_classifier
from fedcert.bundles import Bundle
from fedcert.certificates import (
    AbstentionPromise,
    Certificate,
    GainPromise,
    RecipeTable,
    SplitRecipe,
    UnionRecipe,
    verify_record,
)
from fedcert.classifier import NO_ANSWER, load_classifier
from fedcert.personalization import commit_to, personalize
from fedcert.protocol.authority import SeedAuthority
from fedcert.protocol.device import DeviceState
from fedcert.strategies.reporting import promised_rows
from fedcert.verification import verify
from tests.personalization.conftest import KEY, Served, make_bundle, solvable_examples

PROMISES = (AbstentionPromise(share=0.5, most_wrong=0.3), GainPromise(share=0.5))
TERMS = {"candidates": 64, "delta": 0.025, "promises": PROMISES}


@pytest.fixture(scope="module")
def promising(vit: Family) -> Bundle:
    recipes = RecipeTable(((1, UnionRecipe(**TERMS)), (40, SplitRecipe(**TERMS))))
    return make_bundle(vit, recipes=recipes)


@pytest.fixture(scope="module", params=[32, 64], ids=["union", "split"])
def client(
    request: pytest.FixtureRequest,
    vit: Family,
    promising: Bundle,
    tmp_path_factory: pytest.TempPathFactory,
) -> Served:
    model = promising.task(vit.base).model()
    examples = solvable_examples(vit, promising, model, request.param)
    folder = tmp_path_factory.mktemp("promised")
    result = personalize(promising, model, examples, client="c-1", key=KEY, folder=folder)
    return Served(promising, model, examples, result)


def test_every_promise_is_kept_from_record_to_data(vit: Family, client: Served) -> None:
    certificate = client.certificate
    assert [outcome.kind for outcome in certificate.promises] == ["abstention", "gain"]
    assert certificate.delta == pytest.approx(0.05)
    assert sum(entry.delta for entry in certificate.ledger) <= certificate.delta
    again = Certificate.from_json(certificate.to_json())
    assert again == certificate
    report = verify(
        certificate,
        bundle=client.bundle,
        adapter=client.result.adapter,
        data=client.examples,
        base=vit.base,
    )
    assert report.passed, report.reasons
    assert {"promises", "promised counts"} <= {check.name for check in report.checks}


def test_what_is_asked_and_given_stands_in_a_runs_results(client: Served) -> None:
    abstention, gain = client.certificate.promises or ()
    rows = promised_rows(client.certificate)
    assert [row["asked"] for row in rows] == [
        "at most 0.3 wrong among the answered",
        "better than the federation's default adapter",
    ]
    wrong = abstention.planned()["abstention.wrong_at_most"]
    assert rows[0]["given"] == (wrong <= 0.3)
    assert rows[0]["figures"]["wrong at most"] == wrong
    assert rows[1]["given"] == (gain.planned()["gain.at_least"] > 0)


def test_a_stronger_promise_than_the_counts_give_is_found(client: Served) -> None:
    abstention, gain = client.certificate.promises
    for changed in (
        (replace(abstention, answered_at_least=0.99), gain),
        (abstention, replace(gain, at_least=0.5)),
        (abstention, replace(gain, won=gain.won + 1)),
        (gain, abstention),
        (abstention,),
    ):
        forged = replace(client.certificate, promises=changed).signed(KEY)
        assert not verify_record(forged).passed


def test_an_adapter_that_abstains_says_so_below_its_threshold(
    vit: Family, client: Served
) -> None:
    threshold = client.certificate.promises[0].answers_above()
    assert read_classifier(client.result.adapter).threshold == threshold
    if threshold is None:
        pytest.skip("too few answers to promise anything")
    classifier = load_classifier(client.result.adapter, vit.base)
    answers = classifier.predict(client.examples.inputs)
    known = classifier.answered(client.examples.inputs)
    assert [answer != NO_ANSWER for answer in answers] == known.tolist()


def test_a_folder_that_fell_behind_its_certificate_is_made_again(
    vit: Family, promising: Bundle, client: Served, tmp_path: Path
) -> None:
    """After a power cut the folder may be that of an attempt before, with the same tensors."""
    state, authority = DeviceState(tmp_path / "state"), SeedAuthority(tmp_path / "server")
    authority.publish(promising.digest, promising.recipes)
    common = {"client": "c-1", "key": KEY, "state": state}
    grant = authority.issue(commit_to(promising, client.examples, **common))

    def threshold() -> tuple[float | None, float | None]:
        made = personalize(
            promising, client.model, client.examples, folder=tmp_path, grant=grant, **common
        )
        kept = read_classifier(made.adapter)
        assert kept is not None
        return made.certificate.promises[0].answers_above(), kept.threshold

    promised, first = threshold()
    path = tmp_path / "adapter" / "classifier.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"threshold": 0.001}))
    assert (promised, first) == threshold()
    assert promised == first


def test_the_threshold_of_the_folder_is_the_promised_one(
    vit: Family, client: Served, tmp_path: Path
) -> None:
    if client.certificate.promises[0].answers_above() is None:
        pytest.skip("too few answers to promise anything")
    path = client.result.adapter / "classifier.json"
    stored = path.read_text(encoding="utf-8")
    try:
        path.write_text(json.dumps(json.loads(stored) | {"threshold": 0.01}), encoding="utf-8")
        report = verify(
            client.certificate,
            bundle=client.bundle,
            adapter=client.result.adapter,
        )
        assert "adapter threshold" in {check.name for check in report.failures}
    finally:
        path.write_text(stored, encoding="utf-8")
