"""``fedcert report``: the HTML report of a run folder, or a certificate as a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fedcert.cli.console import say
from fedcert.cli.outputs import check_output
from fedcert.errors import FedcertError

__all__ = ["report"]


def report(
    run: Annotated[
        Path, typer.Argument(help="A run folder with results.json, or a certificate.json.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Default: report.html in the run folder, or the page beside the certificate.",
        ),
    ] = None,
) -> None:
    """Render a run's report, or a certificate, as one HTML file without external resources."""
    from fedcert.reports import write_report

    if run.is_file():
        _certificate(run, output)
        return
    source = run / "results.json"
    try:
        results = json.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FedcertError(f"{run}: no results.json; {_why_none(run)}") from error
    except ValueError as error:
        raise FedcertError(f"{source}: damaged, not JSON ({error})") from error
    path = output or run / "report.html"
    write_report(results, path)
    say(str(path))


def _why_none(run: Path) -> str:
    from fedcert.runs.status import read_status

    try:
        found = read_status(run)
    except FedcertError:
        return "this is no run folder"
    if found.state != "finished":
        verb = "" if found.state in {"failed", "died"} else "is "
        return f"the run {verb}{found.state}, and fedcert status {run} says how far it came"
    return (
        "the run is finished, and its ServerApp wrote none; fedcert's own does, and one of "
        "yours with results_of and write_results of fedcert.strategies.reporting"
    )


def _certificate(source: Path, output: Path | None) -> None:
    from fedcert.certificates import Certificate
    from fedcert.reports.certificate_page import write_certificate_page

    path = output or source.with_suffix(".html")
    check_output(path, source)
    write_certificate_page(Certificate.read(source), path, record=source)
    say(str(path))
