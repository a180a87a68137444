"""The ServerApp of docs/flower.md, as written there, and what its strategy returns."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import Result
from simulations.federation import CLIENTS, NEW, UPSTREAM, Federation

from fedcert.bundles import Bundle
from fedcert.certificates import Certificate
from fedcert.errors import RunError, SettingsError
from fedcert.messages import CERTIFY, TRAIN
from fedcert.strategies import PooledPrior, PriorResult
from fedcert.verification import verify

PAGE = Path(__file__).parents[2] / "docs" / "flower.md"
[CODE] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def _config(federation: Federation) -> dict[str, Any]:
    """Return Flower's run config, with the settings of the federation's clients."""
    return {
        "scenario.name": "tiny_scenario:Tiny",
        "adapter.rank": 2,
        "training.steps": 10,
        "prior.kind": "gaussian",
        "certificate.candidates": 50,
        "certificate.support-size": 32,
        "server.min-pool": 10,
        "output": str(federation.output),
    }


def test_a_server_app_takes_a_dozen_lines(
    federation: Federation, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(CODE.splitlines()) <= 12
    module: dict[str, Any] = {}
    exec(CODE, module)
    app = module["app"]
    assert isinstance(app, ServerApp)
    app(federation.grid, Context(1, 1, {}, RecordDict(), _config(federation)))
    bundle = Bundle.load(federation.output / "bundle")
    written = [
        Certificate.read(federation.output / "certificates" / f"{client}.json")
        for client in CLIENTS[UPSTREAM:]
    ]
    assert all(verify(certificate, bundle=bundle).passed for certificate in written)
    shown = capsys.readouterr().out
    assert all(f"{one.client} {one.bound}" in shown for one in written)


def test_the_result_is_flowers_with_what_came_of_the_run(federation: Federation) -> None:
    federation.on(TRAIN, CLIENTS[2], _fails)
    strategy = PooledPrior.for_config(_config(federation))
    result = strategy.start(federation.grid)
    assert isinstance(result, Result)
    assert isinstance(result, PriorResult)
    assert result.bundle is not None
    assert set(result.arrays) == set(result.bundle.tensors())
    assert sorted(result.certificates) == sorted(result.witnesses) == CLIENTS[UPSTREAM:]
    assert [failure.client for failure in result.failures] == [CLIENTS[2]]
    assert {*result.measurements, CLIENTS[2]} == {*result.traffic.down} == {*CLIENTS}
    assert result.train_metrics_clientapp[1] == {"pooled": UPSTREAM - 1, "failed": 1}
    assert result.evaluate_metrics_clientapp[2]["certificates"] == NEW
    assert "ArrayRecord" in repr(result)


def test_a_run_that_could_not_do_its_job_is_an_error(federation: Federation) -> None:
    for client in CLIENTS[UPSTREAM:]:
        federation.on(CERTIFY, client, _fails)
    strategy = PooledPrior.for_config(_config(federation))
    with pytest.raises(RunError, match="no new client was certified: 2 x certification"):
        strategy.start(federation.grid)


def test_a_run_of_a_few_rounds_says_how_far_it_came(federation: Federation) -> None:
    settings = _config(federation) | {"server.clients-per-round": 5}
    result = PooledPrior.for_config(settings).start(federation.grid, num_rounds=1)
    assert (result.bundle, result.certificates) == (None, {})
    assert len(federation.pool()) == 5
    # Another strategy goes on there.
    again = Federation(federation.output)
    result = PooledPrior.for_config(settings).start(again.grid)
    assert again.clients.count()[TRAIN] == UPSTREAM - 5
    assert len(result.certificates) == NEW


def test_flowers_own_arguments_are_taken(federation: Federation) -> None:
    evaluated: list[int] = []

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        evaluated.append(len(arrays))
        return MetricRecord({"arrays": len(arrays)})

    strategy = PooledPrior.for_config(_config(federation))
    result = strategy.start(
        federation.grid, ArrayRecord(), num_rounds=2, timeout=60, evaluate_fn=evaluate
    )
    assert result.bundle is not None
    assert evaluated == [0] + [len(result.bundle.tensors())] * 2
    assert result.evaluate_metrics_serverapp[2]["arrays"] == evaluated[-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": "run"}, "output = 'run' is not an absolute path"),
        ({"trainig.steps": 3}, "'trainig': there is no such setting"),
        ({"prior.training": "federated", "prior.kind": "diffusion", "server.min-pool": 12},
         "the strategy PooledPrior pools adapters"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    federation: Federation, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        PooledPrior.for_config(_config(federation) | changes)


def _fails(_message: Message) -> Message:
    raise OSError(28, "No space left on device")
