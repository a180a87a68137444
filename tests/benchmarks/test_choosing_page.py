"""The page on recipes says what other records say, and nothing that they do not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import pytest

from fedcert.simulations.benchmarks.choosing_advice import sizes_in_words
from fedcert.simulations.benchmarks.choosing_figures import mean_of
from fedcert.simulations.benchmarks.choosing_page import choosing_page
from fedcert.simulations.benchmarks.task_coverage import task_coverage

NAMED = {
    "default": "default",
    "head": "head from names of the default 0.5",
    "alone": "zero-shot",
}


def _named(
    method: str, n: int, gaps: Sequence[float], *, clients: int = 8, plan: float = 0.3
) -> list[dict[str, Any]]:
    """Return a row for each seed: how much higher than the plan a method is."""
    return [
        {
            "scenario": "s",
            "setting": "mixed",
            "method": method,
            "n": n,
            "seed": seed,
            "clients": clients,
            "certificate": plan + gap,
            "se": 0.0,
            "above_planned": gap,
            "above_planned_se": 0.0,
            "limit": 0.1,
        }
        for seed, gap in enumerate(gaps)
    ]


def _page(*rows: list[dict[str, Any]], plans: Sequence[dict[str, Any]] = ()) -> str:
    return choosing_page({"named": {"table": list(chain(*rows)), "plans": plans}})


def test_a_difference_is_one_beyond_two_standard_errors() -> None:
    # Over three seeds: 0.04 +- 0.006, and 0.04 +- 0.03.
    clear, vague = (0.03, 0.04, 0.05), (-0.01, 0.04, 0.09)
    page = _page(
        _named("planned", 16, (0, 0, 0)),
        _named(NAMED["default"], 16, clear),
        _named(NAMED["head"], 16, vague),
    )
    assert "| default | **+0.040 ± 0.006** |" in page
    assert "| head from names of the default 0.5 | +0.040 ± 0.029 |" in page
    assert "is worse than the plan in 1 of 1 cases (by 0.040), and better in 0." in page
    assert "is worse than the plan in 0 of 1 cases, and better in 0." in page
    assert "| `s` (mixed) | 16 | `▼` | `~` |" in page
    assert "of 2 comparisons" in page
    assert "the plan is lower in 1, higher in none, the very same in 0, and 1 show" in page


def test_the_standard_error_over_clients_counts_where_it_is_larger() -> None:
    assert mean_of([(0.1, None, 4), (0.1, None, 4)]).se == 0
    assert mean_of([(0.1, 0.3, 4), (0.1, 0.4, 4)]).se == pytest.approx(0.25)
    assert mean_of([(0.1, None, 4)]).se is None
    assert mean_of([(0.1, None, 4)]).sign == 0
    assert mean_of([(-0.1, 0.04, 4)]).sign == -1


def test_the_advice_turns_when_the_figures_do() -> None:
    planned = _named("planned", 16, (0, 0, 0))
    worse = _page(planned, _named("default", 16, (0.03, 0.04, 0.05)))
    better = _page(planned, _named("default", 16, (-0.03, -0.04, -0.05)))
    neither = _page(planned, _named("default", 16, (-0.03, 0.0, 0.05)))
    assert "**Let clients plan" in worse
    assert "**Set a recipe by hand**" in better
    assert "higher in 1 (than default on `s` (mixed) at n = 16, by 0.040)" in better
    assert "in 0 of 1 cases, and better in 1 (by 0.040)." in better
    assert "| `s` (mixed) | 16 | `▲` |" in better
    assert "**Whether to plan makes no difference that shows**" in neither


def test_one_seed_is_in_the_tables_alone() -> None:
    page = _page(_named("planned", 16, (0,)), _named("default", 16, (0.2,)))
    assert "there is no advice on recipes" in page
    assert "in the tables alone: `s` (mixed), 1 seed." in page
    assert "1 seed, 8 new clients in all" in page
    assert "**The default adapter alone**" not in page
    # A single seed without an error over seeds, and with one of 0 over clients.
    assert "| `s` (mixed) | 16 | `(▼)` |" in page


def test_what_some_clients_have_says_so_and_is_no_best() -> None:
    page = _page(
        _named("planned", 16, (0, 0, 0)),
        _named("zero-shot", 16, (0.03, 0.04, 0.05)),
        _named("head from names 0.5", 16, (-0.2, -0.2, -0.2), clients=2),
        _named("union of 50", 16, (0.1, 0.1, 0.1), clients=2),
    )
    assert "| head from names 0.5 (6 of 24 clients) | **-0.200 ± 0.000** |" in page
    # The lowest of a few clients is mostly luck, so that `alone` is what all of them have.
    alone = page[page.index("**Training or certifying alone") :].splitlines()[0]
    assert alone.endswith("in 1 of 1 cases (`s` (mixed); by 0.040), and better in 0.")
    assert "| `s` (mixed) | 16 | `▼` \\* | `▼` |" in page


def test_the_very_same_is_not_called_a_comparison_without_difference() -> None:
    page = _page(_named("planned", 16, (0, 0, 0)), _named("default", 16, (0, 0, 0)))
    assert "| default | the same |" in page
    assert "the very same in 1, and 0 show no difference" in page
    assert "| `s` (mixed) | 16 | `=` |" in page


def test_an_n_that_was_not_measured_has_a_sign_of_its_own() -> None:
    planned = [_named("planned", n, (0, 0, 0)) for n in (16, 32)]
    page = _page(*planned, _named("default", 32, (0.03, 0.04, 0.05)))
    assert "| `s` (mixed) | 16, 32 | `- ▼` |" in page


def test_what_was_planned() -> None:
    plans = [
        {"scenario": "s", "setting": "mixed", "seed": 0, "n": 16, "recipe": "default"},
        {"scenario": "s", "setting": "mixed", "seed": 0, "n": 32, "recipe": "hybrid 0.25"},
    ]
    planned = [_named("planned", n, (0,)) for n in (16, 32, 64)]
    page = _page(*planned, plans=plans)
    # A size that nobody planned for takes the next smaller one's recipe.
    assert "a search of the prior: `s` (mixed) from n = 32 on" in page
    assert "what is trained from it: `s` (mixed) at n = 16" in page
    assert "| *planned recipes* | default | hybrid 0.25 | hybrid 0.25 |" in page


def _certificates(method: str, by_n: dict[int, Sequence[float]]) -> list[dict[str, Any]]:
    return [row for n, values in by_n.items() for row in _named(method, n, values, plan=0.0)]


def test_a_crossing_on_a_knifes_edge_is_a_range() -> None:
    page = _page(
        _certificates("planned", {64: (0.16, 0.201, 0.241), 128: (0.1, 0.12, 0.14)}),
        _certificates("zero-shot", {64: (0.16, 0.2, 0.239), 128: (0.1, 0.12, 0.14)}),
        _certificates("head from names 0.5", {64: (0.3, 0.3, 0.3), 128: (0.3, 0.3, 0.3)}),
    )
    plan = "64 to 128 (64: 0.201 ± 0.023; 128: 0.120 ± 0.012)"
    other = "zero-shot: 64 to 128 (64: 0.200 ± 0.023; 128: 0.120 ± 0.012)"
    assert (
        f"| `s` (mixed) | 3, 24 | 20% | {plan} | not in this record | {other} | 64 (64" in page
    )
    sure = _page(_certificates("planned", {64: (0.19, 0.19, 0.19), 128: (0.1, 0.1, 0.1)}))
    assert "| 20% | 64 (64: 0.190 ± 0.000) |" in sure


def test_never_is_more_than_the_largest_n() -> None:
    page = _page(_certificates("planned", {16: (0.3, 0.3, 0.3), 32: (0.15, 0.15, 0.15)}))
    assert "| 20% | 32 (16: 0.300 ± 0.000; 32: 0.150 ± 0.000) |" in page
    assert "| 10% | > 32 (32: 0.150 ± 0.000) |" in page


def _method(method: str, seed: int, certificate: float, up: int = 1) -> dict[str, Any]:
    return {
        "scenario": "digits", "method": method, "n": 8, "seed": seed, "clients": 12,
        "certificate": certificate, "up_bytes": up, "limit": 0.2,
    }  # fmt: skip


def test_tuned_methods_are_paired_by_seed() -> None:
    # Seeds differ much, and methods on each of them little.
    level = (0.2, 0.5, 0.8)
    rows = [
        row
        for seed, mean in enumerate(level)
        for row in (
            _method("fedcert planned", seed, mean),
            _method("local LoRA", seed, mean + 0.02 + seed / 1000, up=0),
            _method("FedProx", seed, mean - 0.02 - seed / 1000),
        )
    ]
    page = choosing_page({"methods": {"table": rows, "limit_methods": ["posterior mean"]}})
    assert "| local LoRA | **+0.021 ± 0.001** |" in page
    assert (
        "**Another federated method, the best at each n by hindsight** is worse than the "
        in (page)
    )
    assert "in 0 of 1 cases, and better in 1 (`digits` (tuned); by 0.021)." in page
    assert "| `digits` (tuned) | 8 | `▼` | `▲` |" in page
    assert "the best of posterior mean, each learned from all n" in page


def _launched(
    method: str, seed: int, bounds: Sequence[float], *, up: int = 1, scenario: str = "s"
) -> dict[str, Any]:
    mean = sum(bounds) / len(bounds)
    return {
        "scenario": scenario, "method": method, "seed": seed, "n": 8, "clients": len(bounds),
        "bounds": bounds, "up_bytes": up,
        "by_n": [{"n": n, "certificate": mean, "limit": 0.1} for n in (4, 8)],
    }  # fmt: skip


def _launched_page(*rows: dict[str, Any], named: bool = False) -> str:
    case = {"scenario": "s", "named": named}
    return choosing_page({"launched": {"cases": [case], "table": list(rows)}})


def test_launched_methods_are_paired_by_client() -> None:
    plan, other = (0.1, 0.5, 0.9), (0.14, 0.54, 0.95)
    page = _launched_page(
        _launched("prior, planned", 0, plan),
        _launched("local", 0, other, up=0),
        _launched("fedavg", 1, (0.0, 0.0, 0.0)),
    )
    # At the largest n there are bounds by client; no seed of the plan has fedavg.
    assert "| local | +0.043 | **+0.043 ± 0.003** |" in page
    assert "1 seed, 3 new clients in all" in page
    assert "| federated" not in page


def test_launched_seeds_are_those_that_are_there() -> None:
    rows = [
        row
        for seed in range(3)
        for row in (
            _launched("prior, planned", seed, (0.3, 0.3)),
            _launched("fedavg", seed, (0.34 + seed / 100, 0.34 + seed / 100)),
        )
    ]
    page = _launched_page(*rows, _launched("fedrep", 0, (0.1, 0.1)))
    assert "3 seeds, 6 new clients in all" in page
    # fedrep has a single seed, so that it is not the best of what all seeds have.
    assert "in 2 of 2 cases (`s` (launched); by 0.050), and better in 0." in page
    assert "| `s` (launched) | 4, 8 | `▼ ▼` |" in page


def test_where_labels_have_names_the_prior_is_planned() -> None:
    rows = _launched("prior", 0, (0.3, 0.3)), _launched("default", 0, (0.4, 0.4))
    assert "| default | +0.100 | **+0.100 ± 0.000** |" in _launched_page(*rows, named=True)
    assert "### `s` (launched)" not in _launched_page(*rows)


@pytest.mark.parametrize(
    ("other", "said"),
    [(0.45, "in 0 of 1 cases, and above that of the best by up to 0.050 (`union`"),
     (0.55, "in 1 of 1 cases.")],
)  # fmt: skip
def test_tables_without_differences_by_client_are_told(other: float, said: str) -> None:
    rows = [
        {"scenario": "politeness", "n": 16, "recipe": name, "mean_certificate": mean}
        for name, mean in (("planned", 0.5), ("union", other))
    ]
    page = choosing_page({"certificates": {"table": rows}})
    assert f"are not counted: there the plan's mean is the lowest {said}" in page


def _sweep(pool: int, recipe: str, certificate: float) -> dict[str, Any]:
    return {
        "sweep": "pool", "scenario": "digits", "pool": pool, "prior": "diffusion",
        "recipe": recipe, "certificate": certificate, "se": 0.01, "clients": 4, "seeds": [0],
    }  # fmt: skip


def test_from_which_pool_on() -> None:
    rows = [
        row
        for pool, union in ((16, 0.4), (32, 0.26), (64, 0.2))
        for row in (_sweep(pool, "union", union), _sweep(pool, "local LoRA", 0.25))
    ]
    page = choosing_page({"sweeps": {"n": 64, "table": rows}})
    assert "union lower with 64, no difference with 32, higher with 16." in page
    assert (
        "with 16 every recipe is higher than training alone; with 32 the lowest is no" in page
    )
    assert "| `digits` | diffusion | 16 | 0.400 ± 0.010 | 0.250 ± 0.010 |" in page


def test_without_records_there_is_no_figure() -> None:
    page = choosing_page({})
    assert "there is no advice" in page
    assert "± 0" not in page
    assert "## How many labels" not in page


def test_with_a_warm_start_and_without() -> None:
    def row(kind: str, seed: int, certificate: float, recipe: str) -> dict[str, Any]:
        return {
            "scenario": "s", "n": 8, "warm_start": kind, "seed": seed, "clients": 4,
            "certificate": certificate, "recipe": recipe,
        }  # fmt: skip

    rows = [
        row("none", 0, 0.4, "union"),
        row("none", 1, 0.5, "hybrid 0.25"),
        row("none", 2, 0.9, "union"),
        row("standard", 0, 0.2, "local_head 0.5"),
        row("standard", 1, 0.32, "local_head 0.5"),
        row("meta", 2, 0.1, "union"),
    ]
    page = choosing_page({"warm_start": {"table": rows}})
    change = "0.450 | 0.260 | **-0.190 ± 0.010**"
    assert f"| `s` | 8 | 2, 8 | {change} | union, hybrid 0.25 | local_head 0.5 |" in page
    assert "  * lower: `s` at n = 8" in page
    rows[4] = row("standard", 1, 0.6, "local_head 0.5")
    assert "  * no difference: `s` at n = 8" in choosing_page({"warm_start": {"table": rows}})
    assert "warm start" not in choosing_page({"warm_start": {"table": rows[:3]}})


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ([16], "at n = 16"),
        ([16, 32], "up to n = 32"),
        ([32, 64], "from n = 32 on"),
        ([16, 64], "at n = 16, 64"),
        ([64, 32, 16], "at every n"),
    ],
)
def test_sizes_in_words(sizes: list[int], said: str) -> None:
    assert sizes_in_words(sizes, [16, 32, 64]) == said


def test_what_is_measured_of_each_task() -> None:
    launched = {
        "seeds": [0, 1, 2],
        "cases": [{"scenario": "s"}, {"scenario": "t"}],
        "table": [{"scenario": "s", "seed": 0, "clients": 12}],
        "unfinished": [
            {"scenario": "s", "seed": 0, "method": "fedl2p"},
            {"scenario": "s", "seed": 1, "method": "fedl2p"},
        ],
    }
    certificates = {
        "seeds": {"s": [0, 1]},
        "table": [{"scenario": "s", "recipe": "union", "clients": 20}],
    }
    lines = task_coverage(
        {"launched": launched, "certificates": certificates},
        {"launched": "launched.md", "certificates": "certificates.md"},
    )
    assert "| `s` | 1 of 3 x 12* | 2 x 10 |" in lines
    assert "| `t` | 0 of 3 |  |" in lines
    assert task_coverage({}, {}) == []
