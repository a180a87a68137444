"""One certificate as a page to read."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from fedcert.atomic import write_atomically
from fedcert.certificates import Certificate
from fedcert.reports.colors import COLORS
from fedcert.reports.templates import environment

__all__ = ["render_certificate", "write_certificate_page"]


def render_certificate(certificate: Certificate) -> str:
    """Return a certificate as one self-contained HTML page, in the record's own words.

    Nothing is checked here: `fedcert.certificates.verify_record` is for that.
    """
    page = (
        environment()
        .get_template("certificate.html.jinja")
        .render(certificate=certificate, digests=asdict(certificate.digests), colors=COLORS)
    )
    return "\n".join(line.rstrip() for line in page.splitlines() if line.strip()) + "\n"


def write_certificate_page(certificate: Certificate, path: Path) -> None:
    """Write the page, in full or not at all."""
    write_atomically(path, render_certificate(certificate).encode())
