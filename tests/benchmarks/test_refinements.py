"""Rated and gated fine-tuning beside posterior means, on a tiny scenario."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from simulations.federation import SCENARIO

from fedcert.certificates import binomial_upper_bound
from fedcert.priors.latent import LatentSpace
from fedcert.simulations.benchmarks.certificates_page import certificates_page
from fedcert.simulations.benchmarks.federations import only_remembered
from fedcert.simulations.benchmarks.named_site import DELTA, Cell
from fedcert.simulations.benchmarks.refinements import MEAN, Ground, axes, refinements


def test_it_measures_and_finds_again_what_it_measured() -> None:
    cell = Cell(
        scenario=SCENARIO, sizes=(8, 16), new=2, fitted=10, planners=0, candidates=4,
        training={"steps": 3},
    )  # fmt: skip
    ground = Ground(cell, seeds=(0,), splits=((8, 0.5), (16, 0.25), (16, 0.5)))
    found = refinements([ground])
    assert not found["missing"]
    by_way: dict[str, list[dict[str, Any]]] = {}
    for row in found["table"]:
        assert row["clients"] == 2
        assert 0 <= row["error"]["mean"] <= 1
        rest = row["n"] - round(row["n"] * row["share"])
        # No bound on so many examples is below that of no error at all.
        assert binomial_upper_bound(0, rest, DELTA) <= row["certificate"]["mean"] <= 1
        by_way.setdefault(row["refinement"], []).append(row)
    for row in by_way[MEAN]:
        assert row["certificate"]["difference"] == row["error"]["difference"] == 0.0
    assert all(len(rows) == 3 for rows in by_way.values())
    # The first two learn from the same four examples.
    assert all(rows[0]["error"] == rows[1]["error"] for rows in by_way.values())
    with only_remembered():
        assert refinements([ground])["table"] == found["table"]
    page = certificates_page({"refinements": found})
    assert all(f"| {way} |" in page for way in by_way)


@pytest.mark.parametrize("along", ["rated", "gated"])
def test_what_no_client_moved_stays(along: str) -> None:
    pool = np.random.default_rng(0).standard_normal((20, 5)) * [1.0, 2.0, 3.0, 0.0, 4.0]
    latent = LatentSpace.of(pool, size=2)
    found = axes(latent, along)
    assert not found[:, 3].any()
    assert found.any(axis=0).sum() == 4
    if along == "gated":
        assert np.allclose(latent.encode(latent.mean + found), np.eye(2))
    else:
        assert np.allclose(np.diag(found), pool.std(axis=0))
