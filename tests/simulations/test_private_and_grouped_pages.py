"""Pages about a private default adapter, and about when a prior pays."""

from __future__ import annotations

from typing import Any

from fedcert.simulations.benchmarks.domains_page import domains_page
from fedcert.simulations.benchmarks.privacy_page import _trunk, privacy_page

MACHINE = {"cores": 2, "cpu": "a processor"}
TRAINING = {"steps": 8, "batch_size": 16, "examples": 20}


def _bound(mean: str, certificate: float, **more: Any) -> dict[str, Any]:
    about = {"scenario": "named-intents", "clients": 128, "clip": 1.5, "n": 16}
    return about | {"mean": mean, "certificate": certificate, "error": 0.1, **more}


def test_a_private_default_is_compared_with_the_plain_one_and_with_none() -> None:
    table = [
        _bound("none: the base model", 0.5),
        _bound("plain", 0.4),
        _bound("clipped", 0.41),
        _bound("noised", 0.425, epsilon=8.0, delta_p=1e-5, noise_deviation=0.0123),
    ]
    record = {
        "training": TRAINING, "table": table, "dimension": 33, "new": 20, "delta": 0.05,
        "draws": 5, "clip_clients": 8, "longer_than_clip": 0.5, "seed": 0, "machine": MACHINE,
    }  # fmt: skip
    page = privacy_page(record)
    assert "| noised | 8 | 0.012 | 0.425 | 0.100 |" in page
    assert "gains 0.100 on the base model; of that, noise keeps 75% at epsilon 8." in page
    # A share of a gain that may be noise itself says nothing: bounds are compared instead.
    table[1]["certificate"], table[3]["certificate"] = 0.49, 0.489
    page = privacy_page(record)
    assert "too little to take shares of it" in page
    assert "by -0.001 at epsilon 8 (below 0 they are lower)." in page
    assert "noise keeps" not in page
    table[1]["certificate"] = 0.499
    assert "next to nothing" in privacy_page(record)


def test_a_private_base_model_is_compared_with_the_base_model_as_it_was() -> None:
    def row(base: str, certificates: list[float], **more: Any) -> dict[str, Any]:
        return {"base": base, "certificates": certificates, "errors": [0.2, 0.4], **more}

    noised = {"delta_p": 1e-5, "clip": 4.0, "noise_deviation": 0.0123}
    table = [
        row("as it was", [0.5, 0.6]),
        row("warmed up", [0.4, 0.4]),
        row("with noise", [0.5, 0.5], epsilon=2.0, **noised),
        row("with noise", [0.4, 0.5], epsilon=8.0, **noised),
    ]
    trunk = {
        "scenario": "digits", "clients": 512, "new": 2, "n": 64, "seeds": [0], "table": table
    }  # fmt: skip
    lines = _trunk(trunk)
    # A part that was measured alone has a page as well.
    assert lines[0] in privacy_page({"machine": MACHINE, "trunk": trunk})
    assert "| as it was | none | none | 0.550 | - | 0.300 |" in lines
    assert "| warmed up | none | none | 0.400 | +0.150 ± 0.050 | 0.300 |" in lines
    # The gain is of pairs: both clients gained the same here.
    assert "| with noise | 8 | 0.0123 | 0.450 | +0.100 ± 0.000 | 0.300 |" in lines
    assert lines.index("| with noise | 2 | 0.0123 | 0.500 | +0.050 ± 0.050 | 0.300 |") == (
        lines.index("| with noise | 8 | 0.0123 | 0.450 | +0.100 ± 0.000 | 0.300 |") + 1
    )


def _row(prior: str, risk: float, **more: Any) -> dict[str, Any]:
    about = {"domains": 10, "pool": 32, "seed": 0, "directions": 9, "alone": 0.2}
    return about | {"prior": prior, "risks": [{"m": 1000, "risk": risk, "se": 0.01}], **more}


def test_priors_are_compared_with_the_gaussian_where_all_are_measured() -> None:
    record = {
        "training": TRAINING, "new": 60, "seeds": [0], "machine": MACHINE, "planning": [],
        "table": [_row("diffusion", 0.09, best_step=50), _row("gaussian", 0.1)],
    }  # fmt: skip
    page = domains_page(record)
    assert "| 32 | diffusion | 9 | 50 | 0.090 ± 0.010 |" in page
    assert "| 10 | 32 | 0.90 |" in page
    assert "worst quarter" not in page
    # A prior that is not measured yet at another pool leaves that pool out.
    record["table"].append(_row("gaussian", 0.1, pool=128))
    assert "| 10 | 128 |" not in domains_page(record)
    record["planning"] = [
        {"domains": 10, "n": 16, "objective": "tail", "recipe": "union", "planners": 32,
         "certificate": 0.4, "worst_quarter": 0.5, "change": 0.004, "change_se": 0.002}
    ]  # fmt: skip
    assert "| 10 | 16 | tail | union | 0.400 | 0.500 | +0.004 ± 0.002 |" in domains_page(record)
    about = {"machine": {"cores": 1, "cpu": "another"}}
    apart = domains_page(record | {"parts": {"planning": about}, "table": []})
    assert "Machine: 1 cores (another). What `planning.objective` does: 32 planning" in apart
    assert "Where each prior begins" not in apart
