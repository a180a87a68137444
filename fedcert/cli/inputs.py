"""What a device's commands read: bundle, key, ledger, labels, and examples."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedcert.cache import state_folder
from fedcert.errors import BundleError, SettingsError

if TYPE_CHECKING:
    from fedcert.bundles import Bundle
    from fedcert.data import Examples

__all__ = [
    "base_name",
    "key_path",
    "load_bundle",
    "own_labels",
    "read_labeled",
    "read_unlabeled",
]

_KEY = "fedcert.key"


def load_bundle(path: Path, digest: str | None) -> Bundle:
    """Load a bundle, and make sure that it is the one that the user expects, if any.

    Raises
    ------
    BundleError
        If it is damaged, or another one.
    """
    from fedcert.bundles import Bundle

    loaded = Bundle.load(path)
    if digest is not None and loaded.digest != digest:
        raise BundleError(
            f"{path} is the bundle {loaded.digest}, not the expected {digest}; get it again "
            "from your federation"
        )
    return loaded


def key_path(given: Path | None) -> Path:
    """Return where the signing key is: as given, or in the user's own folder.

    A key that followed the working directory would bring a ledger that knows nothing into
    every new one, and then the same examples could certify twice.

    Raises
    ------
    SettingsError
        If there is a key from before in the working directory.
    """
    default = state_folder() / _KEY
    old = Path(_KEY)
    if given is not None or not old.exists() or (default.exists() and old.samefile(default)):
        return given or default
    # Moving one over the other would lose a key, and what its ledger knows.
    raise SettingsError(
        f"there is a key ./{_KEY} from before keys were kept in {default.parent}, wherever you "
        f"are: go on with it by --key {_KEY}, or with the other by "
        f"--key {shlex.quote(str(default))}, each with the ledger beside it; what one of them "
        "has used must not certify with the other"
    )


def base_name(bundle: Path, given: str | None) -> str | None:
    """Return where the base model is: as given, or beside the bundle."""
    from fedcert.bundles.versions import VERSIONS

    parent = bundle.resolve().parent
    beside = (parent.parent if parent.name == VERSIONS else parent) / "base-model"
    return given or (str(beside) if beside.is_dir() else None)


def own_labels(
    bundle: Bundle, path: Path | None
) -> tuple[tuple[str, ...] | None, dict[str, str]]:
    """Return names and descriptions of a client's own labels, if the bundle leaves them to it.

    They come from a file of their own, not from the column: what happens to be in a sample is
    no list of what can occur, and errors on the rest would not count.

    Raises
    ------
    SettingsError
        If there are none, or they are the bundle's.
    """
    from fedcert.label_set import read_labels

    if bundle.takes_labels and path is None:
        raise SettingsError(
            "the bundle leaves the labels to you: give --labels labels.txt with the name of "
            "every label that can occur, one a line"
        )
    if path is not None and not bundle.takes_labels:
        raise SettingsError(
            f"the labels are the bundle's: {', '.join(bundle.labels)}; leave out --labels"
        )
    return (None, {}) if path is None else read_labels(path)


def read_labeled(
    data: Path,
    bundle: Bundle,
    input_column: str,
    label_column: str,
    *,
    labels: Sequence[str] | None = None,
    beside: str | None = None,
    strict: bool = True,
) -> Examples:
    """Read a user's examples as the bundle's task has them; say what counts as an error.

    Parameters
    ----------
    data : Path
        The user's table.
    bundle : Bundle
        Says what an input and a label are.
    input_column : str
        Name of the column of inputs.
    label_column : str
        Name of the column of labels.
    labels : sequence of str, optional
        The client's own, if the bundle leaves them to clients.
    beside : str, optional
        A column of the table that is no part of an input.
    strict : bool (default: True)
        As in `fedcert.data.read_examples`.

    Returns
    -------
    fedcert.data.Examples
        As many examples as the table has rows.
    """
    from fedcert.data import read_examples

    return read_examples(
        data,
        spec=bundle.inputs,
        labels=labels or bundle.labels,
        input_column=input_column,
        label_column=label_column,
        without=() if beside is None else (beside,),
        strict=strict,
        warn=_warn,
    )


def read_unlabeled(
    data: Path | None, bundle: Bundle, input_column: str, label_column: str
) -> Examples | None:
    """Read a user's inputs without labels, if a file is given, as the bundle's task has them.

    Parameters
    ----------
    data : Path or None
        The user's table.
    bundle : Bundle
        Says what an input is.
    input_column, label_column : str
        Names of the columns; labels in the file are not looked at.

    Returns
    -------
    fedcert.data.Examples or None
        As many as the table has rows.
    """
    from fedcert.data import read_unlabeled as read

    if data is None:
        return None
    return read(
        data,
        spec=bundle.inputs,
        input_column=input_column,
        label_column=label_column,
        warn=_warn,
    )


def _warn(text: str) -> None:
    from rich.console import Console

    from fedcert.cli.endings import print_line

    print_line(Console(stderr=True), f"WARNING: {text}")
