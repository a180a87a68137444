"""Counting a certificate's errors with the adapter as it was exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from fedcert.adapters.exported_model import exported_model
from fedcert.adapters.grouping import batches, length_groups
from fedcert.adapters.task import Task
from fedcert.data.examples import Examples
from fedcert.devices import exact_float32, moved
from fedcert.search.scores import margins_and_losses

__all__ = ["exported_logits", "exported_wrong"]

# Examples that are read at once, and bytes of activations: more would take memory.
_BATCH, _ACTIVATIONS = 64, 64 * 2**20


def exported_wrong(
    task: Task,
    adapter: Path,
    examples: Examples,
    *,
    margin_tolerance: float,
) -> npt.NDArray[np.bool_]:
    """Load an adapter folder with stock PEFT and say which predictions count as errors.

    Parameters
    ----------
    task : Task
        Its base model is left as it is; PEFT wraps a copy.
    adapter : Path
        A folder that `fedcert.adapters.write_peft_adapter` wrote.
    examples : Examples
        What to predict.
    margin_tolerance : float
        See `fedcert.search.Scorer`.

    Returns
    -------
    numpy.ndarray
        Bool, shape ``(examples,)``.
    """
    logits = torch.from_numpy(exported_logits(task, adapter, examples))
    margins, _ = margins_and_losses(logits, torch.from_numpy(examples.labels))
    wrong: npt.NDArray[np.bool_] = (margins <= margin_tolerance).numpy()
    return wrong


@torch.inference_mode()
@exact_float32()
def exported_logits(task: Task, adapter: Path, examples: Examples) -> npt.NDArray[np.float64]:
    """Load an adapter folder with stock PEFT and return its logits, shape ``(examples, K)``.

    Where the base model is; float32 is computed in full (`fedcert.devices.exact_float32`), so
    that a count does not depend on the device.

    Parameters
    ----------
    task : Task
        Its base model is left as it is; PEFT wraps a copy.
    adapter : Path
        A folder that `fedcert.adapters.write_peft_adapter` wrote.
    examples : Examples
        What to predict.

    Returns
    -------
    numpy.ndarray
        Float64, on the CPU.
    """
    model, width = exported_model(task.base, adapter), task.space.targets[0].in_features
    found: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]] = []
    for start in range(0, len(examples), _BATCH):
        part = examples.take(slice(start, start + _BATCH))
        # Texts of one length together: nothing is padded, so that no text has a say in what
        # another one becomes.
        for members, inputs in length_groups(task.encode(part), step=1):
            for some, few in batches(inputs, width=width, budget=_ACTIVATIONS):
                logits = model(**moved(few, task.base.device)).logits.cpu().double()
                found.append((start + members[some].numpy(), logits.numpy()))
    if not found:
        return np.zeros((0, len(task.labels or ())))
    rows, values = map(np.concatenate, zip(*found, strict=True))
    ordered: npt.NDArray[np.float64] = values[np.argsort(rows)]
    return ordered
