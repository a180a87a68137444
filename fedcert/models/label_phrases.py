"""Making a base model that classifies by label phrases: a causal language model as it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedcert.errors import ModelError
from fedcert.models.base import pretrained
from fedcert.models.int8 import check_quantization
from fedcert.models.label_scorer import LabelScorer
from fedcert.models.layout import find_layout
from fedcert.models.task_head import (
    cached_base,
    check_label_order,
    padding_tokenizer,
    save_base,
)

__all__ = ["phrase_tokens", "with_label_phrases"]


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
    revision, dtype, quantization
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
        made_from |= {"average": average, "dtype": dtype, "mode": quantization}
        folder = cached_base(name, revision, **made_from)
        if (folder / "config.json").is_file():
            return folder
    tokenizer = padding_tokenizer(name, revision)
    tokens = phrase_tokens(tokenizer, named, phrases, average=average)
    changes: dict[str, Any] = {}
    if named:
        changes["num_labels"] = len(named)
        changes["id2label"] = dict(enumerate(named))
        changes["label2id"] = {label: index for index, label in enumerate(named)}
    model, missing = pretrained(name, revision=revision, dtype=dtype, causal=True, **changes)
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


def phrase_tokens(
    tokenizer: Any, labels: Sequence[str], phrases: Sequence[str], *, average: bool
) -> list[list[int]]:
    """Tokenize phrases; every one must differ from the others, and not merely go on.

    Parameters
    ----------
    tokenizer : Any
        The model's tokenizer.
    labels : sequence of str
        Names of the labels, for messages.
    phrases : sequence of str
        One phrase for each label.
    average : bool
        Whether the model divides a phrase's score by its number of tokens.

    Returns
    -------
    list of list of int
        Token ids of each phrase.
    """
    if len(phrases) != len(labels):
        raise ModelError(f"there are {len(phrases)} label phrases for {len(labels)} labels")
    tokens = [list(tokenizer(p, add_special_tokens=False)["input_ids"]) for p in phrases]
    for phrase, ids in zip(phrases, tokens, strict=True):
        if not ids or tokenizer.unk_token_id in ids:
            raise ModelError(
                f"the label phrase {phrase!r} is empty or unknown to the tokenizer; use "
                "words that the language model has"
            )
    for row, first in enumerate(tokens):
        for other, second in enumerate(tokens):
            same = first == second
            if (row < other and same) or (
                row != other and not average and not same and (second[: len(first)] == first)
            ):
                raise ModelError(
                    f"the label phrase {phrases[other]!r} begins with {phrases[row]!r}, "
                    "which is then at least as likely on every text; use other phrases"
                )
    return tokens
