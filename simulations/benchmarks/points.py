"""``make bench-points``: at which depth and precision a device may run, and what each promises.

Every operating point is a federation of its own on the same clients: a base model that is cut
or quantized, its pool, its prior. New clients are certified at all points at once, on the same
examples, as `fedcert points` does it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from fedcert.adapters.peft_format import write_peft_adapter
from fedcert.bundles import Bundle
from fedcert.certificates import (
    Answers,
    Choice,
    Early,
    ExitPromise,
    Recipe,
    RecipeTable,
)
from fedcert.classifier import load_classifier
from fedcert.errors import FedcertError
from fedcert.personalization import personalize_points
from fedcert.personalization.keeping import answers_of
from fedcert.planning import recipe_name
from fedcert.records.signing import key_from_seed
from fedcert.runs.machine import describe_machine, versions
from fedcert.settings.certificates import CertificateSettings
from fedcert.simulations.benchmarks.federations import remembered
from fedcert.simulations.benchmarks.named_site import DELTA, Cell, Client, Site
from fedcert.simulations.benchmarks.points_page import points_page
from fedcert.simulations.benchmarks.promises_kept import Alone, Chosen
from fedcert.simulations.benchmarks.publishing import publish, say
from fedcert.threads import torch_threads

__all__ = ["CELL", "POINTS", "documents", "main", "measure"]

POINTS: dict[str, dict[str, Any]] = {
    "depth-2": {"depth": 2},
    "depth-4": {"depth": 4},
    "int8": {"quantization": "int8"},
    "full": {},
}
"""Options of the base model at each point; a certificate at the last one promises an exit."""
EARLY, LATE = "depth-2", "full"
CELL = Cell(
    scenario="named-intents",
    setting="mixed",
    sizes=(128,),
    new=20,
    fitted=12,
    planners=4,
    planning_size=128,
    options={"test_size": 200},
)
RECIPE = "tuned_head 0.25"
_THRESHOLDS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
_TIMED = 200
_TESTS = 100
_KEY = key_from_seed(bytes(32))
_VERSION = 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and render; with `--output` into a folder of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=CELL.new)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a folder for a part of it")
    options = parser.parse_args(arguments)
    try:
        with torch_threads(1):
            record = measure(replace(CELL, new=options.clients), options.seed)
        publish("points", record, documents(record), folder=options.output)
    except FedcertError as error:
        sys.exit(f"error: {error}")


def documents(record: dict[str, Any]) -> dict[str, str]:
    """Return what is rendered from a record, by path below ``docs/``."""
    return {"points.md": points_page(record)}


def measure(cell: Cell, seed: int) -> dict[str, Any]:
    """Return the benchmark's record, a JSON object.

    Parameters
    ----------
    cell : Cell
        The federation; its only size is the n of every support set.
    seed : int
        Of everything.

    Returns
    -------
    dict
        A row for each client and point, and for each client's policy of two points.
    """
    grounds = {name: Ground(cell, seed, name) for name in POINTS}
    threshold = _planned(grounds)
    for ground in grounds.values():
        ground.threshold = threshold
    rows, exits = [], []
    for client in grounds[LATE].site.measured:
        found = remembered(
            "points",
            {
                "version": _VERSION,
                "grounds": {name: each.identity for name, each in grounds.items()},
                "threshold": threshold,
                "client": client,
            },
            partial(_measured, grounds, client),
        )
        rows += found["points"]
        exits.append(found["exit"])
        say(".", end="")
    say("")
    return {
        "command": "make bench-points",
        "scenario": cell.name,
        "seeds": [seed],
        "n": cell.sizes[0],
        "recipe": RECIPE,
        "delta": DELTA,
        "early": EARLY,
        "late": LATE,
        "threshold": threshold,
        "machine": describe_machine(),
        "versions": versions(),
        "costs": _costs(grounds),
        "table": rows,
        "exits": exits,
    }


@dataclass
class Ground:
    """One operating point: its federation, and the bundle that this publishes.

    Parameters
    ----------
    cell : Cell
        What all points have in common.
    seed : int
        Likewise.
    name : str
        The point's.
    threshold : float
        Of the early exit (default: 0).
    """

    cell: Cell
    seed: int
    name: str
    threshold: float = 0.0

    @cached_property
    def site(self) -> Site:
        """The federation on the point's base model."""
        options = {**self.cell.options, **POINTS[self.name]}
        return Site(replace(self.cell, options=options), self.seed)

    @property
    def identity(self) -> dict[str, Any]:
        """What the point's figures follow from."""
        return self.site.identity(
            recipe=self.recipe.to_config(), base=self.site.base.digest, fitted=self.cell.fitted
        )

    @property
    def recipe(self) -> Recipe:
        """The recipe at this point's part of delta; the last point promises an exit."""
        exits = f"exit={EARLY}@{self.threshold}" if self.name == LATE else ""
        terms = CertificateSettings(
            delta=DELTA, points=", ".join(POINTS), point=self.name, promises=exits
        ).shares()
        found = {recipe_name(recipe): recipe for recipe in self.site.menu}[RECIPE]
        return replace(found, **terms)

    @property
    def bundle(self) -> Bundle:
        """What a device would download."""
        return Bundle(
            base_name=self.name,
            base_revision="local",
            base_digest=self.site.base.digest,
            space=self.site.space,
            prior=self.site.prior,
            inputs=self.site.scenario.inputs,
            labels=(),
            recipes=RecipeTable(((1, self.recipe),)),
            notes={},
        )


def _planned(grounds: dict[str, Ground]) -> float:
    """Return the lowest threshold at which planning clients lose nothing by the exit.

    They are none of those that the priors were fitted to, and no new ones.
    """
    late = grounds[LATE]
    identity = {name: grounds[name].identity for name in (EARLY, LATE)}
    return float(
        remembered("points", {"version": _VERSION, **identity}, partial(_lowest, grounds, late))
    )


def _lowest(grounds: dict[str, Ground], late: Ground) -> float:
    n, names = late.cell.sizes[0], late.site.planners
    seen = [_Both(*(_answers(grounds[p], name, n) for p in (EARLY, LATE))) for name in names]
    alone = sum(int((each.certifying.leads <= each.tolerance).sum()) for each in seen)
    for threshold in _THRESHOLDS:
        promise = ExitPromise(share=1.0, early=EARLY, threshold=threshold)
        found = [
            promise.fulfil(each, late.recipe.ground(promise, Choice(index=0), n))
            for each in seen
        ]
        if sum(outcome.wrong or 0 for outcome in found) <= alone:
            return threshold
    return _THRESHOLDS[-1]


def _answers(ground: Ground, name: str, n: int) -> Answers:
    """Return what a planning client's adapter answers on its certifying examples."""
    examples = ground.site.scenario.training_examples(name).take(slice(0, n))
    return Chosen(ground.site, name, ground.recipe, examples).certifying()


class _Both(Alone):
    """The certifying answers of two points, and nothing else."""

    def __init__(self, early: Answers, late: Answers) -> None:
        super().__init__(late)
        self._early = early

    def early(self, point: str) -> Early:
        """Return the early adapter's answers."""
        return Early(adapter="0" * 64, weight=2**53, choosing=None, certifying=self._early)


def _measured(grounds: dict[str, Ground], client: str) -> dict[str, Any]:
    """Certify a client at all points, and look what is true on its test examples."""
    examples = Client(grounds[LATE].site, client).first(grounds[LATE].cell.sizes[0])
    tests = Client(grounds[LATE].site, client).tests.take(slice(0, _TESTS))
    models = {name: each.site.model(client) for name, each in grounds.items()}
    points = [(each.bundle, models[name]) for name, each in grounds.items()]
    rows, truth = [], {}
    with tempfile.TemporaryDirectory() as folder:
        made = personalize_points(
            points, examples, client=client, key=_KEY, folder=Path(folder)
        )
        for name, each in made.items():
            truth[name] = answers_of(models[name].task, each.adapter, tests)
            certificate = each.certificate
            counts = certificate.errors, certificate.certified_on, certificate.choice
            part = DELTA / len(POINTS)
            rows.append(
                {
                    "client": client,
                    "point": name,
                    "errors": certificate.errors,
                    "certified_on": certificate.certified_on,
                    "bound": certificate.recipe.with_delta(part).bound(*counts),
                    "bound_alone": certificate.recipe.with_delta(DELTA).bound(*counts),
                    "issued": certificate.bound,
                    "error": float((truth[name].leads <= 0).mean()),
                    "seconds": each.seconds,
                }
            )
        said: Any = (made[LATE].certificate.promises or ())[0]
    stays = truth[EARLY].margins > said.threshold
    wrong = np.where(stays, truth[EARLY].leads <= 0, truth[LATE].leads <= 0)
    return {
        "points": rows,
        "exit": {
            "client": client,
            "said": said.to_object(),
            "true_wrong": float(wrong.mean()),
            "true_goes_on": float((~stays).mean()),
        },
    }


def _costs(grounds: dict[str, Ground]) -> dict[str, dict[str, float]]:
    """Measure one client's adapters: layers, weights, and the time of one text."""
    found = {}
    for name, ground in grounds.items():
        client = Client(ground.site, ground.site.measured[0])
        base, texts = client.model.task.base, client.tests.inputs[:_TIMED]
        with tempfile.TemporaryDirectory() as folder:
            write_peft_adapter(
                ground.site.space,
                ground.site.prior.center(),
                Path(folder),
                base_name=base.name,
                base=base,
                labels=client.model.task.labels,
                inputs=ground.site.scenario.inputs.to_config(),
            )
            classifier = load_classifier(folder, base)
            found[name] = {
                "layers": base.layout.count,
                "mib": round(classifier.weights_mib, 1),
                "milliseconds": round(
                    classifier.milliseconds(texts, clock=time.process_time), 2
                ),
            }
    return found


if __name__ == "__main__":
    main()
