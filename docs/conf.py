"""How `make docs` builds these pages: Sphinx with the theme furo, nothing from the network."""

from __future__ import annotations

import re
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

project = "fedcert"
author = copyright = "The fedcert developers"
version = release = version_of("fedcert")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["CONTRIBUTING.md"]
myst_heading_anchors = 4
autodoc_typehints = "none"  # the docstrings say the types
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False
html_theme = "furo"
html_title = "fedcert"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_show_sourcelink = html_copy_source = False
# A snippet with ... in it is no mistake of the pages.
suppress_warnings = ["misc.highlighting_failure"]

_CONTENTS = {
    "Begin": ["tutorial", "own", "devices-step-by-step", "cli"],
    "How to": [
        *("scenarios", "planning", "devices", "predicting", "flower", "deployment"),
        *("extending", "methods", "baselines"),
    ],
    "What holds": ["certificates", "theory", "protocol", "privacy", "security"],
    "Reference": ["api", "architecture"],
}
_LISTED = {page for pages in _CONTENTS.values() for page in pages} | {"index", "CONTRIBUTING"}
# All others are what a benchmark measured.
_CONTENTS["Figures"] = sorted(
    path.stem for path in Path(__file__).parent.glob("*.md") if path.stem not in _LISTED
)
# A file of the repository is no page: its name stays, and no link that leads nowhere.
_OUTSIDE = re.compile(r"\[([^]]*)\]\((?:\.\./([^)#]+)|(CONTRIBUTING\.md))(?:#[^)]*)?\)")


def _named(match: re.Match[str]) -> str:
    text, path = match[1], match[2] or match[3]
    return f"`{path}`" if text.strip("`") == path else f"{text} (`{path}`)"


def _contents(caption: str) -> str:
    pages = "\n".join(_CONTENTS[caption])
    return f"\n\n```{{toctree}}\n:hidden:\n:caption: {caption}\n{pages}\n```\n"


def _prepare(_app: Any, page: str, source: list[str]) -> None:
    source[0] = _OUTSIDE.sub(_named, source[0])
    if page == "index":
        source[0] += "".join(map(_contents, _CONTENTS))


def setup(app: Any) -> None:
    """Let pages that read well in a repository read well in a browser."""
    app.connect("source-read", _prepare)
