"""The federated prior: the pooled one's directions from sums, and adapters that stay home."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, RecordDict
from priors.pools import corner_distances, cube_pool, gaussian_pool
from simulations.federation import CLIENTS, NEW, UPSTREAM, Federation

from fedcert.clients.denoising import answer
from fedcert.errors import FedcertError, PriorError
from fedcert.fitting import bundle_of
from fedcert.messages import CONTRIBUTE, REPLY, TRAIN
from fedcert.messages.flower import content
from fedcert.priors import LatentSpace
from fedcert.scenarios import load_scenario
from fedcert.simulations.benchmarks.prior_federated import fit_in_process
from fedcert.strategies.federated_fit import FederatedTraining, federated_fit, most_questions
from fedcert.strategies.federated_prior import NO_PRIVACY, FederatedSource
from fedcert.strategies.prior_strategy import PriorStrategy

SEED = "0123456789abcdef" * 4
QUICK = FederatedTraining(
    sketch=6,
    power_rounds=2,
    component_rounds=2,
    denoising_rounds=2,
    judge_every=1,
    local_steps=1,
    local_batch=4,
)


def _strategy(federation: Federation, training: FederatedTraining = QUICK) -> PriorStrategy:
    plain = federation.strategy()
    scenario = load_scenario(federation.settings.scenario.name, {})
    source = FederatedSource(
        space=federation.space,
        publish=lambda prior, notes: bundle_of(
            prior,
            notes,
            base=federation.base,
            space=federation.space,
            inputs=scenario.inputs,
            labels=scenario.labels,
            settings=federation.settings,
        ),
        training=federation.settings.finetune_settings(),
        seed=federation.settings.seed,
        denoising=training,
        min_pool=10,
    )
    return PriorStrategy(source, space=federation.space, authority=plain._authority)


def _run(federation: Federation) -> PriorStrategy:
    strategy = _strategy(federation)
    rounds = strategy.rounds_needed(federation.grid)
    strategy.start(federation.grid, ArrayRecord(), num_rounds=rounds, timeout=60.0)
    return strategy


def test_sums_give_the_latent_space_of_the_pool() -> None:
    pool = gaussian_pool(100)
    prior = fit_in_process(pool, seed=0, training=FederatedTraining(denoising_rounds=0))
    latent = prior.latent
    assert latent.size == 6
    # Judges take no part: a fifth of the pool is missing.
    whole = LatentSpace.of(pool)
    np.testing.assert_allclose(latent.mean, whole.mean, atol=0.3 * whole.scale.max())
    overlap = np.linalg.svd(latent.directions @ whole.directions.T)[1]
    assert overlap.min() > 0.99
    np.testing.assert_allclose(latent.directions @ latent.directions.T, np.eye(6), atol=1e-9)


def test_without_judges_gain_the_prior_is_the_gaussian() -> None:
    training = FederatedTraining(denoising_rounds=0)
    report = fit_in_process(gaussian_pool(60), seed=0, training=training).report
    assert (report.best_step, report.best_loss) == (0, report.anchor_loss)


def test_a_cube_is_learned_from_sums() -> None:
    training = FederatedTraining(denoising_rounds=20, local_steps=4, local_batch=32)
    prior = fit_in_process(cube_pool(80), seed=0, training=training)
    assert prior.report.best_step > 0
    assert prior.report.best_loss < 0.95 * prior.report.anchor_loss
    anchor = fit_in_process(
        cube_pool(80), seed=0, training=FederatedTraining(denoising_rounds=0)
    )
    ours = np.median(corner_distances(prior.sample(SEED, count=200)))
    theirs = np.median(corner_distances(anchor.sample(SEED, count=200)))
    assert ours < 0.8 * theirs


def test_clients_that_are_all_alike_cannot_be_fitted() -> None:
    with pytest.raises(PriorError, match="adapters do not differ"):
        fit_in_process(np.full((20, 5), 0.3), seed=0)


def test_the_number_of_questions_is_bounded() -> None:
    dialogue = federated_fit(dimension=40, seed=0, training=QUICK)
    question, asked = next(dialogue), 1
    pool = gaussian_pool(30)
    with suppress(StopIteration):
        while asked < 1000:
            answers = [
                answer(question.kind, question.words, question.arrays, row, client=str(i))
                for i, row in enumerate(pool)
            ]
            shapes = {name: array.shape for name, array in answers[0].items()}
            assert shapes == dict(question.expects)
            sums = {name: sum(a[name] for a in answers) for name in answers[0]}
            question = dialogue.send((sums, len(answers)))
            asked += 1
    assert asked <= most_questions(QUICK)


def test_unknown_questions_are_refused() -> None:
    with pytest.raises(FedcertError, match="cannot answer the question 'adapter'"):
        answer("adapter", {}, {}, np.ones(3), client="a")


def test_a_federation_is_served_and_the_server_keeps_no_adapter(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "run")
    strategy = _run(federation)
    assert strategy.failures == []
    assert strategy.bundle is not None
    assert strategy.bundle.prior.kind == "diffusion"
    assert strategy.bundle.notes["privacy"] == NO_PRIVACY
    assert len(strategy.certificates) == NEW
    assert len(federation.pool()) == 0
    asked = federation.clients.count()
    assert asked[TRAIN] == 0
    assert asked[CONTRIBUTE] > UPSTREAM
    # Judges are asked for nothing but their loss, so fit and judges are disjoint.
    again = _run(Federation(tmp_path / "again"))
    assert again.bundle is not None
    assert again.bundle.digest == strategy.bundle.digest


def test_a_client_with_a_bad_answer_is_left_out(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "run")
    bad = np.full(federation.space.dimension, np.nan)

    def not_finite(_message: Message) -> RecordDict:
        return content({}, {"sum": bad}, key=REPLY)

    def wrong_shape(_message: Message) -> RecordDict:
        return content({}, {"sum": np.ones((3, 3))}, key=REPLY)

    def too_large(_message: Message) -> RecordDict:
        return content({}, {"sum": bad, "more": np.zeros(2**20)}, key=REPLY)

    first, second, third = CLIENTS[0], CLIENTS[1], CLIENTS[2]
    federation.on(CONTRIBUTE, first, not_finite)
    federation.on(CONTRIBUTE, second, wrong_shape)
    federation.on(CONTRIBUTE, third, too_large)
    strategy = _run(federation)
    causes = {failure.client: failure.cause for failure in strategy.failures}
    assert set(causes) == {first, second, third}
    # Found out before anything is decoded, which makes copies.
    assert re.fullmatch(
        r"the message's arrays have 8,[0-9,]+ bytes; at most [0-9,]{5,7} are taken",
        causes[third],
    )
    assert strategy.bundle is not None
    assert len(strategy.certificates) == NEW
