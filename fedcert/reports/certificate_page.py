"""One certificate as a page to read."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from fedcert.atomic import write_atomically
from fedcert.certificates import Certificate
from fedcert.certificates.by_label import ErrorsByLabel, describe_by_label, read_by_label
from fedcert.reports.colors import COLORS
from fedcert.reports.formats import short_digests
from fedcert.reports.templates import environment

__all__ = ["render_certificate", "write_certificate_page"]


def render_certificate(
    certificate: Certificate,
    *,
    record: str = "certificate.json",
    date: str = "",
    by_label: ErrorsByLabel | None = None,
) -> str:
    """Return a certificate as one self-contained HTML page, in the record's own words.

    Nothing is checked here: `fedcert.certificates.verify_record` is for that.

    Parameters
    ----------
    certificate : Certificate
        What it shows.
    record : str (default: "certificate.json")
        The name of its file, which stands beside the page.
    date : str (default: "")
        When its file was written. A record holds no date, and nobody signed this one.
    by_label : Mapping, optional
        The errors of each label, as the client counted them.

    Returns
    -------
    str
        The page.
    """
    page = (
        environment()
        .get_template("certificate.html.jinja")
        .render(
            certificate=certificate,
            claim=short_digests(certificate.statement),
            seen_by=short_digests(certificate.witness or ""),
            digests=asdict(certificate.digests),
            record=record,
            date=date,
            by_label=None if by_label is None else describe_by_label(by_label),
            colors=COLORS,
        )
    )
    return "\n".join(line.rstrip() for line in page.splitlines() if line.strip()) + "\n"


def write_certificate_page(
    certificate: Certificate, path: Path, *, record: Path | None = None
) -> None:
    """Write the page, in full or not at all; it is dated as the file of the record is.

    Parameters
    ----------
    certificate : Certificate
        What it shows.
    path : Path
        The page.
    record : Path, optional
        The certificate's file; by default the one beside the page that ends in ``.json``.
    """
    record = record or path.with_suffix(".json")
    written = datetime.fromtimestamp(record.stat().st_mtime, UTC)
    page = render_certificate(
        certificate,
        record=record.name,
        date=written.strftime("%Y-%m-%d %H:%M UTC"),
        by_label=read_by_label(record.parent, certificate),
    )
    write_atomically(path, page.encode())
