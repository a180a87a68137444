"""Making a base model that classifies by label phrases: a causal language model as it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedcert.errors import ModelError
from fedcert.models.int8 import check_quantization
from fedcert.models.label_config import check_label_order, label_entries
from fedcert.models.label_scorer import LabelScorer, phrase_tokens
from fedcert.models.layout import find_layout
from fedcert.models.pretrained import pretrained
from fedcert.models.saving import cached_base, padding_tokenizer, save_base

__all__ = ["with_label_phrases"]


def with_label_phrases(
    name: str | Path,
    labels: Sequence[str] | None,
    phrases: Sequence[str] | None = None,
    folder: Path | None = None,
    *,
    average: bool = False,
    revision: str | None = None,
    dtype: str = "float32",
    quantization: str = "none",
    depth: int = 0,
) -> Path:
    """Save a causal language model that scores a phrase for each label of a task.

    Parameters
    ----------
    name : str or Path
        Folder or hub id of a decoder that was saved with its language-model head.
    labels : Sequence[str] or None
        Names of the task's classes; None if each client brings labels of its own
        (`BaseModel.with_labels`), which are then no part of the base model.
    phrases : Sequence[str], optional
        What stands behind a prompt for each class, in the same order. A phrase is tokenized
        on its own, so most need a leading space. By default a space and the label.
    folder : Path, optional
        Where the base model goes; by default into the cache, as in `with_task_head`.
    average : bool (default: False)
        Score the mean log-probability of a phrase's tokens instead of the sum, where
        phrases differ in length.
    revision, dtype, quantization, depth
        As in `with_task_head`.

    Returns
    -------
    Path
        The folder, which `load_base_model` takes; it gives a
        `fedcert.models.LabelScorer`. Feed it `fedcert.data.PromptInputs`.

    Raises
    ------
    ModelError
        If the model is no causal language model with a tokenizer, or phrases cannot be told
        apart.
    """
    name = str(name)
    check_quantization(quantization)
    if labels is None and phrases is not None:
        raise ModelError("phrases belong to labels; give the labels, or no phrases either")
    named = list(labels or ())
    if named:
        check_label_order(name, named, revision=revision)
    phrases = [f" {label}" for label in named] if phrases is None else list(phrases)
    if folder is None:
        made_from: dict[str, Any] = {"labels": named, "phrases": phrases}
        made_from |= {"average": average, "dtype": dtype, "mode": quantization, "depth": depth}
        folder = cached_base(name, revision, **made_from)
        if (folder / "config.json").is_file():
            return folder
    tokenizer = padding_tokenizer(name, revision)
    tokens = phrase_tokens(tokenizer, named, phrases, average=average)
    changes = label_entries(named) if named else {}
    model, missing = pretrained(
        name, revision=revision, dtype=dtype, causal=True, depth=depth, **changes
    )
    if missing:
        raise ModelError(
            f"{name!r} has no weights for {', '.join(missing[:3])}: it was not saved as a "
            "causal language model; use with_task_head, which trains a head for the labels"
        )
    find_layout(LabelScorer(model, tokens, average=average))  # both say what does not fit
    model.config.fedcert = {
        "phrases": tokens,
        "average": average,
        "quantization": quantization,
    }
    save_base(model, tokenizer, folder)
    return folder
