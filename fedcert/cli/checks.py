"""Showing a verification: what held, what did not, and what was not checked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.table import Column, Table

from fedcert.cli.console import console, say
from fedcert.reports.formats import clean_text

if TYPE_CHECKING:
    from fedcert.certificates import Certificate, VerificationReport

__all__ = ["show"]


def show(certificate: Certificate, report: VerificationReport, *, as_json: bool) -> None:
    """Print a report: as a table with the list of what was not checked, or as JSON.

    Parameters
    ----------
    certificate : Certificate
        The certificate.
    report : VerificationReport
        What its verification found.
    as_json : bool
        Print a JSON object instead of a table.
    """
    if as_json:
        typer.echo(json.dumps(_object_of(report)))
        return
    # Keys and digests are longer than the column; the default would cut them off.
    fold = Column(overflow="fold")
    table = Table(Column(), Column(), fold, show_header=False, box=None)
    for check in report.checks:
        mark = "[green]ok[/]" if check.passed else "[red]FAILED[/]"
        table.add_row(mark, check.name, escape(clean_text(check.detail)))
    console.print(table)
    if not report.passed:
        failed = [check.name for check in report.failures]
        say(f"this certificate does not hold: {', '.join(failed)}", style="red")
        return
    say(certificate.statement, wrap=True)
    for item in report.unchecked:
        how = f" ({item.option})" if item.option else ""
        say(f"not checked: {item.name}: {item.detail}{how}", wrap=True)


def _object_of(report: VerificationReport) -> dict[str, object]:
    return {
        "passed": report.passed,
        "checks": [
            {"name": each.name, "passed": each.passed, "detail": each.detail}
            for each in report.checks
        ],
        "unchecked": [
            {"name": each.name, "detail": each.detail, "option": each.option}
            for each in report.unchecked
        ],
    }
