"""Options of the scenario `table`: what is read, what columns mean, whose the labels are."""

from __future__ import annotations

from dataclasses import dataclass

from fedcert.errors import SettingsError

__all__ = ["Labels", "Source"]

_LABELS = ("auto", "common", "own")


@dataclass(frozen=True)
class Source:
    """What is read, and which columns mean what.

    Parameters
    ----------
    source : str
        What `fedcert.data.tables.read_columns` reads.
    split : str (default: "train")
        Which part of a `datasets` data set.
    input, label, client : str (default: "input", "label", "client")
        Columns of the inputs, of the labels, and of whose example it is.
    item : str (default: "")
        Column of what it is an example of: rows of one item stay on one side. By default
        equal inputs are one item.
    repeats : bool (default: False)
        Whether rows of a client that read the same are observations of their own, as in a log
        where some requests come often; then all count. By default the first one does.
    held_out : str (default: "")
        ``column=value``: clients with such a row are the new ones. By default the seed
        draws them.
    unlabeled : bool (default: False)
        Whether rows without a label are inputs without labels of their client, unless another
        row says which label their item has. By default they are left out.
    """

    source: str = ""
    split: str = "train"
    input: str = "input"
    label: str = "label"
    client: str = "client"
    item: str = ""
    repeats: bool = False
    held_out: str = ""
    unlabeled: bool = False

    def __post_init__(self) -> None:
        if self.held_out and not all(self.held_out.partition("=")):
            raise SettingsError(
                f"table: held_out must be of the form column=value, not {self.held_out!r}"
            )
        for name in ("unlabeled", "repeats"):
            if not isinstance(given := getattr(self, name), bool):
                raise SettingsError(f"table: {name} must be true or false, not {given!r}")
        if self.repeats and self.item:
            raise SettingsError(
                "table: a column `item` says which rows are the same observation; leave out "
                "item or repeats"
            )

    @property
    def held_cell(self) -> tuple[str, str]:
        """The column and the value that mark new clients; empty if none does."""
        column, _, value = self.held_out.partition("=")
        return column, value


@dataclass(frozen=True)
class Labels:
    """Whose the labels are, and how they are known.

    Parameters
    ----------
    labels : str (default: "auto")
        ``"common"``: all clients tell the same classes apart. ``"own"``: each has those that
        occur in its rows, a new one those of its rows for tests, and texts are classified by
        their names. ``"auto"``: own where the
        names say so, since a client has less than half of all labels on average.
    label_template : str (default: "{label}")
        The text that stands for a label of a client's own: "a request about {label}".
    """

    labels: str = "auto"
    label_template: str = "{label}"

    def __post_init__(self) -> None:
        if self.labels not in _LABELS:
            raise SettingsError(
                f"table: labels must be one of {', '.join(_LABELS)}, not {self.labels!r}"
            )
