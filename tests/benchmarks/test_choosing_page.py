"""The page on recipes says what other records say."""

from __future__ import annotations

from typing import Any

from fedcert.simulations.benchmarks.choosing_page import choosing_page


def _named(
    method: str, n: int, certificate: float, seed: int = 0, clients: int = 8
) -> dict[str, Any]:
    return {
        "clients": clients,
        "scenario": "s",
        "setting": "mixed",
        "method": method,
        "n": n,
        "certificate": certificate,
        "seed": seed,
    }


def _sweep(pool: int, prior: str, recipe: str, certificate: float) -> dict[str, Any]:
    return {
        "sweep": "pool",
        "scenario": "digits",
        "pool": pool,
        "prior": prior,
        "recipe": recipe,
        "certificate": certificate,
    }


def test_the_lowest_and_how_far_the_plan_is_behind() -> None:
    table = [
        _named("planned", 16, 0.25),
        _named("planned", 16, 0.35, seed=1),
        _named("default", 16, 0.2),
        _named("default", 16, 0.3, seed=1),
        _named("zero-shot", 16, 0.45),
        _named("zero-shot", 16, 0.45, seed=1),
        # Only one seed has it: a mean over other clients is no rival.
        _named("posterior mean", 16, 0.1),
        # So it is where only some clients have it.
        _named("union of 4", 16, 0.1, clients=2),
        _named("union of 4", 16, 0.1, seed=1, clients=2),
    ]
    page = choosing_page({"named": {"table": table}})
    assert "| s, mixed | 16 | 0.250 | default | 0.300 | 0.050 | 0.450 |" in page


def test_labels_needed() -> None:
    table = [
        _named(method, n, certificate)
        for method, figures in {"planned": (0.3, 0.15), "zero-shot": (0.1, 0.1)}.items()
        for n, certificate in zip((16, 32), figures, strict=True)
    ]
    page = choosing_page({"named": {"table": table}})
    assert "| s, mixed | 32 | 32 | 16 | none was enough | none was enough | 16 |" in page


def test_recipes_beside_a_fine_tune_of_another_record() -> None:
    recipes = [{"scenario": "digits", "n": 8, "recipe": "planned", "mean_certificate": 0.5}]
    methods = [
        {"scenario": "digits", "n": 8, "method": name, "certificate": value}
        for name, value in (("local LoRA", 0.6), ("local LoRA", 0.8), ("FedProx", 0.1))
    ]
    page = choosing_page({"certificates": {"table": recipes}, "methods": {"table": methods}})
    assert "| digits | 8 | 0.500 | planned | 0.500 | 0.000 | 0.700 |" in page


def test_from_which_pool_on() -> None:
    rows = [
        _sweep(16, "diffusion", "union", 0.4),
        _sweep(16, "diffusion", "hybrid 0.25", 0.3),
        _sweep(16, "diffusion", "local LoRA", 0.25),
        _sweep(16, "gaussian", "union", 0.5),
    ]
    page = choosing_page({"sweeps": {"n": 64, "table": rows}})
    assert "| digits | 16 | 0.300 (hybrid 0.25) | 0.500 (union) | 0.250 |" in page


def test_without_records_there_is_no_figure() -> None:
    assert "| digits" not in choosing_page({})


def test_the_prior_beside_other_methods_on_the_seeds_that_it_has() -> None:
    def row(method: str, seed: int, certificate: float) -> dict[str, Any]:
        by_n = [{"n": 8, "certificate": certificate}]
        return {"scenario": "s", "method": method, "seed": seed, "by_n": by_n}

    rows = [
        row("prior", 0, 0.5),
        row("prior, planned", 0, 0.3),
        row("local", 0, 0.4),
        row("local", 1, 0.1),
        row("fedrep", 0, 0.5),
    ]
    page = choosing_page({"launched": {"table": rows}})
    assert "| s | 8 | 1 | 0.300 | 0.400 | local |" in page
    page = choosing_page({"launched": {"table": [*rows, row("fedavg", 2, 0.1)]}})
    assert "| s | 8 |" not in page


def test_with_a_warm_start_and_without() -> None:
    def row(kind: str, seed: int, certificate: float, recipe: str) -> dict[str, Any]:
        return {
            "scenario": "s", "n": 8, "warm_start": kind, "seed": seed,
            "certificate": certificate, "recipe": recipe,
        }  # fmt: skip

    rows = [
        row("none", 0, 0.4, "union"),
        row("none", 1, 0.5, "hybrid 0.25"),
        row("none", 2, 0.9, "union"),
        row("standard", 0, 0.2, "local_head 0.5"),
        row("standard", 1, 0.3, "local_head 0.5"),
        row("meta", 2, 0.1, "union"),
    ]
    page = choosing_page({"warm_start": {"table": rows}})
    assert "| s | 8 | 0.450 | union, hybrid 0.25 | 0.250 | local_head 0.5 |" in page
    assert "With a warm start" not in choosing_page({"warm_start": {"table": rows[:3]}})
