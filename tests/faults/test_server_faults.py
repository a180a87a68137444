"""Trouble on the server's side, brought about in real processes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from faults import server
from faults.fault import NOTHING, Fault, Recorder, bring_about
from faults.server import SERVER_FAULTS
from faults.server_rig import start


@pytest.mark.parametrize("fault", SERVER_FAULTS, ids=lambda fault: fault.name)
def test_nothing_is_lost_and_nothing_is_done_twice(
    fault: Fault, tmp_path: Path, record_property: Recorder
) -> None:
    bring_about(fault, tmp_path, record_property)


# The judge: what it lets pass would pass in every test above


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    assert start(folder).end().status == 0
    return folder


def test_a_run_without_trouble_is_found_in_order(finished: Path) -> None:
    assert server._findings(finished) == []
    assert server._trained_again(finished) == NOTHING


def _forged(run: Path) -> None:
    path = next((run / "certificates").glob("*.json"))
    path.write_text(path.read_text().replace('"errors": ', '"errors": 1'))


def _unlinked(run: Path) -> None:
    (run / "bundle").unlink()
    shutil.copytree(run / "bundles" / "0001", run / "bundles" / "0002")
    (run / "bundle").symlink_to("bundles/0002")


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        (lambda run: next((run / "certificates").glob("*.json")).unlink(), "1 certificates"),
        (_forged, "does not verify"),
        (_unlinked, r"there are the versions \[1, 2\]"),
        (lambda run: (run / "bundles" / ".0002.torn").mkdir(), r"half-written: \.0002\.torn"),
        (lambda run: (run / "pool" / "adapters" / ".x").touch(), r"half-written: \.x"),
    ],
)
def test_what_is_not_in_order_is_found(
    finished: Path, tmp_path: Path, damage: Callable[[Path], object], finding: str
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "copy", symlinks=True))
    damage(folder / "run")
    assert re.search(finding, "; ".join(server._findings(folder)))


def test_who_trained_twice_is_found(finished: Path, tmp_path: Path) -> None:
    asked = (finished / "asked").read_text()
    (tmp_path / "asked").write_text(asked + "train.adapter upstream-03\n")
    assert server._trained_again(tmp_path).startswith("1 upload")
