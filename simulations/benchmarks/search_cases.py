"""What `make bench-search` measures: models, adapted layers, numbers of examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fedcert.adapters import AdapterSpace, Task
from fedcert.data.examples import Examples
from fedcert.errors import SettingsError
from fedcert.models import with_task_head
from fedcert.models.base import load_base_model
from fedcert.scenarios import load_scenario
from fedcert.simulations.benchmarks.publishing import say
from fedcert.simulations.sources import minilm

__all__ = ["Case", "cases"]

# Where the mean of all tokens is read, the last layer has to run at all of them; where the
# first is, at that alone. With all layers adapted that makes no difference to speak of.
_READINGS = {None: ("MiniLM, mean of tokens", 6), "cls": ("MiniLM, first token", 2)}
# Candidates by adapted layers, for 64 and 256 examples.
_SIZES = {1: (1000, 300), 2: (150, 50), 6: (40, 12)}


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
        yield _case("digits", "ViT (digits)", layers, 64, count)
    try:
        load_scenario("intents", {}).base_model()
    except SettingsError as error:
        say(f"left out: {error}")
        return
    for pooling, (model, most) in _READINGS.items():
        for layers, counts in _SIZES.items():
            if layers > most:
                continue
            for examples, count in zip((64, 256), counts, strict=True):
                yield _case("intents", model, layers, examples, count, pooling=pooling)
                if (layers, examples) == (1, 64):
                    yield _case(
                        "intents",
                        model,
                        layers,
                        examples,
                        count,
                        pooling=pooling,
                        precision="bfloat16",
                    )


def _case(
    scenario: str,
    model: str,
    layers: int,
    examples: int,
    candidates: int,
    *,
    pooling: str | None = None,
    precision: str = "float32",
) -> Case:
    def load() -> tuple[Task, Examples]:
        source = load_scenario(scenario, {})
        labels: Any = source.labels
        folder = source.base_model()
        if pooling is not None:
            folder = with_task_head(minilm(scenario), list(labels), pooling=pooling)
        base = load_base_model(str(folder), num_labels=len(labels))
        support = source.support_examples(source.new_clients[0], examples)
        space = AdapterSpace.of(base, rank=4, last_layers=layers)
        return Task(base, space, source.inputs), support

    return Case(model, layers, examples, candidates, 4, precision, load)
