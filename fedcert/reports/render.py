"""Rendering a run's results as one HTML page that needs nothing but itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fedcert.atomic import write_atomically
from fedcert.reports import figures, formats, plan_figure, prior_figures
from fedcert.reports.answers import answers
from fedcert.reports.results import Communication, Nearest, Results, read_results
from fedcert.reports.summary import alerts, errors_by_label, headline, kept
from fedcert.reports.svg import COLORS, NARROW, WIDE
from fedcert.reports.templates import environment
from fedcert.reports.verdict import verdict

__all__ = ["environment", "render_report", "write_report"]

_Drawing = Callable[..., str]


def render_report(results: Mapping[str, Any]) -> str:
    """Render the results of a run as one self-contained HTML page.

    Parameters
    ----------
    results
        What `results.json` holds, in the format ``fedcert.results/1``. Only `format`,
        `scenario` and `clients` are required; a section whose data is missing says so.

    Returns
    -------
    str
        The page. Equal results give equal text.

    Raises
    ------
    FedcertError
        If a required key is missing, the format is another one, or a value cannot be
        shown; the message names the key.
    """
    checked = read_results(results)
    facts = headline(checked)
    template = environment().get_template("report.html.jinja")
    page = template.render(
        results=checked,
        facts=facts,
        alerts=alerts(checked, facts),
        verdict=verdict(checked, facts),
        answers=answers(checked, facts),
        figures={name: Markup(svg) for name, svg in _draw_all(checked).items()},  # noqa: S704
        colors=COLORS,
        by_label=errors_by_label(checked),
        promises=kept(checked),
        thinned=len(checked.clients) > figures.MOST_ROWS,
    )
    # The template's control lines leave empty ones behind.
    return "\n".join(line.rstrip() for line in page.splitlines() if line.strip()) + "\n"


def write_report(results: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Render the results of a run and write the page, in full or not at all.

    Raises
    ------
    FedcertError
        As `render_report`; the file at `path` then stays as it was.
    """
    write_atomically(Path(path), render_report(results).encode("utf-8"))


def _draw_all(results: Results) -> dict[str, str]:
    """Draw every figure that there is data for, by the name that the template uses."""
    drawn: dict[str, str] = {}
    for name, drawing in _two_width_drawings(results).items():
        drawn[f"{name}_wide"] = drawing(width=WIDE)
        drawn[f"{name}_narrow"] = drawing(width=NARROW)
    drawn.update(_prior_figures(results))
    if groups := _byte_bars(results.communication):
        drawn["bytes"] = figures.labeled_bars(
            groups, name="bytes", label="Bytes sent per client and in total"
        )
    if results.timings:
        bars = [
            figures.Bar(t.phase, t.seconds, formats.duration(t.seconds))
            for t in results.timings
        ]
        drawn["timings"] = figures.labeled_bars(
            {"Seconds of wall-clock time": bars}, name="timings", label="Time per phase"
        )
    return drawn


def _two_width_drawings(results: Results) -> dict[str, _Drawing]:
    chance = results.chance_error
    drawings: dict[str, _Drawing] = {}
    if results.clients:
        rows = [figures.ClientBar(c.client, c.bound, c.test_error) for c in results.clients]
        drawings["clients"] = partial(figures.certificates_by_client, rows, chance=chance)
    if series := _sizes(results):
        drawings["sizes"] = partial(figures.bound_by_size, series, chance=chance)
    if results.plan:
        rows_by_n = [
            plan_figure.PlannedBand(row.n, row.recipe, row.mean, row.low, row.high)
            for row in results.plan
        ]
        drawings["plan"] = partial(plan_figure.planned_by_size, rows_by_n, chance=chance)
    curves = {
        profile.prior: [(point.m, point.risk, point.se) for point in profile.best_of]
        for profile in results.profiles
        if profile.best_of
    }
    if curves:
        drawings["profiles"] = partial(figures.best_of_m, curves)
    return drawings


def _sizes(results: Results) -> dict[str, list[figures.SizeAndBound]]:
    """Return the curves of the recipes, and that of clients on their own.

    Where one of them served, its test error and that of clients on their own are drawn and no
    other: those of the recipes lie on top of each other.
    """
    series: dict[str, list[figures.SizeAndBound]] = {}
    told = {row.recipe for row in results.bound_by_n}
    shown = {"served"} & told or told
    for row in sorted(results.bound_by_n, key=lambda row: row.recipe != "served"):
        error = row.test_error if row.recipe in shown else None
        series.setdefault(row.recipe, []).append(figures.SizeAndBound(row.n, row.bound, error))
    if results.local is not None and results.local.by_n:
        series["alone"] = [
            figures.SizeAndBound(row.n, row.bound, row.test_error) for row in results.local.by_n
        ]
    return series


def _prior_figures(results: Results) -> dict[str, str]:
    prior = results.prior
    projection = prior.projection if prior else None
    drawn: dict[str, str] = {}
    if projection and (projection.pool or projection.held_out or projection.samples):
        drawn["map"] = prior_figures.adapter_map(
            {
                "pool": projection.pool,
                "held-out": projection.held_out,
                "samples": projection.samples,
            }
        )
    nearest = prior.nearest if prior and prior.nearest else Nearest()
    if nearest.samples or nearest.held_out:
        drawn["nearest"] = prior_figures.nearest_distances(nearest.samples, nearest.held_out)
    return drawn


def _byte_bars(sent: Communication | None) -> dict[str, list[figures.Bar]]:
    if sent is None:
        return {}
    amounts = {
        "One client": [
            ("upload of one adapter", sent.upload_bytes_per_client),
            ("download of a new client", sent.download_bytes_per_new_client),
        ],
        "The whole run": [
            ("all uploads", sent.upload_bytes),
            ("all downloads", sent.download_bytes),
        ],
    }
    groups = {
        title: [
            figures.Bar(label, size, formats.data_size(size))
            for label, size in rows
            if size is not None
        ]
        for title, rows in amounts.items()
    }
    return {title: bars for title, bars in groups.items() if bars}
