"""The reference scorer: the plain loop over PEFT adapters.

It is what a user would write with stock PEFT, without fedcert's own arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedcert.adapters.exported_model import load_head, sharing_copy, without_peft_futures
from fedcert.adapters.peft_format import adapter_and_head
from fedcert.adapters.space import AdapterSpace
from fedcert.adapters.task import Task
from fedcert.data.examples import Examples
from fedcert.devices import exact_float32, moved
from fedcert.errors import AdapterError
from fedcert.models.encoder import EncoderClassifier
from fedcert.search.scores import Scorer, Scores, margins_and_losses

__all__ = ["ReferenceScorer"]


class ReferenceScorer(Scorer):
    """Swaps each candidate into one stock PEFT model and runs it on the examples.

    Parameters
    ----------
    task : Task
        The model; PEFT changes the modules that it wraps, so they are copied, but no frozen
        weight is.
    margin_tolerance : float
        See `Scorer`.
    """

    def __init__(self, task: Task, *, margin_tolerance: float) -> None:
        super().__init__(margin_tolerance=margin_tolerance)
        self._task, space = task, task.space
        own = sharing_copy(task.base.model)
        # PEFT puts its layers into the encoder, whose parts the classifier shares.
        beside = isinstance(own, EncoderClassifier)
        self._model = _peft_model(own.stock if beside else own, space)
        self._classifier: Any = own.eval() if beside else self._model

    @torch.inference_mode()
    @exact_float32()
    def score(
        self,
        vectors: npt.NDArray[np.float64],
        examples: Examples,
        *,
        on_scored: Callable[[int], None] = lambda _count: None,
    ) -> Scores:
        """Score candidates one by one."""
        inputs = moved(self._task.encode(examples), self._task.base.device)
        labels = torch.from_numpy(examples.labels)
        wrong, losses = [], []
        for vector in vectors:
            self._load(vector)
            logits = self._classifier(**inputs).logits.cpu()
            margins, loss = margins_and_losses(logits, labels)
            wrong.append((margins <= self.margin_tolerance).numpy())
            losses.append(loss.numpy())
            on_scored(1)
        return Scores(np.stack(wrong), np.stack(losses))

    def _load(self, vector: npt.NDArray[np.float64]) -> None:
        from peft import set_peft_model_state_dict

        labels = self._task.base.num_labels
        space = self._task.space.holding(len(vector), labels=labels)
        tensors, head = adapter_and_head(space, vector)
        if head:
            load_head(self._classifier, head)
        state = {name: torch.from_numpy(array.copy()) for name, array in tensors.items()}
        result = set_peft_model_state_dict(self._model, state)
        # PEFT says nothing when keys do not match, and leaves the old weights in place.
        lost = [
            key for key in result.missing_keys if "lora_" in key or "modules_to_save" in key
        ]
        if lost or result.unexpected_keys:
            raise AdapterError(
                f"PEFT did not take the adapter: {(lost + result.unexpected_keys)[:3]}"
            )


def _peft_model(model: Any, space: AdapterSpace) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        inference_mode=True,
        r=space.rank,
        lora_alpha=space.rank,
        lora_dropout=0.0,
        target_modules=[target.name for target in space.targets],
        modules_to_save=[space.head_module] if space.head_module else None,
    )
    with without_peft_futures():
        return get_peft_model(model, config).eval()
