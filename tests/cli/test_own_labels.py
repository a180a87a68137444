"""Labels of a device's own, from a file, at every command that needs them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from personalization.named_client import NAMES, Client

from fedcert.certificates import Certificate

from .conftest import Run

pytestmark = pytest.mark.filterwarnings("ignore:the labels")


@pytest.fixture
def client(tmp_path: Path) -> Client:
    """Leave bundle, base model, labels, and examples as files."""
    client = Client(tmp_path)
    client.bundle.save(tmp_path / "bundle")
    (tmp_path / "base").rename(tmp_path / "base-model")
    (tmp_path / "labels.txt").write_text(
        f"{NAMES[0]}\tbad0 bad1 bad2\n{NAMES[1]}\n{NAMES[2]}\n"
    )
    with (tmp_path / "data.csv").open("w", newline="") as file:
        rows = zip(client.examples.inputs, client.examples.labels, strict=True)
        csv.writer(file).writerows(
            [("input", "label"), *((text, NAMES[label]) for text, label in rows)]
        )
    return client


def test_from_commitment_to_verification(client: Client, run: Run) -> None:
    folder = client.folder
    bundle = ("--bundle", folder / "bundle")
    device = (folder / "data.csv", *bundle, "--client", "me", "--key", folder / "my.key")
    labels = ("--labels", folder / "labels.txt")
    server = ("--state", folder / "cli-server")
    assert run("server", "publish", folder / "bundle", *server).code == 0
    shown = run("commit", *device, *labels, "-o", folder / "commitment.json")
    assert (shown.code, shown.err) == (0, "")
    committed = json.loads((folder / "commitment.json").read_text())["labels"]
    assert committed["names"] == list(NAMES)
    assert committed["texts"][:2] == [["bad0 bad1 bad2"], ["about good3"]]
    seed = ("--seed", folder / "seed.json")
    issued = run("server", "issue-seed", folder / "commitment.json", "-o", seed[1], *server)
    assert issued.code == 0
    (folder / "fewer.txt").write_text("\n".join(NAMES[:2]))
    out = ("-o", folder / "me")
    shown = run("personalize", *device, *seed, *out, "--labels", folder / "fewer.txt")
    assert shown.code == 1
    assert "not the labels that were committed to" in shown.err
    shown = run("personalize", *device, *seed, *out, *labels)
    assert (shown.code, shown.err) == (0, "")
    made = folder / "me" / "certificate.json"
    assert Certificate.read(made).labels == NAMES
    shown = run("verify", made, *bundle, "--data", folder / "data.csv")
    assert shown.code == 0, shown.out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "the bundle leaves the labels to you: give --labels labels.txt"),
        ("a\n\nb\n", "line 2 has no name"),
        ("a\nA\n", "have the same name"),
        ("only\n", "at least two labels"),
        ("a\n" + "b " * 600 + "\n", "shorten it"),
        (b"\xff\xfe\x00", "no text in UTF-8"),
    ],
)
def test_a_mistake_about_labels_is_one_line(
    client: Client, run: Run, text: str | bytes | None, said: str
) -> None:
    folder = client.folder
    given: tuple[object, ...] = ()
    if text is not None:
        path = folder / "wrong.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        given = ("--labels", path)
        (folder / "data.csv").write_text("input,label\nx,a\ny,a\nz,a\n")
    for command in ("commit", "personalize"):
        shown = run(
            *(command, folder / "data.csv", "--bundle", folder / "bundle", "--client", "me"),
            *("--key", folder / "my.key", "-o", folder / "me", *given),
        )
        assert (shown.code, shown.out) == (1, "")
        [line] = shown.err.splitlines()
        assert said in line
    assert not (folder / "me").exists()
