"""The benchmark's audits of every kind of prior."""

from __future__ import annotations

from fedcert.simulations.benchmarks.prior_audit import audit_rows

from .pools import gaussian_pool


def test_each_prior_is_audited_at_each_size() -> None:
    kinds = ("gaussian", "pool")
    rows = audit_rows("cube", gaussian_pool(120), sizes=(40, 80, 500), kinds=kinds)
    # 30 adapters are kept back, so the largest pool has 90.
    assert [(row["pool"], row["prior"]) for row in rows] == [
        (size, kind) for size in (40, 80, 90) for kind in kinds
    ]
    for row in rows:
        replays = row["prior"] == "pool"
        assert row["passed"] is not replays
        assert (row["nn_ratio"] < 0.1) == replays
        assert (row["mia_advantage"] == 1.0) == replays
        assert row["mia_advantage"] <= row["mia_upper"]
    assert rows == audit_rows("cube", gaussian_pool(120), sizes=(40, 80, 500), kinds=kinds)
