"""``fedcert points``: bundles and examples in, a table, and a policy that runs, out."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from personalization.test_points import NAMES, Device, make_device

from fedcert.certificates import Certificate
from fedcert.classifier import load_classifier

from .conftest import Run

pytestmark = pytest.mark.filterwarnings("ignore:the labels")


@dataclass
class Files:
    """What a device has on its disk."""

    folder: Path
    device: Device

    @property
    def points(self) -> tuple[object, ...]:
        given: list[object] = [self.folder / "data.csv", "--client", "me"]
        given += ["--key", self.folder / "my.key", "--labels", self.folder / "labels.txt"]
        for name in ("deep", "shallow"):
            given += ["--bundle", self.folder / f"{name}-bundle"]
            given += ["--base-model", self.folder / name]
        return tuple(given)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Leave bundles, base models, labels, and examples as files."""
    device = make_device(tmp_path)
    for name, (bundle, _) in device.points.items():
        bundle.save(tmp_path / f"{name}-bundle")
    (tmp_path / "labels.txt").write_text("".join(f"{name}\n" for name in NAMES))
    with (tmp_path / "data.csv").open("w", newline="") as file:
        rows = zip(device.examples.inputs, device.examples.labels, strict=True)
        csv.writer(file).writerows(
            [("input", "label"), *((text, NAMES[label]) for text, label in rows)]
        )
    return Files(tmp_path, device)


def test_from_bundles_to_a_policy_that_is_verified_and_runs(files: Files, run: Run) -> None:
    folder, out = files.folder, files.folder / "mine"
    shown = run("points", *files.points, "-o", out)
    assert (shown.code, shown.err) == (0, ""), shown.err
    assert "all 2 bounds hold at once" in shown.out
    begun, lines = shown.out.splitlines()[:2], shown.out.splitlines()[2:]
    assert begun == ["personalizing at shallow", "personalizing at deep"]
    assert [line.split()[:2] for line in lines[:3]] == [
        ["point", "layers"],
        ["shallow", "1"],
        ["deep", "3"],
    ]
    assert "deep: with early exits at most" in shown.out
    deep = Certificate.read(out / "deep" / "certificate.json")
    assert f"{deep.bound:.2f}"[:3] in lines[2]
    shown = run("points", *files.points, "--client", "another", "-o", out)
    assert shown.code == 1
    assert "has a certificate of the client 'me' under the key" in shown.err
    shown = run("points", *files.points, "-o", out, "--json")
    rows = json.loads(shown.out)
    assert [row["point"] for row in rows] == ["shallow", "deep"]
    assert rows[0]["mib"] < rows[1]["mib"]

    verified = ("verify", out / "deep" / "certificate.json", "--bundle", folder / "deep-bundle")
    data = ("--data", folder / "data.csv", "--base-model", folder / "deep")
    early = ("--early", out / "shallow", "--early-bundle", folder / "shallow-bundle")
    early_base = ("--early-base-model", folder / "shallow")
    shown = run(*verified, *data)
    assert shown.code == 0, shown.out
    assert "--early-bundle" in shown.out
    shown = run(*verified, *data, *early, *early_base)
    assert shown.code == 0, shown.out
    assert "early point" in shown.out
    shown = run(*verified, *early)
    assert shown.code == 1
    assert "--early needs --early-bundle and --data" in shown.err

    bases = ("--base-model", folder / "deep", "--early-base-model", folder / "shallow")
    adapter, first = out / "deep" / "adapter", out / "shallow" / "adapter"
    shown = run("predict", adapter, folder / "data.csv", "--early", first, *bases)
    assert shown.code == 0, shown.err
    both = [
        load_classifier(path, files.device.points[name][1].base)
        for path, name in ((first, "shallow"), (adapter, "deep"))
    ]
    policy = load_classifier(adapter, files.device.points["deep"][1].base, early=both[0])
    texts = files.device.examples.inputs
    later = policy.goes_on(texts)
    expected = [
        late if on else soon
        for soon, late, on in zip(*(one.predict(texts) for one in both), later, strict=True)
    ]
    assert [row["label"] for row in csv.DictReader(shown.out.splitlines())] == expected
    both_shallow = ("--base-model", folder / "shallow", *bases[2:])
    shown = run("predict", first, folder / "data.csv", "--early", first, *both_shallow)
    assert shown.code == 1
    assert "was not certified with an early exit" in shown.err


def test_mistakes_are_one_line(files: Files, run: Run) -> None:
    shown = run("points", *files.points, "--base-model", "x", "-o", files.folder / "mine")
    assert shown.code == 1
    assert "2 bundles and 3 base models" in shown.err
