"""The data of a deployed node: one labeled file of its own, which nobody else reads."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from fedcert.data import read_examples, read_unlabeled
from fedcert.data.examples import Examples
from fedcert.data.inputs import InputSpec
from fedcert.errors import DataError, FedcertError, SettingsError
from fedcert.label_set import read_labels
from fedcert.messages import NEW, UPSTREAM
from fedcert.scenarios import Scenario

__all__ = ["NodeData"]


class NodeData(Scenario):
    """A run's task, with the examples of a single client from its own file.

    Parameters
    ----------
    task : Scenario
        Gives labels, inputs, and the base model; its own examples, if any, are not read.
    client : str
        The node's client id.
    role : str
        ``"upstream"``: the file's examples train. ``"new"``: all of them are its support set.
    path : Path
        What `fedcert.data.read_examples` reads.
    input_column, label_column : str
        Names of its columns.
    labels_path : Path, optional
        The node's own labels (`fedcert.label_set.read_labels`), where the task leaves
        them to clients.
    unlabeled_path : Path, optional
        What `fedcert.data.read_unlabeled` reads: inputs of a new client without labels.
    """

    name = "node"
    description = "A node's own data"

    def __init__(
        self,
        task: Scenario,
        *,
        client: str,
        role: str,
        path: Path,
        input_column: str,
        label_column: str,
        labels_path: Path | None = None,
        unlabeled_path: Path | None = None,
    ) -> None:
        self._task, self._client, self._role = task, client, role
        self._path, self._columns = path, (input_column, label_column)
        self._labels_path, self._unlabeled_path = labels_path, unlabeled_path

    @property
    def labels(self) -> tuple[str, ...]:
        """The task's."""
        return self._task.labels

    def labels_of(self, client: str) -> tuple[str, ...]:
        """Return the task's, or the node's own where the task leaves them to clients."""
        if self.labels:
            return self.labels
        if self._labels_path is None:
            raise SettingsError(
                "this task leaves the labels to clients: add labels-path to the node's "
                "configuration, a text file with the name of every label that can occur"
            )
        try:
            names, descriptions = read_labels(self._labels_path)
        except DataError as error:
            print(f"labels-path: {error}", file=sys.stderr, flush=True)
            raise DataError(
                "the file that the node's labels-path names holds no list of labels; the "
                "node's own log says why"
            ) from None
        if descriptions:
            raise SettingsError("labels-path: a node's labels take no descriptions yet")
        return names

    @property
    def inputs(self) -> InputSpec:
        """The task's."""
        return self._task.inputs

    @property
    def upstream_clients(self) -> tuple[str, ...]:
        """The node's client, if that is its part."""
        return (self._client,) if self._role == UPSTREAM else ()

    @property
    def new_clients(self) -> tuple[str, ...]:
        """The node's client, if that is its part."""
        return (self._client,) if self._role == NEW else ()

    def base_model(self, *, on_step: Callable[[str], None] = lambda _: None) -> Path:
        """Return the task's base model."""
        return self._task.base_model(on_step=on_step)

    def training_examples(self, client: str) -> Examples:
        """Return the whole file of an upstream client."""
        return self._of(client, UPSTREAM)

    def support_examples(self, client: str, size: int) -> Examples:
        """Return the whole file of a new client: it decides n, not the server's settings."""
        return self._of(client, NEW)

    def unlabeled_inputs(self, client: str) -> Examples | None:
        """Return what the node's file of inputs without labels holds, if it names one."""
        path = self._unlabeled_path
        if path is None or client != self._client:
            return None
        with _reasons_stay("unlabeled-path", "inputs"):
            return read_unlabeled(
                path,
                spec=self.inputs,
                input_column=self._columns[0],
                label_column=self._columns[1],
                warn=_warn,
            )

    def test_examples(self, client: str) -> None:
        """Return None: in a deployment nobody has labels to spare."""

    def _of(self, client: str, role: str) -> Examples:
        if (client, role) != (self._client, self._role):
            raise DataError(
                f"this node is the {self._role} client {self._client!r}, and its examples "
                f"serve no {role} client {client!r}"
            )
        return self._examples

    @cached_property
    def _examples(self) -> Examples:
        labels = self.labels_of(self._client)  # it says itself what is wrong with them
        with _reasons_stay("data-path", "examples"):
            return read_examples(
                self._path,
                spec=self.inputs,
                labels=labels,
                input_column=self._columns[0],
                label_column=self._columns[1],
                warn=_warn,
            )


@contextmanager
def _reasons_stay(key: str, wanted: str) -> Iterator[None]:
    """Print on the node alone why a file cannot be read, and raise what the server may see.

    The reason may quote a label or a value.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, FedcertError | OSError):
            traceback.print_exc()  # a fault of the program, which nobody finds by its words
        print(f"{key}: {error}", file=sys.stderr, flush=True)
        raise DataError(
            f"the file that the node's {key} names does not hold {wanted} of this task; the "
            "node's own log says why"
        ) from None


def _warn(text: str) -> None:
    """Print on the node alone: what is odd about its files is its own business."""
    print(f"WARNING: {text}", file=sys.stderr, flush=True)
