"""Options that several commands of a device have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from fedcert.errors import SettingsError

__all__ = [
    "Base",
    "BundleDigest",
    "BundlePath",
    "DataPath",
    "Device",
    "DuplicatesAreReal",
    "InputColumn",
    "Key",
    "LabelColumn",
    "Labels",
    "RepeatsAreNew",
    "ServerKey",
    "State",
    "UnlabeledPath",
    "hex64",
]


def hex64(parameter: typer.CallbackParam, value: str | None) -> str | None:
    """Refuse what is no digest and no key: a part of one would fit nothing, and blame it."""
    if value is None or re.fullmatch("[0-9a-fA-F]{64}", value):
        return value and value.lower()
    raise SettingsError(
        f"{parameter.human_readable_name.lower().replace('_', '-')} must be 64 hexadecimal "
        f"digits, and {value!r} is not"
    )


Base = Annotated[
    str | None,
    typer.Option(
        "--base-model",
        help="Folder or hub id of the base model; by default `base-model` beside the bundle, "
        "if it is there, or the bundle's own hub id.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        help="Where to compute: auto (a GPU, if there is one), cpu, cuda, cuda:1, or mps."
    ),
]
State = Annotated[
    Path | None,
    typer.Option(
        help="Your state folder: what you have spent and committed to. Keep it; by default "
        "beside the key, with the ending .state, or a node's folder state."
    ),
]
Key = Annotated[
    Path | None,
    typer.Option(
        help="Your signing key; made, readable by you alone, if missing. By default "
        "fedcert.key in your own state folder, wherever you are."
    ),
]
DuplicatesAreReal = Annotated[
    bool,
    typer.Option(
        "--duplicates-are-real",
        help="You state that inputs which occur more than once were drawn more than once, and "
        "none was copied.",
    ),
]
RepeatsAreNew = Annotated[
    bool,
    typer.Option(
        "--repeats-are-new",
        help="You state that inputs which you have spent came up again in a new random sample.",
    ),
]
DataPath = Annotated[
    Path, typer.Argument(help="Labeled examples: .csv, .jsonl, .npz, or .parquet.")
]
BundlePath = Annotated[
    Path, typer.Option("--bundle", "-b", help="The federation's bundle: a folder or archive.")
]
BundleDigest = Annotated[
    str | None,
    typer.Option(help="The bundle that you expect, 64 hexadecimal digits.", callback=hex64),
]
ServerKey = Annotated[
    str | None,
    typer.Option(help="The server that you expect, 64 hexadecimal digits.", callback=hex64),
]
InputColumn = Annotated[str, typer.Option(help="Column or key of the inputs.")]
LabelColumn = Annotated[str, typer.Option(help="Column or key of the labels.")]
Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        help="Your own labels, where the bundle leaves them to you: a text file, one name a "
        "line, all that can occur; after a tab a description, if you like.",
    ),
]
UnlabeledPath = Annotated[
    Path | None,
    typer.Option(
        "--unlabeled",
        help="Inputs without labels, from the same source as the examples and none of these, "
        "for bundles of methods that read inputs; a file as of examples.",
    ),
]
