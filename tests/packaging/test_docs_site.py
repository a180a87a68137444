"""The documentation as static pages: they build without a warning, and fetch nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fedcert

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(path.stem for path in DOCS.glob("*.md") if path.stem != "CONTRIBUTING")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"),
            *("-d", str(folder / "doctrees"), str(DOCS), str(folder / "html")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_every_page_is_there_and_in_the_contents(site: Path) -> None:
    contents = (site / "index.html").read_text(encoding="utf-8")
    for page in PAGES:
        title = f"<h1>{_title(page)}"
        assert title in (site / f"{page}.html").read_text(encoding="utf-8")
        assert page == "index" or f'href="{page}.html"' in contents


def _title(page: str) -> str:
    """Return the first heading: another one is a page of Sphinx's that took the name."""
    heading = re.search(
        r"^# ([^`'\n]*)", (DOCS / f"{page}.md").read_text(encoding="utf-8"), re.M
    )
    assert heading is not None
    return heading[1].strip().partition("'")[0]


def test_the_reference_has_every_name_that_python_offers(site: Path) -> None:
    page = (site / "api.html").read_text(encoding="utf-8")
    for name in set(fedcert.__all__) - {"__version__"}:
        cls = getattr(fedcert, name)
        assert f'id="{cls.__module__}.{name}"' in page or f'id="fedcert.{name}"' in page, name


def test_tables_get_the_width_that_there_is(site: Path) -> None:
    assert 'href="_static/wide.css' in (site / "benchmarks.html").read_text(encoding="utf-8")
    rules = (site / "_static" / "wide.css").read_text(encoding="utf-8")
    # Without these a wide table makes the whole page scroll sideways.
    assert ".main {\n  min-width: 0;" in rules
    assert "max-width: 100%;" in rules


def test_no_page_fetches_anything_from_elsewhere(site: Path) -> None:
    loaded = re.compile(r'<(?:script|img|link)[^>]*(?:src|href)="(?:https?:)?//[^"]*"')
    for path in site.rglob("*.html"):
        assert loaded.findall(path.read_text(encoding="utf-8")) == [], path.name


def test_links_that_leave_the_pages_are_names_of_files(site: Path) -> None:
    page = (site / "flower.html").read_text(encoding="utf-8")
    assert '<code class="docutils literal notranslate">' in page
    assert 'href="../' not in page
