"""Personalizing with a condition: bound to the seed, and never from the certifying examples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_models import Family

from fedcert.adapters import AdaptedModel
from fedcert.bundles import Bundle
from fedcert.certificates import verify_record
from fedcert.data import Examples
from fedcert.errors import BundleError, ProtocolError, RefusalError
from fedcert.personalization import commit_to, personalize
from fedcert.priors import GaussianPrior
from fedcert.priors.conditioning import Condition, ConditionalPrior
from fedcert.protocol.authority import SeedAuthority
from fedcert.protocol.device import DeviceState
from fedcert.randomness import derive_seed, keyed_generator
from fedcert.verification import check_adapter, check_bundle

from .conftest import KEY, UNION, make_bundle, solvable_examples


def _statistics(examples: Examples) -> np.ndarray:
    return np.array([examples.inputs.mean(), examples.labels.mean()])


def _embed(text: str) -> np.ndarray:
    return keyed_generator("embedding", text).standard_normal(2)


@pytest.fixture(scope="module")
def conditional(vit: Family) -> Bundle:
    plain = make_bundle(vit)
    pool = plain.prior.sample(derive_seed("conditional pool"), count=40)
    said = pool[:, :2] / pool[:, :2].std(axis=0)
    prior = ConditionalPrior.fit_conditional(pool, said, rest=GaussianPrior, seed=0)
    return make_bundle(vit, prior=prior)


@pytest.fixture(scope="module")
def support(vit: Family, conditional: Bundle, model: AdaptedModel) -> Examples:
    return solvable_examples(vit, conditional, model, UNION)


@pytest.fixture
def state(tmp_path: Path) -> DeviceState:
    return DeviceState(tmp_path / "state", simulated="11" * 32)


def test_the_certificate_is_for_the_conditioned_bundle(
    conditional: Bundle, model: AdaptedModel, support: Examples, tmp_path: Path
) -> None:
    certificates = {}
    for text in ("cats", "dogs"):
        condition = Condition.from_text(text, _embed)
        own = conditional.given(condition)
        own.save(tmp_path / text / "bundle")
        result = personalize(
            conditional,
            model,
            support,
            client="c-1",
            key=KEY,
            folder=tmp_path / text,
            condition=condition,
        )
        certificate = certificates[text] = result.certificate
        assert verify_record(certificate).failures == ()
        # What a verifier has: the saved bundle.
        loaded = Bundle.load(tmp_path / text / "bundle")
        checks = [
            *check_bundle(certificate, loaded),
            *check_adapter(certificate, loaded, result.adapter),
        ]
        assert all(check.passed for check in checks)
        assert not all(check.passed for check in check_bundle(certificate, conditional))
        assert loaded.notes["condition"] == condition.digest
        assert loaded.notes["conditioned_from"] == conditional.digest
    # Another condition, another seed: nobody can look at both sets of candidates and choose.
    seeds = {certificate.candidate.seed for certificate in certificates.values()}
    assert len(seeds) == 2


def test_a_condition_from_the_support_set_is_refused(
    conditional: Bundle,
    model: AdaptedModel,
    support: Examples,
    state: DeviceState,
    tmp_path: Path,
) -> None:
    mixed = support.take(slice(3))
    cheating = Condition.from_examples(mixed, _statistics, ledger=state.spent)
    with pytest.raises(RefusalError, match="3 of the 24 examples went into the condition"):
        personalize(
            conditional,
            model,
            support,
            client="c-1",
            key=KEY,
            folder=tmp_path,
            condition=cheating,
        )
    # Without naming the condition, the ledger still knows.
    with pytest.raises(RefusalError, match=r"3 of the 24 .* spent on: computing a condition"):
        commit_to(conditional, support, client="c-1", key=KEY, state=state)


def test_examples_that_were_committed_cannot_become_a_condition(
    conditional: Bundle, support: Examples, state: DeviceState
) -> None:
    commit_to(conditional, support, client="c-1", key=KEY, state=state)
    with pytest.raises(RefusalError, match="spent on: a certificate"):
        Condition.from_examples(support.take(slice(5)), _statistics, ledger=state.spent)


def test_a_text_that_quotes_an_example_is_refused() -> None:
    examples = Examples(np.array(["book a flight", "play  Jazz"], dtype=object), np.arange(2))
    condition = Condition.from_text("requests such as 'play jazz', which are mine", _embed)
    with pytest.raises(RefusalError, match="1 of the 2 examples went into the condition"):
        condition.check(examples)
    Condition.from_text("requests for music", _embed).check(examples)


def test_a_seed_is_for_one_condition(
    conditional: Bundle,
    model: AdaptedModel,
    vit: Family,
    support: Examples,
    state: DeviceState,
    tmp_path: Path,
) -> None:
    others = vit.examples(8, seed=99)
    condition = Condition.from_examples(others, _statistics, ledger=state.spent)
    own = conditional.given(condition)
    authority = SeedAuthority.simulated(tmp_path / "server", 0)
    authority.publish(own.digest, own.recipes)
    commitment = commit_to(
        conditional, support, client="c-1", key=KEY, state=state, condition=condition
    )
    assert commitment.bundle == own.digest
    grant = authority.issue(commitment)

    def serve(said: Condition | None) -> object:
        return personalize(
            conditional,
            model,
            support,
            client="c-1",
            key=KEY,
            folder=tmp_path,
            state=state,
            grant=grant,
            condition=said,
        )

    for other in (None, Condition.from_text("something else", _embed)):
        with pytest.raises(ProtocolError, match="the seed was issued for the bundle"):
            serve(other)
    serve(condition)


def test_a_prior_without_conditions_takes_none(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="gaussian prior takes no conditions"):
        bundle.given(Condition.from_text("cats", _embed))
