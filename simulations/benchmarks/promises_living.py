"""Living bounds against the number of spot checks, for new clients of `digits`.

``python -m fedcert.simulations.benchmarks.promises_living`` measures and renders the section of
docs/theory.md. The run is kept in the cache, and goes on if it died.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.bundles import Bundle
from fedcert.cache import cache_folder
from fedcert.certificates import Certificate, Recipe, RecipeTable, binomial_upper_bound
from fedcert.certificates.monitoring import RiskWatch
from fedcert.certificates.spot_checks import living_bound
from fedcert.personalization import personalize
from fedcert.randomness import keyed_generator
from fedcert.records.signing import generate_key
from fedcert.reports.formats import decimal_up
from fedcert.runs.machine import describe_machine, versions
from fedcert.scenarios import load_scenario
from fedcert.search import exported_wrong
from fedcert.settings import RunSettings
from fedcert.simulations.benchmarks.options import without_options
from fedcert.simulations.benchmarks.publishing import between_markers, page_of, publish
from fedcert.simulations.simulating import simulate

__all__ = ["LOOKS", "documents", "living_rows", "main", "measured", "table"]

SEED = 0
RECIPES = ("split", "union")
_SIZE = 64
LOOKS = (0, 8, 16, 32, 64, 128, 256, 400)
_PAGE = "theory.md"


def main() -> None:
    """Measure, write ``results/living.json``, and put the table into docs/theory.md."""
    record = {
        "command": "make bench-living",
        "seed": SEED,
        "machine": describe_machine(),
        "versions": versions(),
        "table": list(measured()),
    }
    publish("living", record, documents(record))


def documents(record: dict[str, Any]) -> dict[str, str]:
    """Return what is rendered from a record, by path below ``docs/``."""
    return {_PAGE: between_markers(page_of(_PAGE), "living", table(record))}


def measured() -> Iterator[dict[str, Any]]:
    """Serve 20 new clients of `digits` by each recipe; yield a row a client and look."""
    settings = RunSettings.from_mapping(
        {
            "seed": SEED,
            "scenario": {"name": "digits", "options": {"upstream": 96, "new": 20}},
            "certificate": {"recipe": "split", "split_from": 1, "support_size": _SIZE},
        }
    )
    output = cache_folder() / "promises-living" / "split"
    if not (output / "bundle").is_dir():
        simulate(settings, output=output, runner="inprocess")
    scenario = load_scenario("digits", settings.scenario.options)
    bundle = Bundle.load(output / "bundle")
    task = bundle.task(bundle.load_base(str(scenario.base_model())))
    for name in RECIPES:
        recipe = Recipe.from_config({"kind": name, "candidates": 1000, "delta": 0.05})
        changed = replace(bundle, recipes=RecipeTable(((1, recipe),)))
        for client in scenario.new_clients:
            with TemporaryDirectory() as folder:
                record = personalize(
                    changed,
                    task.model(),
                    scenario.support_examples(client, _SIZE),
                    client=client,
                    key=generate_key(),
                    folder=Path(folder),
                    duplicates_are_real=scenario.duplicates_are_real,
                ).certificate
                examples = scenario.test_examples(client)
                assert examples is not None  # digits has some of every client
                wrong = exported_wrong(
                    task,
                    Path(folder) / "adapter",
                    examples,
                    margin_tolerance=recipe.margin_tolerance,
                )
            # With replacement: then the risk over all test examples is known exactly.
            drawn = keyed_generator("spot checks", client, SEED).integers(
                len(wrong), size=max(LOOKS)
            )
            for row in living_rows(record, wrong[drawn], LOOKS):
                yield {"recipe": name, "client": client, "risk": float(wrong.mean())} | row


def living_rows(
    certificate: Certificate, wrong: npt.NDArray[np.bool_], looks: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Compare the bound after spot checks with a fresh certificate on the same number.

    Parameters
    ----------
    certificate : Certificate
        What the client got.
    wrong : numpy.ndarray
        Outcomes of the spot checks in their order, bool, shape (T,).
    looks : sequence of int
        After how many to look.

    Yields
    ------
    dict
        ``checks, errors, living, fresh, certified, alarm``. Fresh is the exact bound of an
        adapter that was fixed before, at the certificate's delta, for somebody who fixed the
        number beforehand and looks once.
    """
    watch, done = RiskWatch(bound=certificate.bound, alpha=0.05), 0
    for look in looks:
        watch, done = watch.updated(wrong[done:look].tolist()), look
        fresh = binomial_upper_bound(watch.errors, look, certificate.recipe.delta)
        yield {
            "checks": look,
            "errors": watch.errors,
            "living": living_bound(certificate, watch),
            "fresh": fresh,
            "certified": certificate.bound,
            "alarm": watch.alarmed,
        }


def table(record: dict[str, Any]) -> str:
    """Render means over clients: a row for each number of spot checks."""
    rows = record["table"]
    clients = {(row["recipe"], row["client"]): row for row in rows}
    false = len({(row["recipe"], row["client"]) for row in rows if row["living"] < row["risk"]})
    alarmed = sum(row["alarm"] for row in clients.values())
    lines = [
        f"Measured on `digits`: {len(clients)} certificates from n = 64, mean bound after "
        f"spot checks drawn from each client's test examples (`make bench-living`). Of them "
        f"{false} had a living bound below the true risk at one of these looks, and "
        f"{alarmed} an alarm.",
        "",
        "| spot checks | " + " | ".join(f"{name}: living | fresh" for name in RECIPES) + " |",
        "|---" * (1 + 2 * len(RECIPES)) + "|",
    ]
    for look in LOOKS:
        cells = [
            decimal_up(
                fmean(
                    row[kind] for row in rows if (row["recipe"], row["checks"]) == (name, look)
                )
            )
            for name in RECIPES
            for kind in ("living", "fresh")
        ]
        lines.append(f"| {look} | {' | '.join(cells)} |")
    certified = [
        fmean(row["certified"] for key, row in clients.items() if key[0] == name)
        for name in RECIPES
    ]
    risks = [
        fmean(row["risk"] for key, row in clients.items() if key[0] == name) for name in RECIPES
    ]
    told = [
        f"{name} {decimal_up(bound)} at a true risk of {risk:.3f}"
        for name, bound, risk in zip(RECIPES, certified, risks, strict=True)
    ]
    lines += ["", f"The certificates themselves say on average: {', '.join(told)}."]
    return "\n".join(lines)


if __name__ == "__main__":
    without_options("living", __doc__)
    main()
