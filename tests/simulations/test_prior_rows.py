"""The rows that ``make bench-prior`` gathers: each a function of a federation, repeatable."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fedcert.simulations.benchmarks import prior_federated, prior_measures
from fedcert.simulations.benchmarks.federations import Federation
from fedcert.simulations.benchmarks.prior_federated import federated_rows
from fedcert.simulations.benchmarks.prior_mixed import mixed_rows
from fedcert.simulations.benchmarks.prior_privacy import privacy_rows
from fedcert.simulations.benchmarks.prior_robustness import ATTACKS, robustness_rows
from fedcert.strategies.federated_fit import FederatedTraining
from simulations.federation import UPSTREAM, tiny_settings

Rows = list[dict[str, Any]]
MEASURED = {"scenario", "pool", "prior", "m", "risk", "se", "n", "certificate"}


@pytest.fixture
def federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Federation:
    monkeypatch.setenv("FEDCERT_CACHE", str(tmp_path))
    monkeypatch.setattr(prior_measures, "CANDIDATES", 20)
    quick = FederatedTraining(power_rounds=2, component_rounds=2, denoising_rounds=0)
    monkeypatch.setattr(
        prior_federated,
        "fit_in_process",
        partial(prior_federated.fit_in_process, training=quick),
    )
    return Federation(tiny_settings())


@pytest.mark.parametrize(
    ("rows_of", "column", "values"),
    [
        (
            partial(mixed_rows, ranks=(1, 2)),
            "uploads",
            ["shared space", "mixed LoRA"],
        ),
        (federated_rows, "fit", ["pooled", "federated"]),
        (partial(privacy_rows, epsilons=(10.0,)), "epsilon", [None, 10.0]),
        (robustness_rows, "attack", [attack for attack in ATTACKS for _ in range(2)]),
    ],
    ids=["mixed", "federated", "privacy", "robustness"],
)
def test_rows_are_complete_and_repeatable(
    rows_of: Callable[[Federation], Rows],
    column: str,
    values: list[object],
    federation: Federation,
) -> None:
    rows = rows_of(federation)
    assert [row[column] for row in rows] == values
    for row in rows:
        assert row.keys() >= MEASURED
        assert (row["scenario"], row["pool"], row["m"]) == ("tiny", UPSTREAM, 20)
        assert 0 <= row["risk"] <= 1
        assert 0 < row["certificate"] <= 1
    # From the cache where there is one, and from the start again.
    assert rows_of(Federation(federation.settings)) == rows


def test_mixed_rows_say_what_projection_lost(federation: Federation) -> None:
    inside, mixed = mixed_rows(federation, ranks=(1, 2))
    assert (inside["residual_mean"], inside["residual_max"]) == (0.0, 0.0)
    assert 0 < mixed["residual_mean"] <= mixed["residual_max"] < 1
