"""Clients that choose, tune, or weight on the very examples that certify."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_models import Family

from fedcert.adapters import AdaptedModel
from fedcert.arrays import FloatArray
from fedcert.bundles import Bundle
from fedcert.certificates import (
    AbstentionPromise,
    Certificate,
    Check,
    Choice,
    FirstStage,
    Outcome,
    Recipe,
    RecipeTable,
    VerificationReport,
)
from fedcert.certificates.recipes import HybridRecipe, PosteriorSplitRecipe, SplitRecipe
from fedcert.data import Examples
from fedcert.data.orders import in_drawn_order
from fedcert.errors import CertificateError, SettingsError
from fedcert.personalization import Personalization, personalize
from fedcert.personalization.keeping import kept_of, mark_threshold
from fedcert.priors import GaussianPrior
from fedcert.search import BatchedScorer, Scores, SupportSession
from fedcert.verification import verify
from personalization.conftest import CANDIDATES, KEY, issued, make_bundle, solvable_examples

SPLIT = SplitRecipe(candidates=CANDIDATES, delta=0.05)
HYBRID = HybridRecipe(candidates=CANDIDATES, delta=0.05)
REFINED = PosteriorSplitRecipe(candidates=CANDIDATES, delta=0.05, chains=8, steps=10)
N = 48


class Client:
    """One client and what it does honestly, for each recipe in turn."""

    def __init__(
        self,
        family: Family,
        model: AdaptedModel,
        recipe: Recipe,
        folder: Path,
        *,
        name: str = "c",
    ) -> None:
        self.recipe, self.model, self.folder = recipe, model, folder
        self.bundle: Bundle = make_bundle(family, recipes=RecipeTable(((1, recipe),)))
        self.examples: Examples = solvable_examples(family, self.bundle, model, N)
        self.honest: Personalization = personalize(
            self.bundle,
            model,
            self.examples,
            client=name,
            key=KEY,
            folder=folder / "honest",
        )
        self.certificate: Certificate = self.honest.certificate
        self.seed = self.certificate.candidate.seed
        self.ordered = in_drawn_order(self.examples, self.seed)

    def scores(self, vectors: FloatArray, rows: slice = slice(None)) -> Scores:
        tolerance = self.recipe.margin_tolerance
        scorer = BatchedScorer(self.model, margin_tolerance=tolerance)
        return scorer.score(vectors, self.ordered.take(rows))

    def session(self) -> SupportSession:
        scorer = BatchedScorer(self.model, margin_tolerance=self.recipe.margin_tolerance)
        return SupportSession(
            self.recipe, self.bundle.prior, scorer, self.ordered, seed=self.seed
        )

    def forge(self, vector: FloatArray, **changes: object) -> Certificate:
        return issued(
            self.bundle, self.model, self.examples, self.certificate, vector, self.folder,
            **changes,
        )  # fmt: skip

    def verify(self, certificate: Certificate, *, data: bool = True) -> VerificationReport:
        folder = self.folder / (
            "forged" if certificate != self.certificate else "honest/adapter"
        )
        return verify(
            certificate,
            bundle=self.bundle,
            adapter=folder,
            data=self.examples if data else None,
            base=self.model.base,
        )


def failed(report: VerificationReport) -> list[str]:
    return [check.name for check in report.checks if not check.passed]


def open_ends(report: VerificationReport) -> set[str]:
    return {item.name for item in report.unchecked}


def who_can_cheat(vit: Family, model: AdaptedModel, folder: Path) -> tuple[Client, int]:
    """Return a client whose split's certifying examples prefer another candidate, and which.

    It is clearly worse on the choosing examples. Whose certifying examples do, and by how
    much, another machine may see otherwise.
    """
    for number in range(20):
        client = Client(vit, model, SPLIT, folder / str(number), name=f"c{number}")
        wrong = client.scores(client.bundle.prior.sample(client.seed, count=CANDIDATES)).wrong
        chosen_on, certified_on = (
            wrong[:, span(N).as_slice()].sum(axis=1)
            for span in (SPLIT.choosing, SPLIT.certifying)
        )
        own, best = client.certificate.candidate.index, int(certified_on.argmin())
        if chosen_on[best] >= chosen_on[own] + 2 and certified_on[best] < certified_on[own]:
            return client, best
    raise AssertionError("nobody's certifying examples prefer a candidate that is worse else")


def test_a_split_that_chose_on_its_certifying_examples(
    vit: Family, model: AdaptedModel, tmp_path: Path
) -> None:
    client, best = who_can_cheat(vit, model, tmp_path)
    assert failed(client.verify(client.certificate)) == []
    drawn = client.bundle.prior.sample(client.seed, count=CANDIDATES)
    forged = client.forge(drawn[best], index=best)
    assert forged.bound <= client.certificate.bound
    report = client.verify(forged)
    assert failed(report) == ["choice"]
    assert "the recipe chooses that one" in report.failures[0].detail
    # Without the data nothing shows it, and verification says so.
    blind = client.verify(forged, data=False)
    assert blind.passed
    assert open_ends(blind) >= {"choice", "data"}
    assert "choice" not in open_ends(report)


def who_can_pick(
    vit: Family, model: AdaptedModel, recipe: Recipe, folder: Path, *, lower: bool = True
) -> tuple[Client, int]:
    """Return a client with a near-equal choice that certifies a lower bound, and which.

    Otherwise with one whose bound no other choice has above it.
    """
    for number in range(20):
        client = Client(vit, model, recipe, folder / str(number), name=f"c{number}")
        session = client.session()
        drawn = client.bundle.prior.sample(client.seed, count=CANDIDATES)

        def bound(index: int, client: Client = client, drawn: FloatArray = drawn) -> float:
            return client.forge(drawn[index], index=index).bound

        for index in range(CANDIDATES):
            try:
                others = recipe.check_repeated(Choice(index=index), session)
            except CertificateError:
                continue
            own = bound(index)
            if others and lower and own < client.certificate.bound:
                return client, index
            if others and not lower and all(bound(each.index) <= own for each in others):
                return client, index
    raise AssertionError("nobody has a near-equal candidate of that kind")


def test_a_near_equal_candidate_that_was_picked_on_the_certifying_examples(
    vit: Family, model: AdaptedModel, tmp_path: Path
) -> None:
    # Where losses are small many candidates are within the tolerance of the lowest; here it is
    # the tolerance that is large.
    recipe = replace(SPLIT, margin_tolerance=0.05)
    client, index = who_can_pick(vit, model, recipe, tmp_path)
    assert failed(client.verify(client.certificate)) == []
    drawn = client.bundle.prior.sample(client.seed, count=CANDIDATES)
    report = client.verify(client.forge(drawn[index], index=index))
    assert failed(report) == ["choice"]
    assert "picked or tuned on the certifying examples" in report.failures[0].detail


def test_a_near_equal_candidate_that_earns_what_the_others_do_is_left_open(
    vit: Family, model: AdaptedModel, tmp_path: Path
) -> None:
    recipe = replace(SPLIT, margin_tolerance=0.05)
    client, index = who_can_pick(vit, model, recipe, tmp_path, lower=False)
    drawn = client.bundle.prior.sample(client.seed, count=CANDIDATES)
    report = client.verify(client.forge(drawn[index], index=index))
    assert failed(report) == []
    [left] = [item for item in report.unchecked if item.name == "choice"]
    assert "up to twice as often" in left.detail
    assert "choice" not in open_ends(client.verify(client.certificate))


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_a_first_stage_that_was_made_up(
    vit: Family, model: AdaptedModel, share: float, tmp_path: Path
) -> None:
    client = Client(vit, model, replace(HYBRID, choose_fraction=share), tmp_path)
    assert failed(client.verify(client.certificate)) == []
    stage = client.certificate.first_stage
    assert stage is not None
    profile = [0] * len(stage.profile)
    profile[stage.errors], profile[-1] = 1, CANDIDATES - 1
    made_up = FirstStage(errors=stage.errors, profile=tuple(profile))
    forged = client.forge(client.certificate.adapter_vector, first_stage=made_up)
    assert forged.bound < client.certificate.bound
    report = client.verify(forged)
    assert failed(report) == ["choice"]
    assert "the certificate says" in report.failures[0].detail
    blind = client.verify(forged, data=False)
    assert blind.passed
    assert open_ends(blind) >= {"first stage", "data"}


def test_a_first_stage_that_has_the_rounding_it_likes_best(
    vit: Family, model: AdaptedModel, tmp_path: Path
) -> None:
    # Here it is the tolerance that is large; a bound gains next to nothing by a small one.
    recipe = replace(HYBRID, margin_tolerance=0.05, beta=0.5, choose_fraction=0.25)
    client = Client(vit, model, recipe, tmp_path)
    honest = client.verify(client.certificate)
    assert failed(honest) == []
    assert "first stage" not in open_ends(honest)
    index, choosing = client.certificate.candidate.index, recipe.choosing(N)
    fewest, most = (
        client.session().at(level).count(choosing, choosing).choosing[0]
        for level in (0.0, 2 * recipe.margin_tolerance)
    )
    most[index] = fewest[index]
    liked = FirstStage.of(most, choosing.size, index)
    forged = client.forge(client.certificate.adapter_vector, first_stage=liked)
    assert forged.bound < client.certificate.bound
    report = client.verify(forged)
    assert failed(report) == []
    [left] = [item for item in report.unchecked if item.name == "first stage"]
    assert f"{client.certificate.bound:.6f}, and not {forged.bound:.6f}" in left.detail


@pytest.mark.parametrize(
    "refinement",
    ["posterior_mean", "posterior_mode", "finetune", "local_head", "tuned_head"],
)
def test_a_finalist_that_learned_from_all_examples(
    vit: Family, model: AdaptedModel, refinement: str, tmp_path: Path
) -> None:
    recipe = replace(REFINED, refinement=refinement)
    client = Client(vit, model, recipe, tmp_path)
    report = client.verify(client.certificate)
    assert failed(report) == []
    assert "choice" in {check.name for check in report.checks}
    [tuned] = recipe.refine(client.session())
    forged = client.forge(tuned)
    assert failed(client.verify(forged)) == ["choice"]
    blind = client.verify(forged, data=False)
    # No "ok candidate": nothing about the adapter was checked.
    assert blind.passed
    assert "candidate" not in {check.name for check in blind.checks}
    assert open_ends(blind) >= {"refinement", "data"}


def test_the_tolerance_of_refinement_is_no_room_to_tune_in(
    vit: Family, model: AdaptedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(vit, model, REFINED, tmp_path)
    honest = client.certificate.adapter_vector
    certifying = REFINED.certifying(N).as_slice()
    errors = int(client.scores(honest[None], certifying).wrong.sum())
    # A wide tolerance, in which a tuned adapter with fewer errors is sure to be found.
    monkeypatch.setattr("fedcert.verification.choice.REFINEMENT_TOLERANCE", 10.0)
    rng = np.random.default_rng(0)
    tries = honest + 2.0 * rng.standard_normal((400, len(honest)))
    counts = client.scores(tries, certifying).wrong.sum(axis=1)
    assert counts.min() < errors
    forged = client.forge(tries[int(counts.argmin())])
    report = client.verify(forged)
    assert failed(report) == ["choice"]
    assert "tuned on the certifying examples" in report.failures[0].detail
    # One that gained no errors by it may have gained a lower bound on a higher risk: nobody can
    # tell, and the report says so.
    unlucky = client.verify(client.forge(tries[int(counts.argmax())]))
    assert failed(unlucky) == []
    assert "refinement" in open_ends(unlucky)
    assert "refinement" not in open_ends(client.verify(client.certificate))


def test_nor_to_tune_what_is_promised_in(
    vit: Family, model: AdaptedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So high that the honest one answers little, on whichever machine.
    promise = AbstentionPromise(share=0.5, most_wrong=0.3, threshold=8.0)
    client = Client(vit, model, replace(REFINED, promises=(promise,)), tmp_path)
    honest = client.certificate
    monkeypatch.setattr("fedcert.verification.choice.REFINEMENT_TOLERANCE", 10.0)

    def kept(vector: FloatArray) -> tuple[Outcome, ...]:
        return kept_of(
            client.recipe, honest.choice, vector, client.ordered,
            task=model.task, prior=client.bundle.prior,
        )  # fmt: skip

    rng = np.random.default_rng(0)
    tries = honest.adapter_vector + 2.0 * rng.standard_normal((400, len(honest.adapter_vector)))
    counts = client.scores(tries, REFINED.certifying(N).as_slice()).wrong.sum(axis=1)
    # No fewer errors than the honest one, and more promised.
    assert honest.promises
    said = honest.promises[0]
    found = ((vector, kept(vector)) for vector in tries[counts >= honest.errors])
    better = (pair for pair in found if not pair[1][0].earned_by(said))
    tuned, promised = next(better, (None, ()))
    assert tuned is not None, "no adapter with as many errors promises more"
    forged = client.forge(tuned, promises=promised)
    mark_threshold(client.folder / "forged", promised)
    report = client.verify(forged)
    assert failed(report) == ["choice"]
    assert "promises less" in report.failures[0].detail
    # The honest one earns what it promises when it is made again, also where that is asked.
    assert failed(client.verify(honest)) == []
    monkeypatch.setattr("fedcert.verification.choice.MEMBERSHIP_TOLERANCE", -1.0)
    assert failed(client.verify(honest)) == []


@pytest.mark.parametrize("recipe", [SPLIT, HYBRID, REFINED], ids=lambda r: r.kind)
def test_a_candidate_that_there_is_not_fails_and_raises_nothing(
    vit: Family, model: AdaptedModel, recipe: Recipe, tmp_path: Path
) -> None:
    client = Client(vit, model, recipe, tmp_path)
    candidate = replace(client.certificate.candidate, index=10 * CANDIDATES)
    report = verify(
        replace(client.certificate, candidate=candidate).signed(KEY),
        bundle=client.bundle,
        adapter=client.folder / "honest" / "adapter",
        data=client.examples,
        base=model.base,
    )
    assert "choice" in failed(report)


@pytest.mark.parametrize("recipe", [SPLIT, HYBRID, REFINED], ids=lambda r: r.kind)
def test_a_device_ranks_in_the_precision_in_which_it_is_chosen_again(
    vit: Family,
    model: AdaptedModel,
    recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    precisions: list[str] = []

    def scorer(*args: object, precision: str, **options: object) -> BatchedScorer:
        precisions.append(precision)
        return BatchedScorer(*args, precision=precision, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("fedcert.personalization.personalizing.BatchedScorer", scorer)
    bundle = make_bundle(vit, recipes=RecipeTable(((1, recipe),)))
    examples = solvable_examples(vit, bundle, model, N)
    done = personalize(
        bundle, model, examples, client="c", key=KEY, folder=tmp_path, precision="bfloat16"
    )
    assert precisions == ["float32"]
    report = verify(
        done.certificate, bundle=bundle, adapter=done.adapter, data=examples, base=model.base
    )
    assert failed(report) == []


def test_a_verification_without_its_means_is_an_error(
    vit: Family, model: AdaptedModel, tmp_path: Path
) -> None:
    client = Client(vit, model, SPLIT, tmp_path)
    with pytest.raises(SettingsError, match="an adapter needs the bundle"):
        verify(client.certificate, adapter=client.honest.adapter)
    with pytest.raises(SettingsError, match="data need the bundle and adapter"):
        verify(client.certificate, bundle=client.bundle, data=client.examples)


def test_another_federations_bundle_is_a_failed_check(
    vit: Family, model: AdaptedModel, tmp_path: Path
) -> None:
    client = Client(vit, model, SPLIT, tmp_path)
    space = vit.space(rank=3, last_layers=1)

    pool = np.random.default_rng(0).standard_normal((40, space.dimension))
    other = make_bundle(vit, space=space, prior=GaussianPrior.fit(pool, seed=0))
    report = verify(
        client.certificate, bundle=other, adapter=client.honest.adapter, data=client.examples
    )
    assert {"bundle", "adapter space", "adapter"} <= set(failed(report))
    assert all(isinstance(check, Check) for check in report.checks)
    assert "data" in open_ends(report)
