"""Dealing out a table to clients with the partitioners of flwr-datasets."""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.errors import SettingsError
from fedcert.randomness import small_seed

__all__ = ["PARTITIONS", "Partition"]

PARTITIONS = ("dirichlet", "pathological")
"""Kinds of partitions."""


@dataclass(frozen=True)
class Partition:
    """How items are dealt out to clients whose labels are skewed.

    Parameters
    ----------
    partition : str
        ``"dirichlet"``: the share of each label that a client gets is drawn from a Dirichlet
        distribution (Yurochkin et al., ICML 2019). ``"pathological"``: each client has the
        same number of labels (McMahan et al., AISTATS 2017). By default the
        rows name their clients, and nothing is dealt out.
    partitions : int
        How many clients.
    alpha : float
        Concentration of the Dirichlet distribution; the smaller, the more skewed.
    classes : int
        Labels of each client, of a pathological partition.

    Raises
    ------
    SettingsError
        If a parameter is out of range.
    """

    partition: str = ""
    partitions: int = 40
    alpha: float = 0.3
    classes: int = 2

    def __post_init__(self) -> None:
        if not self.partition:
            return
        if self.partition not in PARTITIONS:
            raise SettingsError(
                f"there is no partition {self.partition!r}; choose {' or '.join(PARTITIONS)}"
            )
        if self.partitions < 2 or self.alpha <= 0 or self.classes < 2:
            raise SettingsError(
                "a partition needs partitions and classes of at least 2, and a positive alpha"
            )

    def deal(
        self,
        items: npt.NDArray[Any],
        labels: npt.NDArray[np.int64],
        *,
        smallest: int,
        seed: int,
    ) -> npt.NDArray[Any]:
        """Return the client of each row; rows of one item go to one client.

        An item with several labels counts under that of its first row.

        Parameters
        ----------
        items, labels : numpy.ndarray
            The item and the label of each row.
        smallest : int
            Fewest items of a client, of a Dirichlet partition.
        seed : int
            Seed of the draw.

        Returns
        -------
        numpy.ndarray
            The clients' names.

        Raises
        ------
        SettingsError
            If flwr-datasets is not installed, or there is no such partition of these rows.
        """
        datasets, partitioners = _optional("datasets"), _optional("flwr_datasets.partitioner")
        # Sorted, so that the order of the rows does not matter.
        _, first, inverse = np.unique(items.astype(str), return_index=True, return_inverse=True)
        partitioner = self._partitioner(partitioners, smallest, seed)
        partitioner.dataset = datasets.Dataset.from_dict(
            {"item": np.arange(len(first)), "label": labels[first]}
        )
        owner = np.empty(len(first), dtype=np.int64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that it draws again
            try:
                for client in range(self.partitions):
                    owner[partitioner.load_partition(client)["item"]] = client
            except ValueError as error:
                raise SettingsError(
                    f"the table cannot be dealt out ({self.partition}, {self.partitions} "
                    f"partitions): {error}; lower `partitions` or `smallest`, or raise `alpha`"
                ) from error
        clients = np.empty(len(items), dtype=object)
        clients[:] = [f"part-{client:04d}" for client in owner[inverse.reshape(-1)]]
        return clients

    def _partitioner(self, partitioners: Any, smallest: int, seed: int) -> Any:
        seed = small_seed("partition", seed) % 2**32
        if self.partition == "dirichlet":
            return partitioners.DirichletPartitioner(
                self.partitions,
                "label",
                float(self.alpha),
                min_partition_size=smallest,
                seed=seed,
            )
        return partitioners.PathologicalPartitioner(
            self.partitions, "label", self.classes, seed=seed
        )


def _optional(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise SettingsError(
            "partitions need the package flwr-datasets; install it with "
            "pip install 'fedcert[data]'"
        ) from error
