"""README.md and docs/: every link leads somewhere, every command takes the options shown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from fedcert.cli import app as commands
from fedcert.settings import RunSettings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
# Of a link or an image; a link's text may itself be one.
_LINK = re.compile(r"\]\(([^()\s]+)\)")


def _id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _links(page: Path) -> Iterator[str]:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    yield from (found for found in _LINK.findall(_CODE.sub("", text)) if "://" not in found)


def _anchors(page: Path) -> set[str]:
    """Return what GitHub makes of the headings, the second of the same name with ``-1``."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    found: list[str] = []
    for title in re.findall(r"^#+ +(.+?)\s*$", text, re.MULTILINE):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        found.append(slug + (f"-{found.count(slug)}" if slug in found else ""))
    return set(found)


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in _links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{_id(page)} links to {link}, which is not there"
        assert target.is_relative_to(ROOT), f"{_id(page)} links to {link}, outside the project"
        if anchor:
            assert anchor in _anchors(target), f"{_id(page)}: no heading in {path} is #{anchor}"


def test_every_page_can_be_reached_from_the_overview() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {link.partition("#")[0] for link in _links(index)} | {index.name}
    assert {page.name for page in PAGES if page.parent == index.parent} <= linked


