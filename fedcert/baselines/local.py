"""Local LoRA fine-tuning: no federation at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import ClassVar, Self

from fedcert.adapters.finetune import FinetuneSettings, finetune
from fedcert.baselines.method import (
    SplitMethod,
    Traffic,
    Upstream,
    constant_adapter,
    float64,
    one_label,
)
from fedcert.data.examples import Examples
from fedcert.priors.base import FloatArray

__all__ = ["LocalLora", "around"]


@dataclass(frozen=True, kw_only=True)
class LocalLora(SplitMethod):
    """Fine-tunes an adapter of the client's own from zero.

    Parameters
    ----------
    settings : FinetuneSettings
        Steps, learning rate and weight decay.
    """

    name: ClassVar[str] = "local LoRA"
    settings: FinetuneSettings = field(default_factory=FinetuneSettings)

    @classmethod
    def variants(cls, upstream: Upstream) -> Sequence[Self]:
        """Try four settings and two fractions."""
        return [
            cls(upstream=upstream, settings=settings, choose_fraction=fraction)
            for settings, fraction in product(around(upstream.training), (0.5, 0.25))
        ]

    def learn(self, examples: Examples) -> FloatArray:
        """Fine-tune; from one label alone, predict that label."""
        if one_label(examples):
            return constant_adapter(self.upstream, examples)
        result = finetune(
            self.upstream.model,
            examples,
            seed=self.upstream.seed,
            settings=self.settings,
        )
        return float64(result.vector)

    def traffic(self) -> Traffic:
        """Return zeros: nothing is sent."""
        return Traffic(0, 0)


def around(settings: FinetuneSettings) -> list[FinetuneSettings]:
    """Return four settings: as upstream, and a third of the rate with three decays.

    A new client has fewer examples than an upstream one. On tuning clients of `intents` the
    learning rate hardly mattered, and less weight decay was better.
    """
    return [
        replace(
            settings,
            learning_rate=settings.learning_rate * rate,
            weight_decay=settings.weight_decay * decay,
        )
        for rate, decay in ((1.0, 1.0), (1 / 3, 1.0), (1 / 3, 0.1), (1 / 3, 0.01))
    ]
