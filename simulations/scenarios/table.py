"""Scenario `table`: a user's own data, with columns named in the options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fedcert.canonical import digest_tensors
from fedcert.data.cells import check_texts, missing_cells, stack_numbers, words
from fedcert.data.examples import Examples
from fedcert.data.inputs import CHANNELS, LAYOUTS, ImageInputs, InputSpec
from fedcert.data.labels import alike_labels, class_names, label_words
from fedcert.data.tables import Columns, read_columns
from fedcert.errors import DataError, SettingsError
from fedcert.models import with_task_head
from fedcert.simulations.natural import NaturalScenario, Rows, client_id, text_items
from fedcert.simulations.partitions import Partition
from fedcert.simulations.sources import TextBase, states_pooling

__all__ = ["Table"]

_LABELS = ("auto", "common", "own")
# Labels are taken as the clients' own where these have a smaller share of them on average.
_OWN = 0.5


class Table(NaturalScenario):
    """Texts or images of natural clients, from one file.

    Parameters
    ----------
    source : str
        What `fedcert.data.tables.read_columns` reads.
    input, label, client : str (default: "input", "label", "client")
        Columns of the inputs, of the labels, and of whose example it is.
    item : str (default: "")
        Column of what it is an example of: rows of one item stay on one side. By default
        equal inputs are one item.
    partition : str (default: "")
        ``"dirichlet"`` or ``"pathological"``: deal out the items to clients anew instead of
        reading `client`; see `fedcert.simulations.partitions.Partition`.
    partitions : int (default: 40)
        Clients of a partition.
    alpha, classes : float, int (default: 0.3, 2)
        How skewed a partition's labels are.
    held_out : str (default: "")
        ``column=value``: clients with such a row are the new ones. By default the seed
        draws them.
    split : str (default: "train")
        Which part of a `datasets` data set.
    base : str (default: "")
        Folder or hub id of a pretrained model; by default MiniLM, for texts.
    max_length : int (default: 128)
        Tokens of the longest text.
    template, phrases, quantization
        See `fedcert.simulations.sources.TextBase`; images take `quantization` too.
    labels : str (default: "auto")
        ``"common"``: all clients tell the same classes apart. ``"own"``: each has those that
        occur in its rows, and texts are classified by their names. ``"auto"``: own where the
        names say so, since a client has less than half of all labels on average.
    label_template : str (default: "{label}")
        The text that stands for a label of a client's own: "a request about {label}".
    low, high : float (default: 0, 255)
        Range of the values of images.
    layout : str (default: "")
        How the axes of an image stand: ``"CHW"`` (channels, height, width) or ``"HWC"``. By
        default it is seen from their shapes.
    upstream, new, smallest, smallest_new, training_size, new_size, support_share, seed
        See `NaturalScenario`.
    """

    name = "table"
    description = "A table of your own"
    defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "certificate": {"recipe": "planned"},
        "training": {"parts": "auto", "tuned": True},
        "planning": {"most": 8},
        "evaluation": {"baselines": False, "clients": 8},
    }

    def __init__(
        self,
        *,
        source: str = "",
        input: str = "input",
        label: str = "label",
        client: str = "client",
        item: str = "",
        partition: str = "",
        partitions: int = 40,
        alpha: float = 0.3,
        classes: int = 2,
        held_out: str = "",
        split: str = "train",
        base: str = "",
        max_length: int = 128,
        template: str = "",
        phrases: Mapping[str, str] | None = None,
        quantization: str = "none",
        labels: str = "auto",
        label_template: str = "{label}",
        low: float = 0.0,
        high: float = 255.0,
        layout: str = "",
        upstream: int = 0,
        new: int = 0,
        smallest: int = 100,
        smallest_new: int = 160,
        training_size: int = 0,
        new_size: int = 400,
        support_share: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__(
            upstream=upstream,
            new=new,
            smallest=smallest,
            smallest_new=smallest_new,
            training_size=training_size,
            new_size=new_size,
            support_share=support_share,
            seed=seed,
        )
        if not source:
            raise SettingsError("table needs the option `source`: a file, folder or hub id")
        if held_out and not all(held_out.partition("=")):
            raise SettingsError(
                f"table: held_out must be of the form column=value, not {held_out!r}"
            )
        if labels not in _LABELS:
            raise SettingsError(
                f"table: labels must be one of {', '.join(_LABELS)}, not {labels!r}"
            )
        if labels == "own" and (template or phrases):
            raise SettingsError(
                "table: phrases are of labels that all clients share; leave out template and "
                'phrases, or labels = "own"'
            )
        self._whose_labels, self._label_template = labels, label_template
        self._partition = (
            Partition(partition, partitions, alpha, classes, smallest, seed)
            if partition
            else None
        )
        if partition and held_out:
            raise SettingsError(
                "table: held_out names clients, and a partition makes its own; "
                "leave one of them out"
            )
        self._source, self._split, self._base = source, split, base
        self._input, self._label, self._client, self._item = input, label, client, item
        # Rows of different items are different observations, even if they read the same.
        self.duplicates_are_real = bool(item)
        self._held_column, _, self._held_value = held_out.partition("=")
        self._template, self._phrases = template, phrases
        self._quantization = quantization
        if layout not in {"", *LAYOUTS}:
            raise SettingsError(
                f"table: there is no layout {layout!r}; choose {' or '.join(LAYOUTS)}"
            )
        self._max_length, self._low, self._high = max_length, float(low), float(high)
        self._layout = layout

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that occur, in order; none if each client has its own."""
        return () if self._labels_are_own else self._all_labels

    def labels_of(self, client: str) -> tuple[str, ...]:
        """Return the labels that occur in a client's rows, if they are its own."""
        if not self._labels_are_own:
            return self.labels
        if client not in self._own_labels:
            raise DataError(f"table has no client {client!r}")
        return self._own_labels[client]

    @cached_property
    def _labels_are_own(self) -> bool:
        if self._whose_labels == "own" and not self._has_texts:
            raise SettingsError(
                'table: labels = "own" needs texts, which are classified by the names of labels'
            )
        if self._whose_labels != "auto" or not self._has_texts or self._template:
            return self._whose_labels == "own"
        shares = [len(own) / len(self._all_labels) for own in self._own_labels.values()]
        return float(np.mean(shares)) < _OWN and states_pooling(self._base)

    @cached_property
    def _own_labels(self) -> dict[str, tuple[str, ...]]:
        """Return the labels of each client, in order."""
        found: dict[str, set[int]] = {}
        for client, label in zip(self._rows.clients, self._rows.labels, strict=True):
            found.setdefault(client_id(client), set()).add(int(label))
        return {
            client: tuple(self._all_labels[label] for label in sorted(own))
            for client, own in found.items()
        }

    def _examples(self, rows: npt.NDArray[np.int64]) -> Examples:
        examples = super()._examples(rows)
        if not self._labels_are_own:
            return examples
        own = self._own_labels[client_id(self._rows.clients[rows[0]])]
        index = [own.index(self._all_labels[label]) for label in examples.labels]
        return Examples(examples.inputs, np.array(index, dtype=np.int64))

    @cached_property
    def _all_labels(self) -> tuple[str, ...]:
        try:
            return class_names(self._label_words)
        except DataError as error:
            raise DataError(f"{self._source}: the column {self._label!r} {error}") from error

    @property
    def notes(self) -> tuple[str, ...]:
        """What rows and clients are left out, and which labels and images look wrong."""
        alike = [
            f"table: the labels {', '.join(map(repr, group))} differ only in case, white "
            "space, or leading zeros, and are different classes"
            for group in alike_labels(self._all_labels)
        ]
        if self._labels_are_own:
            sizes = sorted(map(len, self._own_labels.values()))
            alike.append(
                f"table: labels are the clients' own, from {sizes[0]} to {sizes[-1]} of "
                f"{len(self._all_labels)} each, and are known by their names"
                + ('; labels = "common" takes them as one set' * (self._whose_labels == "auto"))
            )
        remarks = [] if self._has_texts else self._image_remarks()
        found = [*self._incomplete[1], *alike, *(f"table: {remark}" for remark in remarks)]
        return (*found, *super().notes)

    @property
    def inputs(self) -> InputSpec:
        """Texts, or images of the size that they have."""
        return self._text_base.inputs if self._has_texts else self._images

    def base_model(self, *, on_step: Callable[[str], None] = lambda _: None) -> Path:
        """Return the pretrained model with a zero head for the labels."""
        on_step("preparing the base model")
        return self._text_base.folder if self._has_texts else self._image_base

    @cached_property
    def _image_base(self) -> Path:
        if not self._base:
            raise SettingsError("table: images need the option `base`, an image model")
        return with_task_head(self._base, self.labels, quantization=self._quantization)

    @cached_property
    def _text_base(self) -> TextBase:
        return TextBase(
            "table",
            self._base,
            labels=self.labels,
            max_length=self._max_length,
            template=self._template,
            phrases=self._phrases,
            label_template=self._label_template if self._labels_are_own else "",
            quantization=self._quantization,
        )

    @cached_property
    def _has_texts(self) -> bool:
        return isinstance(self._columns[self._input][0], str)

    @cached_property
    def _image_array(self) -> npt.NDArray[np.float64]:
        with self._columns.located():
            return stack_numbers(self._columns[self._input])

    @cached_property
    def _images(self) -> ImageInputs:
        shape = self._image_array.shape[1:]
        if len(shape) not in {2, 3}:
            raise DataError(
                f"{self._source}: {self._input!r} holds neither texts nor images of shape "
                f"(height, width) or (channels, height, width), but shape {shape}"
            )
        channels, height, width = (1, *shape)[-3:]
        if self._layout:
            if self._layout == "HWC" and len(shape) == 3:
                height, width, channels = shape
        elif width in CHANNELS and len(shape) == 3:
            if channels in CHANNELS[1:]:
                raise DataError(
                    f"{self._source}: images of shape {shape} may have their channels first or "
                    "last; say which, with the option layout"
                )
            if channels != 1:
                channels, height, width = width, channels, height
        return ImageInputs.of(
            self._base,
            channels=channels,
            height=height,
            width=width,
            low=self._low,
            high=self._high,
            layout=self._layout or None,
        )

    def _image_remarks(self) -> list[str]:
        images = self._image_array
        remarks = [*self._images.remarks(images, images)]
        with np.errstate(invalid="ignore"):
            fits = (images >= self._low) & (images <= self._high)
        wrong = ~fits.reshape(len(images), -1).all(axis=1)
        if wrong.any():
            remarks.append(
                f"{wrong.sum()} images hold NaN, an infinity, or values outside "
                f"[{self._low:g}, {self._high:g}] "
                f"({self._columns.where(int(np.argmax(wrong)))}, for instance); "
                "each counts as an error"
            )
        return remarks

    @cached_property
    def _columns(self) -> Columns:
        """The rows that lack nothing."""
        return self._incomplete[0]

    @cached_property
    def _incomplete(self) -> tuple[Columns, list[str]]:
        """Return the rows that lack nothing, and say which ones do and are left out."""
        client = "" if self._partition else self._client
        needed = [n for n in (self._input, self._label, client, self._item) if n]
        wanted = [*needed, *filter(None, [self._held_column])]
        table = read_columns(self._source, wanted, split=self._split)
        complete, notes = np.ones(len(table.numbers), dtype=np.bool_), []
        for name in dict.fromkeys(needed):
            missing = missing_cells(table[name])
            complete &= ~missing
            if not missing.any():
                continue
            empty = (
                f"the column {name!r} is empty in {missing.sum()} of {len(missing)} rows "
                f"({table.where(int(np.argmax(missing)))}, for instance)"
            )
            if 2 * missing.sum() > len(missing):
                raise DataError(f"{self._source}: {empty}; name another column, or fill it in")
            notes.append(f"table: {empty}; they are left out")
        if not complete.any():
            raise DataError(f"{self._source}: every row lacks one of {', '.join(needed)}")
        return table.take(complete), notes

    @cached_property
    def _label_words(self) -> npt.NDArray[Any]:
        with self._columns.located():
            return label_words(self._columns[self._label])

    @cached_property
    def _rows(self) -> Rows:
        columns = self._columns
        index = {label: position for position, label in enumerate(self._all_labels)}
        labels = np.array([index[name] for name in self._label_words])
        inputs = columns[self._input] if self._has_texts else self._image_array
        with columns.located():
            if self._has_texts:
                check_texts(inputs)
            if self._item:
                items = words(columns[self._item])
            else:
                items = text_items(inputs) if self._has_texts else _image_items(inputs)
            clients = (
                self._partition.deal(items, labels)
                if self._partition
                else words(columns[self._client])
            )
        return Rows(
            inputs, labels, clients, items, lambda row: f"{self._source}: {columns.where(row)}"
        )

    @cached_property
    def _held_out(self) -> frozenset[str]:
        cells = self._columns[self._held_column]
        with self._columns.located():
            marked = ~missing_cells(cells) & (words(cells) == self._held_value)
        if not marked.any():
            raise DataError(
                f"{self._source}: no row has {self._held_column}={self._held_value}"
            )
        return frozenset(self._rows.clients[marked])

    def _is_new(self, client: str) -> bool | None:
        return client in self._held_out if self._held_column else None


def _image_items(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    items = np.empty(len(images), dtype=object)
    items[:] = [digest_tensors({"image": image}) for image in images]
    return items
