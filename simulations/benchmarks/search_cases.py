"""What `make bench-search` measures: models, adapted layers, numbers of examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fedcert.adapters import AdapterSpace, Task
from fedcert.data.examples import Examples
from fedcert.errors import SettingsError
from fedcert.models.base import load_base_model
from fedcert.scenarios import load_scenario
from fedcert.simulations.benchmarks.publishing import say

__all__ = ["Case", "cases"]


@dataclass(frozen=True)
class Case:
    """One row of the benchmark.

    Attributes
    ----------
    model : str
        Name in the table.
    layers : int
        Adapted layers, counted from the top.
    examples : int
        n.
    candidates : int
        Scored by the search.
    plain : int
        Scored by the plain loop in the same turn; it is too slow for all of them.
    precision : str
        What the search ranks in.
    load : callable
        Gives the task and examples.
    """

    model: str
    layers: int
    examples: int
    candidates: int
    plain: int
    precision: str
    load: Callable[[], tuple[Task, Examples]]


def cases() -> Iterator[Case]:
    """Return the cases whose data and models are there, and say what is left out."""
    for layers, count in ((1, 2000), (3, 200)):
        yield _case("digits", "ViT (digits)", layers, 64, candidates=count)
    sizes = {1: (1000, 300), 2: (150, 50), 6: (40, 12)}
    for layers, counts in sizes.items():
        for examples, candidates in zip((64, 256), counts, strict=True):
            try:
                load_scenario("intents", {}).base_model()
            except SettingsError as error:
                say(f"left out: {error}")
                return
            yield _case("intents", "MiniLM", layers, examples, candidates=candidates)
            if (layers, examples) == (1, 64):
                yield _case(
                    "intents",
                    "MiniLM",
                    layers,
                    examples,
                    candidates=candidates,
                    precision="bfloat16",
                )


def _case(
    scenario: str,
    model: str,
    layers: int,
    examples: int,
    *,
    candidates: int,
    precision: str = "float32",
) -> Case:
    def load() -> tuple[Task, Examples]:
        source = load_scenario(scenario, {})
        labels: Any = source.labels
        base = load_base_model(str(source.base_model()), num_labels=len(labels))
        support = source.support_examples(source.new_clients[0], examples)
        space = AdapterSpace.of(base, rank=4, last_layers=layers)
        return Task(base, space, source.inputs), support

    return Case(model, layers, examples, candidates, 4, precision, load)
