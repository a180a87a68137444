"""What a model's configuration says of labels: their names, and their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedcert.errors import DataError, ModelError
from fedcert.label_set import LabelSet
from fedcert.models.families import check_family

__all__ = ["check_label_order", "check_order", "check_own_labels", "label_entries"]


def label_entries(labels: Sequence[str]) -> dict[str, Any]:
    """Return the entries of a model's configuration for labels."""
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }


def check_order(name: str, own: Sequence[str], labels: Sequence[str]) -> None:
    """Raise `ModelError` if a model's own labels are those of a task in another order.

    Whoever goes by the names in the model's configuration, as stock pipelines do, would read
    the labels swapped.

    Parameters
    ----------
    name : str
        The model, for the message.
    own, labels : Sequence[str]
        The model's labels and the task's, by index.
    """
    if list(own) != list(labels) and sorted(map(str, own)) == sorted(labels):
        raise ModelError(
            f"the base model {name!r} has the labels {', '.join(own)}, in this order, and the "
            f"task has {', '.join(labels)}: write the task's labels in the order of the model"
        )


def check_label_order(name: str, labels: Sequence[str], *, revision: str | None) -> None:
    """Raise `ModelError` if a model's configuration has the same labels in another order.

    Everything that was made with such a model, a pool say, has them in its order: the labels
    would be swapped without a word.

    Parameters
    ----------
    name : str
        A folder or hub id.
    labels : sequence of str
        The task's labels, by index.
    revision : str or None
        Hub revision.
    """
    from transformers import AutoConfig

    revision = check_family(name, revision)
    try:
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
        own = [config.id2label[index] for index in range(len(config.id2label))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # loading the model says what is wrong with it, if anything
    check_order(name, own, labels)


def check_own_labels(
    name: str,
    own: Sequence[str],
    labels: LabelSet | Sequence[str],
    descriptions: Mapping[str, str] | None,
) -> None:
    """Raise `DataError` unless labels are those of a head that was made for its own.

    Parameters
    ----------
    name : str
        The base model, for the message.
    own : Sequence[str]
        The head's labels by index.
    labels : LabelSet or Sequence[str]
        The labels that it is asked for.
    descriptions : Mapping[str, str] or None
        Texts for labels, which such a head does not read.
    """
    names = list(labels.names if isinstance(labels, LabelSet) else labels)
    if descriptions:
        raise DataError("this base model's head is trained, so descriptions would do nothing")
    if len(names) != len(own):
        raise DataError(
            f"the base model {name!r} has {len(own)} labels, but these are "
            f"{len(names)}; its labels are {', '.join(own)}"
        )
    # Numbered labels are what a model has whose labels nobody named.
    named = list(own) != [f"LABEL_{index}" for index in range(len(own))]
    if named and list(own) != names:
        wrong = next(index for index, label in enumerate(names) if label != own[index])
        raise DataError(
            f"label {wrong + 1} is {names[wrong]!r} here, but {own[wrong]!r} in the base "
            f"model {name!r}; labels count by their order, so give them in the same one"
        )
