"""The figure of the plan: what certificate to expect at each number of examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from fedcert.reports.figures import draw_chance
from fedcert.reports.formats import percent_brief, percent_up, plural, shorten
from fedcert.reports.svg import COLORS, WIDE, axes_at, blank_figure, figure_style, to_svg

__all__ = ["PlannedBand", "planned_by_size"]

_PITCH, _TOP, _RIGHT = 50, 2, 58


class PlannedBand(NamedTuple):
    """The planned recipe at n examples: mean, and 10% and 90% quantiles, of its bound."""

    n: int
    recipe: str
    mean: float
    low: float
    high: float


def planned_by_size(
    rows: Sequence[PlannedBand], *, chance: float | None, width: int = WIDE
) -> str:
    """Draw a bar from quantile to quantile for each n, the mean on it, the recipe above.

    Parameters
    ----------
    rows : sequence of PlannedBand
        At least one.
    chance : float or None
        The error of guessing, drawn as a line; None for no line.
    width : int
        Width in CSS pixels.

    Returns
    -------
    str
        An `<svg>` element.
    """
    bottom = 30 if chance is None else 50
    height = _PITCH * len(rows)
    with figure_style():
        figure = blank_figure(width, _TOP + height + bottom)
        axes = axes_at(figure, 6, _TOP, width - 6 - _RIGHT, height)
        limit = min(1.0, 1.06 * max(chance or 0, *(max(row.high, row.mean) for row in rows)))
        axes.set(xlim=(0, limit), ylim=(len(rows) - 0.4, -0.6), yticks=[])
        ticks = np.linspace(0, limit, 6)[:-1] if limit < 0.05 else np.arange(0, limit, 0.1)
        axes.set_xticks(ticks, [percent_brief(float(tick)) for tick in ticks])
        axes.grid(axis="x")
        if chance is not None:
            draw_chance(axes, chance)
        for y, row in enumerate(rows):
            _draw_row(axes, y, row, characters=60 if width == WIDE else 34)
        return to_svg(
            figure,
            name=f"plan-{width}",
            label=f"Planned certificate at {plural(len(rows), 'number')} of examples",
        )


def _draw_row(axes: Axes, y: int, row: PlannedBand, *, characters: int) -> None:
    box = {"facecolor": COLORS["card"], "edgecolor": "none", "pad": 1}
    text = shorten(f"{row.n:,} examples: {row.recipe}", characters)
    axes.text(0, y - 0.42, text, va="center", bbox=box)
    axes.plot(
        [row.low, row.high],
        [y, y],
        color=COLORS["blue"],
        alpha=0.3,
        linewidth=6,
        solid_capstyle="butt",
    )
    axes.plot(
        [row.mean],
        [y],
        marker="|",
        color=COLORS["blue"],
        markersize=14,
        markeredgewidth=3,
    )
    axes.annotate(
        percent_up(row.mean),
        (max(row.high, row.mean), y),
        xytext=(9, 0),
        textcoords="offset points",
        va="center",
        color=COLORS["blue"],
        # Legible where the number crosses the line of chance.
        bbox=box,
    )
