"""A certificate as a page."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from fedcert.certificates import Certificate
from fedcert.certificates.by_label import write_by_label
from fedcert.reports.certificate_page import render_certificate, write_certificate_page

BLESSED = Path(__file__).parents[1] / "certificates" / "blessed"


def _certificate(name: str = "posterior_split") -> Certificate:
    return Certificate.read(BLESSED / f"{name}.json")


def test_the_page_says_all_that_the_record_says() -> None:
    certificate = _certificate()
    page = render_certificate(certificate).replace("&#39;", "'")
    for words in (
        re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1…", certificate.statement),
        f"{certificate.errors / certificate.certified_on:.1%}",
        *certificate.assumptions,
        *(entry.purpose for entry in certificate.ledger),
        certificate.digests.bundle,
        certificate.signature.public_key,
        "unwitnessed",
    ):
        assert words in page
    assert "http" not in page.replace("http-equiv", "")


def test_what_a_record_says_is_shown_and_not_run() -> None:
    client = "<script>alert(1)</script>"
    page = render_certificate(replace(_certificate(), client=client, labels=("<b>", "&")))
    assert client not in page
    assert "&lt;script&gt;" in page
    assert "<b>" not in page


def test_a_certificate_that_says_nothing_says_so(tmp_path: Path) -> None:
    certificate = _certificate()
    warning = "no more than guessing"
    assert warning not in render_certificate(replace(certificate, bound=certificate.chance / 2))
    path, record = tmp_path / "page.html", tmp_path / "record.json"
    record.touch()
    os.utime(record, (0, 0))
    write_certificate_page(replace(certificate, bound=1.0), path, record=record)
    page = path.read_text(encoding="utf-8")
    assert warning in page
    # A record holds no date: the page has that of the file, and says that nobody signed it.
    assert "1970-01-01 00:00 UTC" in page
    assert "nobody signed its date" in page
    assert 'href="record.json"' in page


def test_digests_stand_in_the_table_and_not_in_the_claim() -> None:
    certificate = _certificate()
    page = render_certificate(certificate)
    claim = page[page.index("</h1>") : page.index("<h2>")]
    assert re.search(r"[0-9a-f]{13}", claim) is None
    assert page.count(certificate.digests.bundle) == 1


def test_errors_by_label_are_counts_and_said_to_certify_nothing(tmp_path: Path) -> None:
    certificate = _certificate()
    record = tmp_path / "certificate.json"
    certificate.write(record)
    page = tmp_path / "certificate.html"
    write_certificate_page(certificate, page)
    assert "errors by label" not in page.read_text(encoding="utf-8")
    counts = {"<mine>": (certificate.errors, certificate.certified_on)}
    write_by_label(tmp_path, certificate, counts)
    write_certificate_page(certificate, page)
    text = page.read_text(encoding="utf-8")
    assert f"&lt;mine&gt; {certificate.errors} of {certificate.certified_on}" in text
    assert "for all labels together, and for no single one" in text
