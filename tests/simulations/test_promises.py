"""A federation whose certificates promise more than a bound, from settings to page."""

from __future__ import annotations

from pathlib import Path

from fedcert.certificates import Certificate, verify_record
from fedcert.certificates.bounds import binomial_upper_bound
from fedcert.reports.certificate_page import render_certificate
from fedcert.simulations.simulating import simulate

from .federation import tiny_settings


def test_every_new_client_of_a_run_gets_what_the_settings_promise(tmp_path: Path) -> None:
    settings = tiny_settings(
        certificate__promises="abstention=0.3, gain", certificate__simultaneous=2
    )
    made = simulate(settings, output=tmp_path / "run", runner="inprocess")
    # Whoever is alone is certified with the delta of these bounds, to be compared with them.
    [delta] = {Certificate.read(record).recipe.delta for record in _records(tmp_path)}
    alone = settings.certificate.shares()["delta"]
    assert 0.98 * alone < delta < alone < 0.05 / 3
    possible = [binomial_upper_bound(errors, 16, alone) for errors in range(17)]
    assert all(row["local_bound"] in possible for row in made.results["clients"])
    records = _records(tmp_path)
    assert len(records) == 2
    for record in records:
        certificate = Certificate.read(record)
        assert verify_record(certificate).passed
        kinds = [outcome.kind for outcome in certificate.promises]
        assert kinds == ["abstention", "gain", "simultaneous"]
        assert 2 * certificate.delta <= 0.05 * (1 + 1e-9)
        page = render_certificate(certificate)
        assert "What else it promises" in page
        assert all(outcome.row() in page for outcome in certificate.promises[1:])


def _records(folder: Path) -> list[Path]:
    return sorted((folder / "run" / "certificates").glob("*.json"))
