"""The report of a run: one self-contained HTML page made from `results.json`."""

from __future__ import annotations

from fedcert.reports.render import render_report, write_report
from fedcert.reports.results import RESULTS_FORMAT

__all__ = ["RESULTS_FORMAT", "render_report", "write_report"]
