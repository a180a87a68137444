"""Every method: what it certifies, and that it certifies nothing that it must not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from fedcert import methods
from fedcert.adapters import FinetuneSettings
from fedcert.arrays import FloatArray
from fedcert.certificates import (
    binomial_upper_bound,
    bounded_loss_upper_bound,
    hoeffding_upper_bound,
)
from fedcert.certificates.kl_bounds import pac_bayes_kl
from fedcert.data import Examples
from fedcert.errors import SettingsError
from fedcert.methods import (
    DefaultAdapter,
    FederatedSettings,
    FedL2P,
    PersonalTraining,
    PriorMethod,
)
from fedcert.methods.local_training import body_part, head_part, train_from
from fedcert.simulations.benchmarks.comparison import (
    METHODS,
    FedAvgLocal,
    FedAvgLora,
    FedProxLocal,
    FedRep,
    FiniteMethod,
    InterceptOnly,
    Learned,
    LocalLora,
    Majority,
    Merging,
    MergingSplit,
    Method,
    MeZO,
    Planned,
    PoolSelection,
    PosteriorSplit,
    SplitMethod,
    Steel,
    Union,
    Upstream,
)
from fedcert.simulations.benchmarks.comparison.searching import RecipeMethod

N = 32
QUICK = FederatedSettings(rounds=2, clients_per_round=4)
Draw = Callable[..., Examples]


def _quick(method: Method) -> Method:
    """Cut federated training and walks short."""
    if isinstance(method, MeZO):
        return replace(method, federated=None, steps=30)
    if isinstance(method, InterceptOnly):
        return replace(method, federated=_few_rounds(method.federated))
    if isinstance(method, Learned):
        few = _few_rounds(method.method.federated)
        return replace(method, method=replace(method.method, federated=few))
    return method


def _few_rounds(federated: FederatedSettings) -> FederatedSettings:
    return replace(
        federated,
        rounds=2,
        clients_per_round=4,
        local=replace(federated.local, steps=4),
        head_steps=min(federated.head_steps, 4),
    )


def _first(cls: type[Method], upstream: Upstream) -> Method:
    return _quick(cls.variants(upstream)[0])


@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.name)
def test_a_method_hands_out_adapters_and_a_bound(
    cls: type[Method], upstream: Upstream, client_of: Draw
) -> None:
    method = _first(cls, upstream)
    examples = client_of(21, N)
    found = method.personalize(examples)
    assert found.adapters.shape[1] == upstream.dimension
    assert found.adapters.dtype == np.float64
    assert np.isfinite(found.adapters).all()
    assert 0 < found.certificate <= 1
    again = method.personalize(examples)
    np.testing.assert_array_equal(again.adapters, found.adapters)
    assert again.certificate == found.certificate
    # Its bound lies above its error on many fresh examples of the same client.
    fresh = client_of(21, 600)
    risk = upstream.scorer.score(found.adapters[:50], fresh).wrong.mean()
    assert risk < found.certificate + 0.05
    traffic = method.traffic()
    assert min(traffic.up, traffic.down) >= 0


@pytest.mark.parametrize(
    "cls",
    [cls for cls in METHODS if issubclass(cls, SplitMethod | FiniteMethod | RecipeMethod)],
    ids=lambda cls: cls.name,
)
def test_a_trial_with_all_examples_is_the_certificate(
    cls: type[Method], upstream: Upstream, client_of: Draw
) -> None:
    method, examples = _first(cls, upstream), client_of(9, N)
    expected = method.personalize(examples).certificate
    assert method.trial(examples, N) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("cls", [FedAvgLora, PoolSelection, Union])
def test_a_trial_without_learning_averages_over_disjoint_parts(
    cls: type[Method], upstream: Upstream, client_of: Draw
) -> None:
    method, examples = _first(cls, upstream), client_of(9, 70)
    parts = [examples.take(slice(start, start + 16)) for start in (0, 16, 32, 48)]
    expected = np.mean([method.personalize(part).certificate for part in parts])
    assert method.trial(examples, 16) == pytest.approx(expected, abs=1e-12)


def test_a_split_is_tried_with_one_adapter_on_all_that_it_did_not_learn_from(
    upstream: Upstream, client_of: Draw
) -> None:
    examples, learned = client_of(9, 72), []

    @dataclass(frozen=True, kw_only=True)
    class Counting(MergingSplit):
        def learn(self, examples: Examples) -> FloatArray:
            learned.append(len(examples))
            return super().learn(examples)

    half = Counting(upstream=upstream, parts=4)
    found = half.trial(examples, 16)
    adapter = MergingSplit(upstream=upstream, parts=4).learn(examples.take(slice(0, 8)))
    wrong = upstream.scorer.score(adapter[None], examples.take(slice(8, None))).wrong[0]
    counts = wrong.reshape(8, 8).sum(axis=1)
    bounds = [binomial_upper_bound(int(k), 8, upstream.delta) for k in counts]
    assert found == pytest.approx(np.mean(bounds))
    # A quarter of 32 is the same eight examples: nothing is learned again.
    quarter = replace(half, choose_fraction=0.25)
    bounds = [
        binomial_upper_bound(int(k), 24, upstream.delta)
        for k in wrong[:48].reshape(2, 24).sum(axis=1)
    ]
    assert quarter.trial(examples, 32) == pytest.approx(np.mean(bounds))
    assert learned == [8]
    # Another client's examples are another matter, even if they are equal.
    half.trial(client_of(9, 72), 16)
    assert learned == [8, 8]


@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.name)
def test_every_method_has_the_same_budget_of_variants(
    cls: type[Method], upstream: Upstream
) -> None:
    variants = cls.variants(upstream)
    configs = [variant.config() for variant in variants]
    assert 1 <= len(variants) <= 8
    assert all(configs.count(config) == 1 for config in configs)
    assert len({variant.name for variant in variants}) == 1


@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.name)
def test_one_label_alone_is_no_obstacle(
    cls: type[Method], upstream: Upstream, client_of: Draw
) -> None:
    examples = client_of(3, 16)
    alike = Examples(examples.inputs, np.ones(16, dtype=np.int64))
    found = _first(cls, upstream).personalize(alike)
    assert np.isfinite(found.adapters).all()


@pytest.mark.parametrize(
    "cls",
    [MergingSplit, MeZO, LocalLora, FedAvgLocal, FedProxLocal, FedRep],
    ids=lambda cls: cls.name,
)
def test_a_split_never_learns_from_what_certifies(
    cls: type[Method], upstream: Upstream, client_of: Draw
) -> None:
    method = _first(cls, upstream)
    examples = client_of(5, N)
    found = method.personalize(examples)
    half = np.arange(N // 2, N)
    changed = Examples(examples.inputs, examples.labels.copy())
    changed.labels[half] = 1 - changed.labels[half]
    other = method.personalize(changed)
    np.testing.assert_array_equal(other.adapters, found.adapters)
    errors = int(upstream.scorer.score(found.adapters, examples.take(half)).wrong.sum())
    assert found.certificate == binomial_upper_bound(errors, N // 2, upstream.delta)
    flipped = int(upstream.scorer.score(found.adapters, changed.take(half)).wrong.sum())
    assert other.certificate == binomial_upper_bound(flipped, N // 2, upstream.delta)


def test_the_global_adapter_is_certified_by_all_examples(
    upstream: Upstream, client_of: Draw
) -> None:
    method = _first(FedAvgLora, upstream)
    examples = client_of(5, N)
    found = method.personalize(examples)
    errors = int(upstream.scorer.score(found.adapters, examples).wrong.sum())
    assert found.certificate == binomial_upper_bound(errors, N, upstream.delta)
    np.testing.assert_array_equal(method.personalize(client_of(6, N)).adapters, found.adapters)


@pytest.mark.parametrize("cls", [Majority, InterceptOnly, PoolSelection])
def test_who_chooses_on_all_examples_pays_for_every_choice(
    cls: type[Method], upstream: Upstream, client_of: Draw
) -> None:
    method = _first(cls, upstream)
    count = {
        Majority: lambda: 2,
        InterceptOnly: lambda: len(method.adapters()),  # type: ignore[attr-defined]
        PoolSelection: lambda: method.size,  # type: ignore[attr-defined]
    }[cls]()
    assert count > 1
    examples = client_of(7, N)
    found = method.personalize(examples)
    errors = int(upstream.scorer.score(found.adapters, examples).wrong.sum())
    assert found.certificate == binomial_upper_bound(errors, N, upstream.delta / count)


def test_steel_is_as_published(upstream: Upstream, client_of: Draw) -> None:
    (method,) = Steel.variants(upstream)
    assert method.recipe.candidates == upstream.steel_candidates
    examples = client_of(5, N)
    found = method.personalize(examples)
    errors = int(upstream.scorer.score(found.adapters, examples).wrong.sum())
    budget = upstream.delta / upstream.steel_candidates
    assert found.certificate == pytest.approx(
        hoeffding_upper_bound(errors, N, budget), abs=2e-6
    )


def test_planned_tries_what_union_and_posterior_split_try(upstream: Upstream) -> None:
    planned = [each.config() for each in Planned.variants(upstream)]
    for cls in (Union, PosteriorSplit):
        assert all(each.config() in planned for each in cls.variants(upstream))
    # A name that the menu no longer knows would be left out without a word.
    assert len(planned) == 8


def test_shifts_move_one_label_and_include_none(upstream: Upstream) -> None:
    method = _first(InterceptOnly, upstream)
    assert isinstance(method, InterceptOnly)
    adapters = method.adapters()
    moved = adapters - method.everyones()
    assert not moved[0].any()
    assert (moved[1:] != 0).sum() == 2 * method.steps
    assert set(np.flatnonzero(moved.any(axis=0))) == {upstream.dimension - 1}
    assert np.abs(moved).max() == pytest.approx(method.largest)


def test_the_merge_pays_for_how_far_it_goes(upstream: Upstream, client_of: Draw) -> None:
    """A narrow prior keeps the weights near the average; a wide one lets them go."""
    examples = client_of(5, 64)
    centers = []
    for width in (0.02, 0.5):
        method = Merging(upstream=upstream, parts=4, width=width, draws=300)
        found = method.personalize(examples)
        mean_errors = upstream.scorer.score(found.adapters, examples).wrong.mean()
        # Above the empirical risk by at least what an unlearned merge would pay.
        assert found.certificate > mean_errors
        centers.append(found.adapters.mean(axis=0))
    average = upstream.pool[:4].mean(axis=0)
    near, far = (np.linalg.norm(center - average) for center in centers)
    assert near < far


def test_a_merge_that_learned_nothing_pays_for_draws_and_pac_bayes(
    upstream: Upstream, client_of: Draw
) -> None:
    """From one label nothing is learned: the divergence is zero, and the bound is known."""
    examples = client_of(5, N)
    alike = Examples(examples.inputs, np.ones(N, dtype=np.int64))
    found = Merging(upstream=upstream, parts=4, width=0.3, draws=200).personalize(alike)
    errors = upstream.scorer.score(found.adapters, alike).wrong.mean(axis=1)
    mean = bounded_loss_upper_bound(errors, 0.1 * 0.05)
    expected = pac_bayes_kl(np.array([mean]), np.zeros(1), N, 0.9 * 0.05)
    assert found.certificate == expected[0]
    assert mean > errors.mean() + 0.01


def test_part_of_an_adapter_can_be_trained(upstream: Upstream, client_of: Draw) -> None:
    space = upstream.model.space
    start = upstream.pool[0]
    for part, other in (
        (head_part(space), body_part(space)),
        (body_part(space), head_part(space)),
    ):
        moved = train_from(
            start, upstream.model, client_of(3, N), seed=0,
            settings=upstream.training, part=part,
        )  # fmt: skip
        np.testing.assert_array_equal(moved[other], start[other].astype(np.float32))
        assert np.abs(moved[part] - start[part]).max() > 0.01


def test_the_proximal_term_holds_an_adapter_back(upstream: Upstream, client_of: Draw) -> None:
    start, distances = upstream.pool[0], []
    for proximal_mu in (0.0, 1.0, 100.0):
        moved = train_from(
            start, upstream.model, client_of(3, N), seed=0,
            settings=replace(upstream.training, weight_decay=0.5), proximal_mu=proximal_mu,
        )  # fmt: skip
        distances.append(float(np.linalg.norm(moved - start)))
    assert distances[0] > distances[1] > distances[2]


def test_keep_interpolates_between_global_and_personal(
    upstream: Upstream, client_of: Draw
) -> None:
    product = methods.FedAvgLocal(federated=QUICK)
    method = FedAvgLocal(upstream=upstream, method=product)
    examples = client_of(5, N)
    personal, everyone = method.learn(examples), method.prior.center()
    assert np.abs(personal - everyone).max() > 0.01
    # What upstream clients leave alone, new ones do.
    settings = FinetuneSettings(steps=20, head_only=True)
    head = replace(product, personal=PersonalTraining(settings=settings))
    trained = replace(method, method=head).learn(examples)
    below = slice(0, upstream.model.space.layer_numbers)
    np.testing.assert_array_equal(trained[below], everyone[below])
    assert np.abs(trained - everyone).max() > 0.01
    quarter = replace(product, personal=PersonalTraining(keep=0.25))
    between = replace(method, method=quarter).learn(examples)
    np.testing.assert_allclose(between, 0.25 * everyone + 0.75 * personal)


def test_learning_helps(upstream: Upstream, client_of: Draw) -> None:
    """Half of the clients call dark what the others call bright: no global adapter serves."""

    def error(method: Method) -> float:
        wrong = []
        for client in (4, 5):
            adapters = method.personalize(client_of(client, 64)).adapters
            wrong.append(upstream.scorer.score(adapters, client_of(client, 600)).wrong.mean())
        return float(np.mean(wrong))

    everyone = error(_first(FedAvgLora, upstream))
    assert everyone > 0.4
    walked = MeZO(upstream=upstream, federated=None, rate=5.0, steps=200)
    learned = [_first(cls, upstream) for cls in (LocalLora, FedAvgLocal, FedProxLocal, FedRep)]
    for method in [*learned, _first(Planned, upstream), walked]:
        assert error(method) < everyone - 0.1, method.name


@pytest.mark.parametrize("cls", [PriorMethod, DefaultAdapter, FedL2P])
def test_a_method_that_publishes_more_than_an_average_is_for_a_run(
    cls: type[methods.Method], upstream: Upstream
) -> None:
    with pytest.raises(SettingsError, match="launch it"):
        FedAvgLora(upstream=upstream, method=cls())
