"""What an adapter folder says about itself, so that it can be used with its base model alone.

``classifier.json`` names the base model by id and digest, the labels in their order, and how
inputs are encoded. PEFT does not read it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedcert.canonical import canonical_json
from fedcert.errors import AdapterError, DataError
from fedcert.label_set import LabelSet
from fedcert.models.base import BaseModel
from fedcert.models.encoder import EncoderClassifier
from fedcert.models.label_scorer import LabelScorer

__all__ = ["CLASSIFIER_FILE", "ClassifierFile", "head_kind", "public_name", "read_classifier"]

CLASSIFIER_FILE = "classifier.json"
_FORMAT = "fedcert.classifier/1"


@dataclass(frozen=True)
class ClassifierFile:
    """What is needed beside an adapter's tensors to predict with it.

    Attributes
    ----------
    base_name, base_revision, base_digest, dtype : str
        The base model: hub id or name of its folder, revision, digest, and precision.
    head : str
        ``"names"``, ``"phrases"``, or ``"trained"``.
    labels : tuple of str or LabelSet
        By index; a label set where the head follows from the names. Empty if the adapter was
        exported for labels that each user brings.
    inputs : dict or None
        How inputs are encoded (`fedcert.data.InputSpec.to_config`), where it is known.
    threshold : float or None
        Margin of the highest logit over the second that an answer needs; None, and absent from
        the file, if every input gets one (default: None).
    early_exit : tuple or None
        Digest of an early operating point's adapter, and the margin above which it answers
        first; None, and absent from the file, if nothing was certified with one
        (default: None).
    """

    base_name: str
    base_revision: str
    base_digest: str
    dtype: str
    head: str
    labels: tuple[str, ...] | LabelSet
    inputs: dict[str, Any] | None
    threshold: float | None = None
    early_exit: tuple[str, float] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the labels by index."""
        return self.labels.names if isinstance(self.labels, LabelSet) else self.labels

    @property
    def texts(self) -> tuple[tuple[str, ...], ...] | None:
        """The texts that stand for each label; None if the head does not follow from them."""
        return self.labels.texts if isinstance(self.labels, LabelSet) else None

    @classmethod
    def of(
        cls, base: BaseModel, *, labels: Sequence[str] | None, inputs: dict[str, Any] | None
    ) -> ClassifierFile:
        """Describe an adapter of a base model.

        Parameters
        ----------
        base : BaseModel
            The base model that the adapter is for.
        labels : sequence of str or None
            Names of the labels by index; None if the base model takes them from the user.
        inputs : dict or None
            How inputs are encoded (`fedcert.data.InputSpec.to_config`); None if nothing says.

        Returns
        -------
        ClassifierFile
            The description, ready to be written beside the adapter.
        """
        own = getattr(base.model, "labels", None)
        return cls(
            base_name=public_name(base.name),
            base_revision=base.revision,
            base_digest=base.digest,
            dtype=str(next(base.model.parameters()).dtype).removeprefix("torch."),
            head=head_kind(base),
            labels=own if isinstance(own, LabelSet) else tuple(labels or base.label_names),
            inputs=inputs,
        )

    def write(self, folder: Path) -> None:
        """Write it into an adapter folder."""
        own = isinstance(self.labels, LabelSet)
        content: dict[str, Any] = {
            "format": _FORMAT,
            "base_model": {
                "name": self.base_name,
                "revision": self.base_revision,
                "digest": self.base_digest,
                "dtype": self.dtype,
            },
            "head": self.head,
            "labels": self.labels.to_config() if own else list(self.labels),  # type: ignore[union-attr, arg-type]
            "inputs": self.inputs,
        }
        if self.threshold is not None:
            content["threshold"] = self.threshold
        if self.early_exit is not None:
            adapter, above = self.early_exit
            content["early_exit"] = {"adapter": adapter, "above": above}
        (folder / CLASSIFIER_FILE).write_bytes(canonical_json(content))


def read_classifier(folder: Path) -> ClassifierFile | None:
    """Read the description in an adapter folder, or return None where there is none.

    Raises
    ------
    AdapterError
        If it is damaged, or of a version that this one does not know.
    """
    path = folder / CLASSIFIER_FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise AdapterError(
                f"{path}: format {content['format']!r} is not that of this version "
                f"({_FORMAT!r}); use the fedcert version that exported the adapter"
            )
        base, labels = content["base_model"], content["labels"]
        early = content.get("early_exit")
        return ClassifierFile(
            base_name=str(base["name"]),
            base_revision=str(base["revision"]),
            base_digest=str(base["digest"]),
            dtype=str(base["dtype"]),
            head=str(content["head"]),
            labels=LabelSet.from_config(labels)
            if isinstance(labels, dict)
            else tuple(str(label) for label in labels),
            inputs=content["inputs"],
            threshold=float(content["threshold"]) if "threshold" in content else None,
            early_exit=(str(early["adapter"]), float(early["above"])) if early else None,
        )
    except (OSError, ValueError, KeyError, TypeError, DataError) as error:
        raise AdapterError(f"{path}: damaged ({error})") from error


def head_kind(base: BaseModel) -> str:
    """Name where a base model's logits come from."""
    if isinstance(base.model, EncoderClassifier):
        return base.model.task_head.kind
    return "phrases" if isinstance(base.model, LabelScorer) else "trained"


def public_name(name: str) -> str:
    """Name a base model for others: of a folder only its own name, its place means nothing."""
    return Path(name).name if Path(name).exists() else name
