"""Inputs without labels, from a file, at every command that takes them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from personalization.gated_client import Client
from tiny_models import Family

import fedcert
from fedcert.certificates import Certificate
from fedcert.data import Examples

from .conftest import Run

HEADER = ",".join(f"pixel {number}" for number in range(64))


@pytest.fixture
def client(vit: Family, tmp_path: Path) -> Client:
    """Leave bundle, base model, examples, and inputs without labels as files."""
    client = Client(vit, tmp_path)
    client.bundle.save(tmp_path / "bundle")
    (tmp_path / "base-model").symlink_to(vit.folder)
    _write(tmp_path / "data.csv", client.examples, labels=client.bundle.labels)
    _write(tmp_path / "inputs.csv", client.unlabeled)
    return client


def _write(path: Path, examples: Examples, labels: tuple[str, ...] = ()) -> None:
    """Write a row of numbers for each image, before its label if it has one."""
    with path.open("w", newline="") as file:
        rows = [image.ravel().tolist() for image in examples.inputs]
        header = [f"pixel {number}" for number in range(len(rows[0]))]
        if labels:
            rows = [
                [*row, labels[label]] for row, label in zip(rows, examples.labels, strict=True)
            ]
            header.append("label")
        csv.writer(file).writerows([header, *rows])


def test_from_commitment_to_verification(client: Client, run: Run) -> None:
    folder = client.folder
    bundle = ("--bundle", folder / "bundle")
    device = (folder / "data.csv", *bundle, "--client", "me", "--key", folder / "my.key")
    given = ("--unlabeled", folder / "inputs.csv")
    server = ("--state", folder / "cli-server")
    assert run("server", "publish", folder / "bundle", *server).code == 0
    shown = run("commit", *device, *given, "-o", folder / "commitment.json")
    assert (shown.code, shown.err) == (0, "")
    seed = ("--seed", folder / "seed.json")
    issued = run("server", "issue-seed", folder / "commitment.json", "-o", seed[1], *server)
    assert issued.code == 0
    out = ("-o", folder / "me")
    shown = run("personalize", *device, *seed, *out)
    assert shown.code == 1
    assert "the commitment is to 25 inputs without labels" in shown.err
    shown = run("personalize", *device, *seed, *out, *given)
    assert (shown.code, shown.err) == (0, "")
    made = folder / "me" / "certificate.json"
    [opening] = (folder / "my.state" / "openings").iterdir()
    checked = ("--data", folder / "data.csv", "--opening", opening)
    shown = run("verify", made, *bundle, *checked, "--json")
    assert shown.code == 0, shown.out
    assert "unlabeled" in {end["name"] for end in json.loads(shown.out)["unchecked"]}
    shown = run("verify", made, *bundle, *checked, *given, "--json")
    assert shown.code == 0, shown.out
    told = json.loads(shown.out)
    assert "unlabeled" not in {end["name"] for end in told["unchecked"]}
    assert {"unlabeled inputs", "choice"} <= {check["name"] for check in told["checks"]}
    shown = run("verify", made, *bundle, *given)
    assert shown.code == 1
    assert "--unlabeled needs --data" in shown.err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        ("", "holds no examples"),
        ("pixel 0,pixel 1\n", "holds no examples"),
        ("pixel 0,pixel 1\n1,2\n3,4\n", "an image has 2 values, but this model takes"),
        (f"{HEADER}\n{','.join(['red'] * 64)}\n", "'red'"),
        (b"\xff\xfe\xfa\x00\n1\n", "UTF-8"),
        (f"{HEADER}\n{','.join(['nan'] * 64)}\n", "holds NaN"),
    ],
    ids=["missing", "empty", "no rows", "width", "words", "encoding", "nan"],
)
def test_a_mistake_about_the_file_is_one_line_and_spends_nothing(
    client: Client, run: Run, content: str | bytes | None, said: str
) -> None:
    folder = client.folder
    wrong = folder / "wrong.csv"
    if content is not None:
        wrong.write_bytes(content if isinstance(content, bytes) else content.encode())
    device = ("--bundle", folder / "bundle", "--client", "me", "--key", folder / "my.key")
    for command in ("commit", "personalize"):
        out = ("-o", folder / f"out of {command}")
        shown = run(command, folder / "data.csv", *device, *out, "--unlabeled", wrong)
        assert shown.code == 1
        assert shown.out == ""
        assert said in shown.err
        assert "wrong.csv" in shown.err
        assert len(shown.err.splitlines()) <= 3  # one line, wrapped
    shown = run("personalize", folder / "data.csv", *device, "-o", folder / "me")
    assert shown.code == 0, shown.err


def test_some_that_cannot_be_read_are_named_and_left_out(client: Client, run: Run) -> None:
    folder = client.folder
    lines = (folder / "inputs.csv").read_text().splitlines()
    lines[3] = ",".join(["nan"] * 64)
    (folder / "inputs.csv").write_text("\n".join(lines))
    device = ("--bundle", folder / "bundle", "--client", "me", "--key", folder / "my.key")
    given = ("--unlabeled", folder / "inputs.csv")
    shown = run("personalize", folder / "data.csv", *device, *given, "-o", folder / "me")
    assert shown.code == 0
    assert "1 of the 25 inputs without labels cannot be read" in " ".join(shown.err.split())
    made = folder / "me" / "certificate.json"
    bundle = ("--bundle", folder / "bundle", "--data", folder / "data.csv")
    assert run("verify", made, *bundle, *given).code == 0


def test_the_library_takes_a_file_or_examples(client: Client) -> None:
    """Labels that these have play no part, so both are the same."""
    folder, made = client.folder, []
    labeled = Examples(client.unlabeled.inputs, np.zeros(25, dtype=np.int64))
    for number, given in enumerate((folder / "inputs.csv", labeled)):
        done = fedcert.personalize(
            folder / "bundle",
            folder / "data.csv",
            client="me",
            key=folder / f"{number}.key",
            output=folder / str(number),
            base_model=str(folder / "base-model"),
            unlabeled=given,
        )
        made.append(done.certificate)
    first, second = made
    assert first.unlabeled == second.unlabeled is not None
    assert first.candidate == second.candidate
    assert isinstance(first, Certificate)
