"""``prior.training = "federated"``: the same run, report, and certificates without a pool."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from simulations.federation import CLIENTS, UPSTREAM, Federation, tiny_settings

from fedcert.bundles import Bundle
from fedcert.certificates import Certificate, verify_record
from fedcert.errors import SettingsError
from fedcert.reports.results import read_results
from fedcert.settings import RunSettings
from fedcert.simulations.runners.flower_internals import LocalGrid
from fedcert.simulations.simulating import Simulation, simulate
from fedcert.strategies import run
from fedcert.strategies.federated_fit import FederatedTraining
from fedcert.strategies.federated_prior import NO_PRIVACY, FederatedSource
from fedcert.verification import check_bundle

QUICK = FederatedTraining(
    sketch=6,
    power_rounds=2,
    component_rounds=2,
    denoising_rounds=2,
    judge_every=1,
    local_steps=1,
    local_batch=4,
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "FederatedSource", partial(FederatedSource, denoising=QUICK))


def _settings(**changes: Any) -> RunSettings:
    return tiny_settings(prior__kind="diffusion", prior__training="federated", **changes)


class _Backwards(LocalGrid):
    """Delivers answers in the opposite order, as another network would."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return list(super().pull_messages(message_ids))[::-1]


@pytest.fixture
def simulation(tmp_path: Path) -> Simulation:
    settings = _settings(server__min_pool=12, training__lora_ranks="1,2")
    return simulate(settings, output=tmp_path / "run", runner="inprocess")


def test_a_simulation_serves_and_reports(simulation: Simulation) -> None:
    bundle = Bundle.load(simulation.output / "bundle")
    assert bundle.notes["privacy"] == NO_PRIVACY
    assert bundle.prior.kind == "diffusion"
    for client in CLIENTS[UPSTREAM:]:
        certificate = Certificate.read(
            simulation.output / "clients" / client / "certificate.json"
        )
        assert verify_record(certificate).failures == ()
        assert all(check.passed for check in check_bundle(certificate, bundle))
    prior = read_results(simulation.results).prior
    assert prior is not None
    assert "sums of 11 clients" in str(prior.choice)
    # The simulation found the adapters where the clients keep them: 11 members, 3 judges.
    assert prior.pool_size == UPSTREAM
    assert len(simulation.results["prior"]["projection"]["held_out"]) == 3
    assert not any((simulation.output / "pool" / "adapters").iterdir())


def test_the_order_of_answers_changes_nothing(tmp_path: Path) -> None:
    digests = []
    for name, grid in (("one", LocalGrid), ("two", _Backwards)):
        federation = Federation(tmp_path / name, _settings(server__min_pool=12))
        federation.grid = grid(federation.clients, nodes=federation.nodes)
        strategy = federation.serve().strategy
        assert strategy.bundle is not None
        digests.append(strategy.bundle.digest)
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prior__kind": "gaussian"}, "the gaussian prior cannot be trained federated"),
        ({"certificate__recipe": "planned"}, "'planned' does not go with prior.training"),
        ({"privacy__epsilon": 1.0}, "'privacy.epsilon': the federated prior adds no noise"),
    ],
)
def test_what_it_cannot_do_is_refused(changes: dict[str, Any], message: str) -> None:
    federated = {"prior__kind": "diffusion", "prior__training": "federated"}
    with pytest.raises(SettingsError, match=message):
        tiny_settings(**(federated | {"server__min_pool": 12} | changes))
