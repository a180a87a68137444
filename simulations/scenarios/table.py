"""Scenario `table`: a user's own data, with columns named in the options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fedcert.data.cells import check_texts, missing_cells, stack_numbers, words
from fedcert.data.examples import ALWAYS_WRONG, Examples
from fedcert.data.inputs import CHANNELS, LAYOUTS, ImageInputs, InputSpec
from fedcert.data.labels import alike_labels, class_names, label_words
from fedcert.data.tables import Columns, read_columns
from fedcert.errors import DataError, SettingsError
from fedcert.messages import client_id
from fedcert.models import with_task_head
from fedcert.models.encoder_folder import stated_reading
from fedcert.simulations.natural import NaturalScenario, Rows, Split, text_items
from fedcert.simulations.partitions import Partition
from fedcert.simulations.sources import BaseOptions, ImageOptions, TextBase
from fedcert.simulations.table_options import Labels, Source
from fedcert.simulations.table_rows import KeptRows, alike_rows, image_items, kept_rows

__all__ = ["Table"]

# Labels are taken as the clients' own where these have a smaller share of them on average.
_OWN = 0.5
_SOURCE, _LABELING, _SPLIT, _PARTITION = Source(), Labels(), Split(), Partition()
_BASE, _IMAGES = BaseOptions(), ImageOptions()


class Table(NaturalScenario):
    """Texts or images of natural clients, from one file.

    Parameters
    ----------
    source : Source
        Options of what is read.
    labels : Labels
        Options of whose the labels are.
    split : Split
        Options of the split of rows and clients.
    partition : Partition
        Options of dealing out the items to clients anew, instead of reading `client`.
    base : BaseOptions
        Options of the base model; `quantization` and `depth` hold for images
        too.
    images : ImageOptions
        Options of the images' values.
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
        source: Source = _SOURCE,
        labels: Labels = _LABELING,
        split: Split = _SPLIT,
        partition: Partition = _PARTITION,
        base: BaseOptions = _BASE,
        images: ImageOptions = _IMAGES,
    ) -> None:
        super().__init__(split)
        if not source.source:
            raise SettingsError("table needs the option `source`: a file, folder or hub id")
        if labels.labels == "own" and (base.template or base.phrases):
            raise SettingsError(
                "table: phrases are of labels that all clients share; leave out template and "
                'phrases, or labels = "own"'
            )
        if partition.partition and source.held_out:
            raise SettingsError(
                "table: held_out names clients, and a partition makes its own; "
                "leave one of them out"
            )
        if partition.partition and source.unlabeled:
            raise SettingsError(
                "table: a partition deals out labels, so a row without one is nobody's; leave "
                "out partition or unlabeled"
            )
        if images.layout not in {"", *LAYOUTS}:
            raise SettingsError(
                f"table: there is no layout {images.layout!r}; choose {' or '.join(LAYOUTS)}"
            )
        self._source, self._labeling, self._partition = source, labels, partition
        self._base, self._image_options = base, images
        # Rows of different items are different observations, even if they read the same.
        self.duplicates_are_real = bool(source.item) or source.repeats
        if not source.item:
            self._of_repeats = (
                "; so certificates are for the client's different inputs, not for how often "
                "each comes: if these are no copies, repeats = true lets all count"
            )

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that occur, in order; none if each client has its own."""
        return () if self._labels_are_own else self._all_labels

    def labels_of(self, client: str) -> tuple[str, ...]:
        """Return the labels that occur in a client's rows, if they are its own."""
        if not self._labels_are_own:
            return self.labels
        own = self._own_labels.get(client, ())
        if client in self._parts[1] and len(own) < 2:
            raise DataError(
                f"table: the rows of {client} for tests name {len(own)} labels, and a task has "
                "two or more; lower the option `support_share`"
            )
        if not own:
            raise DataError(f"table has no client {client!r}")
        return own

    @cached_property
    def _labels_are_own(self) -> bool:
        if self._labeling.labels == "own" and not self._has_texts:
            raise SettingsError(
                'table: labels = "own" needs texts, which are classified by the names of labels'
            )
        if self._labeling.labels != "auto" or not self._has_texts or self._base.template:
            return self._labeling.labels == "own"
        everything = self._labels_in(np.ones(len(self._rows.labels), dtype=np.bool_))
        shares = [len(own) / len(self._all_labels) for own in everything.values()]
        base = self._base.base
        # Names of labels are embedded as texts are: a model has to say how that is done.
        embeds = not base or stated_reading(base, None) is not None
        return float(np.mean(shares)) < _OWN and embeds

    @cached_property
    def _own_labels(self) -> dict[str, tuple[str, ...]]:
        """Return the labels of each client, in order.

        A new client's are those of its rows for tests: named by rows that certify, there could
        be no example whose label is not among them, and certificates would not count those.
        """
        new = np.isin(self._client_ids, list(self._parts[1]))
        return self._labels_in(~(new & self._for_support))

    @cached_property
    def _client_ids(self) -> npt.NDArray[np.str_]:
        """The id of each row's client."""
        return np.array([client_id(name) for name in self._rows.clients])

    def _labels_in(self, some: npt.NDArray[np.bool_]) -> dict[str, tuple[str, ...]]:
        """Return the labels of each client in some of the rows, in order."""
        found: dict[str, set[int]] = {}
        rows = self._rows
        for client, label in zip(self._client_ids[some], rows.labels[some], strict=True):
            found.setdefault(str(client), set()).add(int(label))
        return {
            client: tuple(self._all_labels[label] for label in sorted(own))
            for client, own in found.items()
        }

    def _examples(self, rows: npt.NDArray[np.int64]) -> Examples:
        examples = super()._examples(rows)
        if not self._labels_are_own:
            return examples
        own = self.labels_of(client_id(self._rows.clients[rows[0]]))
        places = {label: place for place, label in enumerate(own)}
        index = [places.get(self._all_labels[each], ALWAYS_WRONG) for each in examples.labels]
        return Examples(examples.inputs, np.array(index, dtype=np.int64))

    def unlabeled_inputs(self, client: str) -> Examples | None:
        """Return the inputs of a client's rows that have no label, if they are wanted."""
        rows = self._unlabeled_rows.get(client)
        if rows is None or client not in self.new_clients:
            return None
        with rows.located():
            raw = self._inputs_of(rows)
            return self.inputs.examples(raw, np.full(len(raw), ALWAYS_WRONG))

    @cached_property
    def _unlabeled_rows(self) -> dict[str, Columns]:
        """Return the rows without a label by client; none is of an item that has one."""
        rows, known = self._kept.unlabeled, set(self._rows.items)
        if not len(rows.numbers):
            return {}
        with rows.located():
            items = self._items_of(rows, self._inputs_of(rows))
            clients = words(rows[self._source.client])
        found: dict[str, list[int]] = {}
        for row, (client, item) in enumerate(zip(clients, items, strict=True)):
            if item not in known:
                found.setdefault(client_id(client), []).append(row)
        return {client: rows.take(np.array(places)) for client, places in found.items()}

    def _inputs_of(self, rows: Columns) -> npt.NDArray[Any]:
        inputs = rows[self._source.input]
        return inputs if self._has_texts else stack_numbers(inputs)

    def _items_of(self, rows: Columns, inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return what rows are examples of."""
        if self._source.item:
            return words(rows[self._source.item])
        return self._read(inputs)

    def _read(self, inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return what makes inputs the same."""
        return text_items(inputs) if self._has_texts else image_items(inputs)

    @cached_property
    def _of_items(self) -> list[str]:
        """How many rows are copies, should the column of items not tell."""
        rows, column = self._rows, self._source.item
        alike = alike_rows(rows.items, self._read(rows.inputs)) if column else np.zeros(0)
        if not alike.any():
            return []
        return [
            f"table: {np.sum(alike)} of {len(alike)} rows read like a row with another "
            f"{column!r} ({rows.where(int(np.argmax(alike)))}, for instance), and count as "
            "other observations, which may train as well as certify; if they are copies, "
            "leave out item"
        ]

    @cached_property
    def _all_labels(self) -> tuple[str, ...]:
        try:
            return class_names(self._label_words)
        except DataError as error:
            raise DataError(
                f"{self._source.source}: the column {self._source.label!r} {error}"
            ) from error

    @property
    def notes(self) -> tuple[str, ...]:
        """What rows and clients are left out, and which labels and images look wrong."""
        alike = [
            f"table: the labels {', '.join(map(repr, group))} differ only in case, white "
            "space, leading zeros, or Unicode form, and are different classes"
            for group in alike_labels(self._all_labels)
        ]
        if self._labels_are_own:
            sizes = sorted(map(len, self._own_labels.values()))
            alike.append(
                f"table: labels are the clients' own, from {sizes[0]} to {sizes[-1]} of "
                f"{len(self._all_labels)} each, and are known by their names"
                + (
                    '; labels = "common" takes them as one set'
                    * (self._labeling.labels == "auto")
                )
            )
        remarks = [] if self._has_texts else self._image_remarks()
        found = [*(f"table: {note}" for note in self._kept.notes), *alike]
        found += self._of_items
        return (*found, *(f"table: {remark}" for remark in remarks), *super().notes)

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
        if not self._base.base:
            raise SettingsError("table: images need the option `base`, an image model")
        return with_task_head(self._base.base, self.labels, **self._base.kept)

    @cached_property
    def _text_base(self) -> TextBase:
        template = self._labeling.label_template if self._labels_are_own else ""
        return TextBase("table", self._base, self.labels, template)

    @cached_property
    def _has_texts(self) -> bool:
        return isinstance(self._columns[self._source.input][0], str)

    @cached_property
    def _image_array(self) -> npt.NDArray[np.float64]:
        with self._columns.located():
            return stack_numbers(self._columns[self._source.input])

    @cached_property
    def _images(self) -> ImageInputs:
        shape = self._image_array.shape[1:]
        if len(shape) not in {2, 3}:
            raise DataError(
                f"{self._source.source}: {self._source.input!r} holds neither texts nor "
                f"images of shape (height, width) or (channels, height, width), but shape "
                f"{shape}"
            )
        channels, height, width = (1, *shape)[-3:]
        if self._image_options.layout:
            if self._image_options.layout == "HWC" and len(shape) == 3:
                height, width, channels = shape
        elif width in CHANNELS and len(shape) == 3:
            if channels in CHANNELS[1:]:
                raise DataError(
                    f"{self._source.source}: images of shape {shape} may have their channels "
                    "first or last; say which, with the option layout"
                )
            if channels != 1:
                channels, height, width = width, channels, height
        return self._image_options.inputs(self._base.base, channels, height, width)

    def _image_remarks(self) -> list[str]:
        images, low, high = self._image_array, self._image_options.low, self._image_options.high
        remarks = [*self._images.remarks(images, images)]
        with np.errstate(invalid="ignore"):
            fits = (images >= low) & (images <= high)
        wrong = ~fits.reshape(len(images), -1).all(axis=1)
        if wrong.any():
            remarks.append(
                f"{wrong.sum()} images hold NaN, an infinity, or values outside "
                f"[{low:g}, {high:g}] "
                f"({self._columns.where(int(np.argmax(wrong)))}, for instance); "
                "each counts as an error"
            )
        return remarks

    @cached_property
    def _columns(self) -> Columns:
        """The rows that lack nothing."""
        return self._kept.complete

    @cached_property
    def _kept(self) -> KeptRows:
        source = self._source
        client = "" if self._partition.partition else source.client
        needed = [n for n in (source.input, source.label, client, source.item) if n]
        wanted = [*needed, *filter(None, [source.held_cell[0]])]
        table = read_columns(source.source, wanted, split=source.split)
        optional = source.label if source.unlabeled else ""
        return kept_rows(table, needed, source=source.source, optional=optional)

    @cached_property
    def _label_words(self) -> npt.NDArray[Any]:
        with self._columns.located():
            return label_words(self._columns[self._source.label])

    @cached_property
    def _rows(self) -> Rows:
        columns = self._columns
        index = {label: position for position, label in enumerate(self._all_labels)}
        labels = np.array([index[name] for name in self._label_words])
        inputs = columns[self._source.input] if self._has_texts else self._image_array
        with columns.located():
            if self._has_texts:
                check_texts(inputs)
            items = self._items_of(columns, inputs)
            clients = (
                self._partition.deal(
                    items, labels, smallest=self._split.smallest, seed=self._split.seed
                )
                if self._partition.partition
                else words(columns[self._source.client])
            )
        return Rows(
            inputs,
            labels,
            clients,
            items,
            self._source.repeats,
            lambda row: f"{self._source.source}: {columns.where(row)}",
        )

    @cached_property
    def _held_out(self) -> frozenset[str]:
        column, value = self._source.held_cell
        cells = self._columns[column]
        with self._columns.located():
            marked = ~missing_cells(cells) & (words(cells) == value)
        if not marked.any():
            raise DataError(f"{self._source.source}: no row has {column}={value}")
        return frozenset(self._rows.clients[marked])

    def _is_new(self, client: str) -> bool | None:
        return client in self._held_out if self._source.held_out else None
