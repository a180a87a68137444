"""How `make docs` builds these pages: Sphinx with the theme furo, nothing from the network."""

from __future__ import annotations

import re
from importlib.metadata import version as version_of
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
html_show_sourcelink = html_copy_source = False
# A snippet with ... in it is no mistake of the pages.
suppress_warnings = ["misc.highlighting_failure"]

_CONTENTS = """

```{toctree}
:hidden:
:caption: Begin
tutorial
own
devices-step-by-step
cli
```
```{toctree}
:hidden:
:caption: How to
scenarios
planning
devices
predicting
flower
deployment
extending
baselines
```
```{toctree}
:hidden:
:caption: What holds
certificates
theory
protocol
privacy
security
```
```{toctree}
:hidden:
:caption: Figures
demo
benchmarks
sweeps
prior
searching
reliability
```
```{toctree}
:hidden:
:caption: Reference
api
architecture
```
"""
# A file of the repository is no page: its name stays, and no link that leads nowhere.
_OUTSIDE = re.compile(r"\[([^]]*)\]\((?:\.\./([^)#]+)|(CONTRIBUTING\.md))(?:#[^)]*)?\)")


def _named(match: re.Match[str]) -> str:
    text, path = match[1], match[2] or match[3]
    return f"`{path}`" if text.strip("`") == path else f"{text} (`{path}`)"


def _prepare(_app: Any, page: str, source: list[str]) -> None:
    source[0] = _OUTSIDE.sub(_named, source[0])
    if page == "index":
        source[0] += _CONTENTS


def setup(app: Any) -> None:
    """Let pages that read well in a repository read well in a browser."""
    app.connect("source-read", _prepare)
