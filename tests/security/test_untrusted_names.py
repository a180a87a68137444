"""Names that clients choose are shown, never run: in pages, on terminals, in paths."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fedcert.certificates import Certificate
from fedcert.cli.endings import print_line
from fedcert.reports.certificate_page import render_certificate

BLESSED = Path(__file__).parents[1] / "certificates" / "blessed" / "split.json"
HOSTILE = {
    "a script": "<script>alert(1)</script>",
    "an attribute": '" onmouseover="alert(1)',
    "single quotes": "' onload='alert(1)",
    "an entity": "&lt;script&gt;alert(1)&#x3c;/script&#x3e;",
    "the end of a title": "</title><svg onload=alert(1)>",
    "the end of a style": "</style><img src=x onerror=alert(1)>",
    "a comment": "--><script>alert(1)</script><!--",
    "a template": "{{ ''.__class__.__mro__ }}{% include '/etc/passwd' %}",
    "turned text": "alice\u202etxt.exe",
    "isolates": "\u2066alice\u2069 \u2068mallory",
    "zero bytes": "alice\x00\x1b[2J\x07",
    "new lines": "alice\n\n<h1>mallory</h1>",
}
INVISIBLE = "\x00\x07\x1b\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


class _Page(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Any]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_certificates_page_shows_names_as_text(kind: str) -> None:
    certificate, name = Certificate.read(BLESSED), HOSTILE[kind]
    plain = _Page(render_certificate(certificate))
    hostile = replace(certificate, client=name, labels=(name, "b"), statement=name)
    page = render_certificate(hostile)
    shown = _Page(page)
    assert shown.tags == plain.tags
    assert shown.attributes == plain.attributes
    assert not set(page) & set(INVISIBLE)
    for word in name.split():
        if not set(word) & set(INVISIBLE):
            assert word in shown.text


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_terminal_shows_names_as_text(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = HOSTILE[kind]
    print_line(Console(force_terminal=True, color_system=None), f"client {name}")
    shown = capsys.readouterr().out
    assert not set(shown) & set(INVISIBLE)
    assert shown.count("\n") == 1
    assert shown.startswith("client ")
