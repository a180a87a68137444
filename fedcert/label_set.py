"""A client's labels: their names, and the texts whose embeddings stand for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from unicodedata import normalize

from fedcert.canonical import digest_json
from fedcert.errors import DataError

__all__ = ["LabelSet", "check_template", "read_labels"]

_PLACE = "{label}"
# Part of the digest: change it when the same texts give other embeddings.
_RECIPE = "mean of unit embeddings/1"


@dataclass(frozen=True)
class LabelSet:
    """Labels by name, each with the texts that are embedded for it.

    It is fixed before the examples are looked at: whoever tries other words on the examples
    that certify has searched without paying for it.

    Attributes
    ----------
    names : tuple of str
        By index.
    texts : tuple of tuple of str
        For each label one text or more, whose embeddings are averaged.
    """

    names: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if len(self.names) < 2:
            raise DataError(
                f"a task needs at least two labels, not {len(self.names)}; name all labels "
                "that can occur"
            )
        for place, name in enumerate(self.names, start=1):
            if not isinstance(name, str) or not name.strip():
                raise DataError(f"label {place} has no name; give every label a name")
        known: dict[str, str] = {}
        for name in self.names:
            key = normalize("NFC", " ".join(name.split())).casefold()
            if key in known:
                raise DataError(
                    f"the labels {known[key]!r} and {name!r} have the same name; give every "
                    "label a name of its own"
                )
            known[key] = name
        if len(self.texts) != len(self.names):
            raise DataError(
                f"there are texts of {len(self.texts)} for {len(self.names)} labels"
            )
        for name, texts in zip(self.names, self.texts, strict=True):
            if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
                raise DataError(
                    f"the label {name!r} has an empty description; describe it, or leave the "
                    "description out"
                )

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        *,
        template: str | Sequence[str] = _PLACE,
        descriptions: Mapping[str, str] | None = None,
    ) -> Self:
        """Put names into a template, or into several that are averaged.

        Parameters
        ----------
        names : Sequence[str]
            By index. Underscores, as in the names of columns, become spaces in the texts.
        template : str or Sequence[str] (default: "{label}")
            Holds ``{label}`` once: "a request about {label}".
        descriptions : Mapping[str, str], optional
            A text of its own for some labels or all, by name; no template is put around it.

        Returns
        -------
        LabelSet
            The label set, with the texts that stand for each label.

        Raises
        ------
        DataError
            If a label has no name or the name of another one, or a description is of none.

        Examples
        --------
        >>> labels = LabelSet.of(["change_pin", "pay bill"], template="a request about {label}")
        >>> labels.texts
        (('a request about change pin',), ('a request about pay bill',))
        """
        templates = (template,) if isinstance(template, str) else tuple(template)
        check_template(templates)
        own = dict(descriptions or {})
        unknown = sorted(own.keys() - set(names))
        if unknown:
            raise DataError(
                f"there is a description of {unknown[0]!r}, which is none of the labels"
            )
        texts = tuple(
            (own[name],)
            if name in own
            else tuple(each.replace(_PLACE, _spoken(name)) for each in templates)
            for name in names
        )
        return cls(tuple(names), texts)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def digest(self) -> str:
        """Identity of names, order, and texts; with the base model's it fixes the head."""
        return digest_json({"recipe": _RECIPE, **self.to_config()})

    def to_config(self) -> dict[str, Any]:
        """Return names and texts as a JSON value."""
        return {"names": list(self.names), "texts": [list(texts) for texts in self.texts]}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Rebuild a label set from `to_config`.

        Raises
        ------
        DataError
            If it is damaged, or no label set of this version.
        """
        try:
            names, texts = config["names"], config["texts"]
            if isinstance(names, str) or any(isinstance(each, str) for each in texts):
                raise TypeError("a text stands where a list should")
            return cls(tuple(names), tuple(tuple(each) for each in texts))
        except (KeyError, TypeError) as error:
            raise DataError(f"the label set is damaged: {error}") from error


def check_template(templates: Sequence[str]) -> None:
    """Raise `DataError` unless there are templates that hold the label's place once each."""
    wrong = [t for t in templates if not isinstance(t, str) or t.count(_PLACE) != 1]
    if wrong or not templates:
        raise DataError(
            f"the template {wrong[0] if wrong else ''!r} must hold {_PLACE} once; for instance "
            f"'a request about {_PLACE}'"
        )


def read_labels(path: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """Read names of labels from a text file, one a line, and their descriptions after a tab.

    Returns
    -------
    tuple of str
        The names, in the order of the lines.
    dict
        Descriptions by name, of those that have one.

    Raises
    ------
    DataError
        If the file cannot be read, a line has no name, or the labels make no label set.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise DataError(f"cannot read the labels {path}: {reason}") from error
    names, descriptions = [], {}
    for number, line in enumerate(lines, start=1):
        name, _, description = (part.strip() for part in line.partition("\t"))
        if not name:
            raise DataError(f"{path}: line {number} has no name; give every label a name")
        names.append(name)
        if description:
            descriptions[name] = description
    LabelSet.of(names, descriptions=descriptions)  # what is wrong with them is said now
    return tuple(names), descriptions


def _spoken(name: Any) -> str:
    return " ".join(str(name).replace("_", " ").split())
