"""``fedcert predict``: labels for a file of inputs, by an adapter that somebody exported."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedcert.cli.console import say
from fedcert.cli.options import Device, InputColumn, LabelColumn, Labels
from fedcert.cli.outputs import check_output
from fedcert.errors import SettingsError

if TYPE_CHECKING:
    import numpy.typing as npt

    from fedcert.adapters.classifier_file import ClassifierFile
    from fedcert.classifier import Classifier

__all__ = ["predict"]

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_LINES = ".jsonl"
# How far above an adapter folder a base model is looked for: as far as in a run's folder.
_LEVELS = 3


Adapter = Annotated[Path, typer.Argument(help="An adapter folder, as `personalize` made it.")]
Data = Annotated[Path, typer.Argument(help="Inputs: .csv, .tsv, .jsonl, .npz, or .parquet.")]


def predict(
    adapter: Adapter,
    data: Data,
    base_model: Annotated[
        str | None,
        typer.Option(
            "--base-model",
            help="Folder or hub id of the base model; by default a `base-model` beside the "
            "adapter or in a folder above, or the hub id that the adapter names.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="A file .csv, .tsv, or .jsonl; by default CSV is printed."
        ),
    ] = None,
    device: Device = "auto",
    input_column: InputColumn = "input",
    label_column: LabelColumn = "label",
    labels: Labels = None,
    early: Annotated[
        Path | None,
        typer.Option(
            help="Adapter folder of the early operating point that the adapter was certified "
            "with: it answers where it is sure enough."
        ),
    ] = None,
    early_base_model: Annotated[
        str | None,
        typer.Option(help="Its base model; looked for as with --base-model."),
    ] = None,
    top: Annotated[
        int,
        typer.Option(help="Also give the set of so many most probable labels.", min=0),
    ] = 0,
) -> None:
    """Predict the label of each input, and how probable the model finds every label.

    Needs no bundle and no certificate: the adapter folder names its base model, labels, and
    inputs. The rows come out in the order of the file. Labels in the file are not looked at.
    An adapter that was certified to abstain gives "no answer" where it is not sure enough, and
    one that was certified with an early exit takes it with --early.
    """
    from fedcert.adapters.classifier_file import read_classifier
    from fedcert.atomic import write_atomically
    from fedcert.classifier import load_classifier
    from fedcert.data.readers import read_inputs
    from fedcert.label_set import read_labels

    kind = ".csv" if output is None else output.suffix.lower()
    if kind not in {*_DELIMITERS, _LINES}:
        raise SettingsError(f"--output must end in .csv, .tsv, or .jsonl, not {output}")
    if output is not None:
        check_output(output, data, labels)
    names, descriptions = (None, {}) if labels is None else read_labels(labels)
    first = None
    for folder, base in ((early, early_base_model), (adapter, base_model)):
        if folder is None:
            continue
        about = read_classifier(folder) if folder.is_dir() else None
        first = classifier = load_classifier(
            folder,
            base or _base_of(folder, about),
            labels=names,
            descriptions=descriptions,
            early=first,
            device=device,
        )
    inputs = read_inputs(
        data, spec=classifier.inputs, input_column=input_column, label_column=label_column
    )
    rows = _rows(inputs, classifier, top)
    text = _lines(rows) if kind == _LINES else _table(rows, _DELIMITERS[kind])
    if output is None:
        typer.echo(text, nl=False)
        return
    write_atomically(output, text.encode())
    say(f"{len(inputs)} predictions: {output}")


def _base_of(adapter: Path, about: ClassifierFile | None) -> str:
    """Find the base model of an adapter that nobody named one for."""
    for folder in adapter.resolve().parents[:_LEVELS]:
        if (folder / "base-model").is_dir():
            return str(folder / "base-model")
    if about is not None and about.base_revision != "local":
        return about.base_name
    made_for = (
        "" if about is None else f" {about.base_name!r} (digest {about.base_digest[:12]})"
    )
    raise SettingsError(
        f"{adapter}: the adapter needs the base model{made_for} that it was made for; name its "
        "folder with --base-model"
    )


def _rows(
    inputs: npt.NDArray[Any], classifier: Classifier, top: int
) -> Iterator[dict[str, Any]]:
    """Yield what is said of each input; an image is not written again."""
    for value, answer in zip(inputs, classifier.answers(inputs, size=top), strict=True):
        yield {
            **({"input": value} if isinstance(value, str) else {}),
            "label": answer.label,
            **({"labels": list(answer.among)} if top else {}),
            "probability": max(answer.probabilities),
            "probabilities": dict(zip(classifier.labels, answer.probabilities, strict=True)),
        }


def _lines(rows: Iterator[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)


def _table(rows: Iterator[dict[str, Any]], delimiter: str) -> str:
    """Write a header and a row for each input, with a column of its own for every label."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    for place, row in enumerate(rows):
        each = row.pop("probabilities")
        if not place:
            writer.writerow([*row, *(f"probability of {label}" for label in each)])
        if "labels" in row:
            row["labels"] = " | ".join(row["labels"])
        shown = [f"{value:.6f}" for value in (row["probability"], *each.values())]
        writer.writerow([*list(row.values())[:-1], *shown])
    return text.getvalue()
