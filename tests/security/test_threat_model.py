"""docs/security.md names the tests that show what it says: each of them exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from faults.devices import DEVICE_FAULTS
from faults.uploads import UPLOAD_FAULTS

TESTS = Path(__file__).resolve().parents[1]
DOCS = TESTS.parent / "docs"
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)(?:\[([^\]]+)\])?`",
                              (DOCS / "security.md").read_text(encoding="utf-8"))))  # fmt: skip
FAULTS = {
    "faults/test_device_faults.py": {fault.name for fault in DEVICE_FAULTS},
    "faults/test_upload_faults.py": {fault.name for fault in UPLOAD_FAULTS},
}
ADVERSARIES = ("honest but curious", "malicious server", "upstream clients", "new clients",
               "outsider", "owner of a device")  # fmt: skip


@cache
def _tests_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_named_test_exists() -> None:
    missing = [
        f"{file}::{test}" + (f"[{case}]" if case else "")
        for file, test, case in NAMED
        if test not in _tests_of(TESTS / file) or (case and case not in FAULTS[file])
    ]
    assert missing == []


def test_every_part_names_tests_and_what_is_not_protected() -> None:
    parts = re.split(r"^## ", (DOCS / "security.md").read_text(encoding="utf-8"), flags=re.M)
    for adversary in ADVERSARIES:
        [part] = [part for part in parts if adversary in part.splitlines()[0].lower()]
        assert len(re.findall(r"::test_", part)) >= 3
        assert "**Not protected.**" in part
    assert len(NAMED) > 40


def test_the_fault_names_are_told_apart() -> None:
    names = [fault.name for fault in (*DEVICE_FAULTS, *UPLOAD_FAULTS)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("page", ["index.md", "protocol.md"])
def test_the_page_is_found(page: str) -> None:
    assert "(security.md)" in (DOCS / page).read_text(encoding="utf-8")
