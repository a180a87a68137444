"""The report of a run: one self-contained HTML page made from `results.json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedcert.reports.render import render_report, write_report
    from fedcert.reports.results import RESULTS_FORMAT

__all__ = ["RESULTS_FORMAT", "render_report", "write_report"]


def __getattr__(name: str) -> Any:
    """Import the plotting library only for who wants a report: a device does not."""
    if name == "RESULTS_FORMAT":
        from fedcert.reports.results import RESULTS_FORMAT

        return RESULTS_FORMAT
    if name in __all__:
        from fedcert.reports import render

        return getattr(render, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
