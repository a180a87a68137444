"""The report's figures: each function takes plain data and returns one `<svg>` element.

Figures with names along an axis come in two widths, because text that is shrunk to fit a
phone cannot be read; the page shows the one that fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from fedcert.reports.curves import Curve, draw_curves
from fedcert.reports.formats import percent_brief, percent_up, plural, shorten
from fedcert.reports.svg import (
    COLORS,
    NARROW,
    PALETTE,
    WIDE,
    axes_at,
    blank_figure,
    figure_style,
    to_svg,
)

__all__ = [
    "MOST_ROWS",
    "Bar",
    "ClientBar",
    "SizeAndBound",
    "best_of_m",
    "bound_by_size",
    "certificates_by_client",
    "draw_chance",
    "labeled_bars",
    "thinned",
]

MOST_ROWS = 400  # clients drawn at most; more would be a smear, and a page of megabytes


class ClientBar(NamedTuple):
    """One client: what it gets wrong on test data, and what its certificate allows."""

    client: str
    bound: float
    test_error: float | None


class SizeAndBound(NamedTuple):
    """The mean certificate and mean test error at one number of support examples."""

    n: int
    bound: float
    test_error: float | None


class Bar(NamedTuple):
    """A labeled amount; `text` is how the amount is printed."""

    label: str
    amount: float
    text: str


def thinned(rows: Sequence[ClientBar]) -> list[ClientBar]:
    """Sort clients by test error and, if they are too many, keep evenly spaced ones.

    Clients without test data come last, by bound.
    """
    ordered = sorted(rows, key=_by_test_error)
    if len(ordered) <= MOST_ROWS:
        return ordered
    picks = np.linspace(0, len(ordered) - 1, MOST_ROWS).round().astype(int)
    return [ordered[pick] for pick in picks]


def _by_test_error(row: ClientBar) -> tuple[float, float, str]:
    return (2.0 if row.test_error is None else row.test_error, row.bound, row.client)


def certificates_by_client(
    rows: Sequence[ClientBar], *, chance: float | None, width: int = WIDE
) -> str:
    """Draw, for every client, a bar from its test error to its certificate.

    Parameters
    ----------
    rows : sequence of ClientBar
        Any number of clients, in any order; beyond 400 only evenly spaced ones are drawn.
    chance : float or None
        The error of guessing, drawn as a line; None for no line.
    width : int
        Width in CSS pixels.

    Returns
    -------
    str
        An `<svg>` element.
    """
    drawn = thinned(rows)
    named = len(drawn) <= 60
    pitch = 24.0 if len(drawn) <= 30 else 17.0 if named else max(1.8, 620 / len(drawn))
    names = [shorten(row.client, 26 if width == WIDE else 13) for row in drawn]
    left = 12 + 7.2 * max(len(name) for name in names) if named else 12.0
    right, top, bottom = 52, 46, 30 if chance is None else 50
    height = pitch * len(drawn)
    with figure_style():
        figure = blank_figure(width, top + height + bottom)
        axes = axes_at(figure, left, top, width - left - right, height)
        limit = 1.06 * max(chance or 0, *(_right_end(row) for row in drawn), 0.05)
        axes.set(xlim=(0, min(1.0, limit)), ylim=(len(drawn) - 0.5, -0.5))
        _percent_ticks(axes)
        axes.set_yticks(range(len(drawn)) if named else [], names if named else [])
        axes.tick_params(axis="y", labelcolor=COLORS["ink"], pad=8)
        if chance is not None:
            draw_chance(axes, chance)
        _draw_client_bars(axes, drawn, scale=min(1.0, max(0.3, pitch / 14)))
        if named:
            _write_bounds(axes, drawn)
        _draw_client_key(axes, drawn[0])
        return to_svg(
            figure,
            name=f"clients-{width}",
            label=f"Test error and certificate of {plural(len(drawn), 'client')}",
        )


def _right_end(row: ClientBar) -> float:
    return max(row.bound, row.test_error or 0)


def _percent_ticks(axes: Axes) -> None:
    limit = axes.get_xlim()[1]
    step = next((step for step in (0.01, 0.02, 0.05, 0.1) if limit / step <= 7), 0.2)
    ticks = np.arange(0, limit + 1e-9, step)
    axes.set_xticks(ticks, [f"{100 * tick:.0f}%" for tick in ticks])
    axes.grid(axis="x")


def draw_chance(axes: Axes, chance: float) -> None:
    """Draw the line of guessing and name it below the axis, where nothing else stands."""
    axes.axvline(chance, color=COLORS["muted"], linewidth=1.2, linestyle=(0, (4, 3)))
    place = chance / axes.get_xlim()[1]
    axes.annotate(
        f"chance, {percent_brief(chance)}",
        (chance, 0),
        xytext=(0, -36),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="left" if place < 0.15 else "right" if place > 0.85 else "center",
        va="center",
        color=COLORS["muted"],
    )


def _draw_client_bars(axes: Axes, rows: Sequence[ClientBar], *, scale: float) -> None:
    errors = {y: row.test_error for y, row in enumerate(rows) if row.test_error is not None}
    for y, error in errors.items():
        # A measured error beyond the certificate must be seen at a glance.
        color = "orange" if error > rows[y].bound else "blue"
        axes.plot(
            [error, rows[y].bound],
            [y, y],
            color=COLORS[color],
            alpha=0.3,
            linewidth=5 * scale,
            solid_capstyle="butt",
        )
    axes.plot(
        [row.bound for row in rows],
        range(len(rows)),
        linestyle="",
        marker="|",
        color=COLORS["blue"],
        markersize=15 * scale,
        markeredgewidth=max(1.5, 3 * scale),
    )
    axes.plot(
        list(errors.values()),
        list(errors),
        linestyle="",
        marker="o",
        color=COLORS["orange"],
        markersize=8 * scale,
        markeredgecolor=COLORS["card"],
        markeredgewidth=scale,
    )


def _write_bounds(axes: Axes, rows: Sequence[ClientBar]) -> None:
    for y, row in enumerate(rows):
        axes.annotate(
            percent_up(row.bound),
            (_right_end(row), y),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            color=COLORS["blue"],
            # Legible where the number crosses the line of chance.
            bbox={"facecolor": COLORS["card"], "edgecolor": "none", "pad": 1},
        )


def _draw_client_key(axes: Axes, first: ClientBar) -> None:
    """Name the marks of the first client, the one further left on the higher level.

    Names extend to the right, so no leader crosses a name; a name that would leave the
    figure extends to the left instead.
    """
    marks = [(first.bound, "certificate: at most this", "blue")]
    if first.test_error is not None:
        marks.append((first.test_error, "test error", "orange"))
    for level, (x, text, color) in enumerate(sorted(marks, reverse=True)):
        rise = 10 + 17 * level
        axes.annotate(
            "",
            (x, 1),
            xytext=(0, rise),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            arrowprops={
                "arrowstyle": "-",
                "color": COLORS[color],
                "linewidth": 1,
                "shrinkA": 0,
                "shrinkB": 0,
            },
        )
        to_the_right = x < 0.5 * axes.get_xlim()[1]
        axes.annotate(
            text,
            (x, 1),
            xytext=(5 if to_the_right else -5, rise),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="left" if to_the_right else "right",
            va="center",
            color=COLORS[color],
        )


def bound_by_size(
    series: Mapping[str, Sequence[SizeAndBound]], *, chance: float | None, width: int = WIDE
) -> str:
    """Draw the mean certificate of each recipe against the number of support examples.

    The mean test error is dotted in the recipe's color.

    Parameters
    ----------
    series : Mapping
        Means by n, for each recipe.
    chance : float or None
        The error of guessing, drawn as a line; None for no line.
    width : int (default: `WIDE`)
        Width in CSS pixels.

    Returns
    -------
    str
        An `<svg>` element.
    """
    curves = []
    for index, (recipe, points) in enumerate(series.items()):
        color = PALETTE[index % len(PALETTE)]
        ordered = sorted(points, key=lambda point: point.n)
        measured = [(p.n, p.test_error) for p in ordered if p.test_error is not None]
        curves.append(Curve(recipe, color, [(p.n, p.bound) for p in ordered], bound=True))
        if measured:
            curves.append(Curve(f"{recipe}, test", color, measured, dotted=True))
    return draw_curves(
        curves,
        name=f"sizes-{width}",
        label="Mean certificate by number of support examples, one line per recipe",
        x_title="labeled examples of the new client",
        y_title="mean certificate (solid), test error (dotted)",
        base=2,
        level=None if chance is None else ("chance", chance),
        from_zero=True,
        width=width,
    )


def best_of_m(
    curves: Mapping[str, Sequence[tuple[int, float, float | None]]], *, width: int = WIDE
) -> str:
    """Draw the risk of the best of M candidates for each prior.

    A prior's curve is a sequence of (M, risk, standard error or None).
    """
    drawn = []
    for index, (prior, points) in enumerate(curves.items()):
        ordered = sorted(points, key=lambda point: point[0])
        drawn.append(
            Curve(
                prior,
                PALETTE[index % len(PALETTE)],
                [(m, risk) for m, risk, _ in ordered],
                spread=[2 * (se or 0) for _, _, se in ordered],
            )
        )
    return draw_curves(
        drawn,
        name=f"profiles-{width}",
        label="Risk on unseen tasks of the best of M candidates, one line per prior",
        x_title="M, the number of candidates drawn",
        y_title="risk of the best candidate on unseen tasks",
        base=10,
        width=width,
    )


def labeled_bars(
    groups: Mapping[str, Sequence[Bar]], *, name: str, label: str, width: int = NARROW
) -> str:
    """Draw amounts as bars under their names; each titled group has a scale of its own.

    Parameters
    ----------
    groups : Mapping
        Bars under the title of their group.
    name : str
        Prefix of every id, unique on the page.
    label : str
        What the figure shows, for readers who do not see it.
    width : int (default: `NARROW`)
        Width in CSS pixels.

    Returns
    -------
    str
        An `<svg>` element.
    """
    rows = [(title, bar) for title, bars in groups.items() for bar in bars]
    heading = 30 if any(groups) else 0
    height = 36 * len(rows) + heading * len(groups)
    with figure_style():
        figure = blank_figure(width, height)
        axes = axes_at(figure, 0, 0, width, height)
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.axis("off")
        y = 0.0
        for title, bars in groups.items():
            if title:
                axes.text(0, y + 16, title, color=COLORS["muted"], va="center")
            y += heading
            largest = max((bar.amount for bar in bars), default=0) or 1
            for bar in bars:
                _draw_bar(axes, bar, y, width, bar.amount / largest)
                y += 36
        return to_svg(figure, name=name, label=label)


def _draw_bar(axes: Axes, bar: Bar, y: float, width: int, fraction: float) -> None:
    axes.text(0, y + 9, shorten(bar.label, 34), va="center")
    axes.text(width, y + 9, bar.text, va="center", ha="right", fontweight="bold")
    for length, shade in ((1.0, "rule"), (fraction, "blue")):
        axes.plot(
            [0, length * width],
            [y + 24, y + 24],
            color=COLORS[shade],
            linewidth=7,
            solid_capstyle="butt",
        )
