"""The page that `fedcert.simulations.benchmarks.structure` renders."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedcert.simulations.benchmarks.pages import left_out, machine_line, standard_error

__all__ = ["structure_page"]

_WAYS = {
    "plain": "leading directions (plain)",
    "bayestune": "found alone (BayesTune)",
    "average": "the net's, of the average client",
    "fedp2eft": "the net's, of one's own inputs (FedP2EFT)",
}


def structure_page(record: dict[str, Any]) -> str:
    """Return the page as Markdown.

    Parameters
    ----------
    record : dict
        As in ``results/structure.json``.
    """
    lines = [
        "# Which parts of an adapter to train",
        "",
        f"Rendered by `{record['command']}`. {machine_line(record)} "
        "Each new client fine-tunes the same shared "
        f"adapter on {record['support']} examples under a budget of gates "
        "([methods.md](methods.md)); rows differ in which gates are kept. All take as many "
        "steps, those in which BayesTune finds gates included, and each has the learning rate "
        "that was best at the smallest budget on upstream clients which no round draws. Errors "
        "are means over new clients, on test examples; in brackets, the mean difference from "
        "plain, ± its standard error over clients. Seeds change the run and not the scenario: "
        "each has the same clients, so a client's errors are averaged over seeds first.",
        "",
        *left_out(record),
    ]
    for scenario in dict.fromkeys(row["scenario"] for row in record["table"]):
        lines += _section(scenario, record)
    return "\n".join(lines)


def _section(scenario: str, record: dict[str, Any]) -> list[str]:
    rows = [row for row in record["table"] if row["scenario"] == scenario]
    budgets = sorted({row["budget"] for row in rows if row["method"] != "shared"})
    nets = [net for net in record["nets"] if net["scenario"] == scenario]
    net = nets[0]
    shared = np.mean([row["error"] for row in rows if row["method"] == "shared"])
    counts = [len(_of(rows, "plain", budget)[0]["kept"]) for budget in budgets]
    lines = [
        f"## `{scenario}`",
        "",
        f"{_whose(rows, record['seeds'][scenario])} The shared adapter alone: {shared:.3f}. "
        f"There are {len(net['gates'])} gates.",
        "",
        "| gates | " + " | ".join(f"{count} kept" for count in counts) + " |",
        "|---|" + "---|" * len(counts),
    ]
    for way, title in _WAYS.items():
        cells = [_cell(rows, way, budget) for budget in budgets]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    kept = [_of(rows, way, budgets[0]) for way in ("bayestune", "fedp2eft")]
    many = f"{len({row['client'] for row in rows})} clients keep"
    many += f" in {len(nets)} seeds" if len(nets) > 1 else ""
    differing = [len({tuple(row["kept"]) for row in some}) for some in kept]
    distances = net["distances"]
    return [
        *lines,
        "",
        f"At the smallest budget the number of different sets of gates that {many} "
        f"is {differing[0]} by BayesTune, and {differing[1]} by the net; plain "
        "keeps "
        f"{_favorites(_of(rows, 'plain', budgets[0]), net['gates'])}, and the net most often "
        f"{_favorites(kept[1], net['gates'])}. Over the net's rounds its mean distance from "
        f"what clients find went from {distances[0]:.4f} to {distances[-1]:.4f} (seed "
        f"{net['seed']}). Learning rates: {_rates(nets)}.",
        "",
    ]


def _of(rows: list[dict[str, Any]], way: str, budget: float) -> list[dict[str, Any]]:
    return [row for row in rows if row["method"] == way and row["budget"] == budget]


def _whose(rows: list[dict[str, Any]], seeds: list[int]) -> str:
    """Say which clients and seeds a section is about."""
    clients = len({row["client"] for row in rows})
    if len(seeds) == 1:
        return f"Seed {seeds[0]}, {clients} clients."
    return f"Seeds {', '.join(map(str, seeds))}, with the same {clients} clients in each seed."


def _cell(rows: list[dict[str, Any]], way: str, budget: float) -> str:
    errors = _by_client(_of(rows, way, budget))
    mean = float(np.mean([*errors.values()]))
    if way == "plain":
        return f"{mean:.3f}"
    plain = _by_client(_of(rows, "plain", budget))
    apart = np.array([error - plain[client] for client, error in errors.items()])
    deviation = standard_error(apart) if len(apart) > 1 else 0.0
    return f"{mean:.3f} ({apart.mean():+.3f} ± {deviation:.3f})"


def _by_client(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the mean error of each client over seeds."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["client"], []).append(row["error"])
    return {client: float(np.mean(errors)) for client, errors in found.items()}


def _favorites(rows: list[dict[str, Any]], names: list[str]) -> str:
    counts = np.bincount([gate for row in rows for gate in row["kept"]], minlength=len(names))
    order = np.argsort(-counts, kind="stable")[:3]
    return ", ".join(
        f"`{names[gate]}` ({counts[gate]} of {len(rows)})" for gate in order if counts[gate]
    )


def _rates(nets: list[dict[str, Any]]) -> str:
    """Say which learning rates were tuned, one for each seed."""
    said = []
    for way, title in _WAYS.items():
        rates = ", ".join(f"{net['rates'][way]:g}" for net in nets)
        said.append(f"{title} {rates}")
    return "; ".join(said)
