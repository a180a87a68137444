"""Line charts whose lines are named where they end, instead of in a legend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator
from matplotlib.transforms import offset_copy

from fedcert.reports.formats import percent, percent_brief, percent_up, shorten
from fedcert.reports.svg import COLORS, axes_at, blank_figure, figure_style, to_svg

__all__ = ["Curve", "draw_curves", "spread_apart"]


class Curve(NamedTuple):
    """One line: `spread` is the half-width of its band; values of a `bound` are rounded up."""

    label: str
    color: str
    points: Sequence[tuple[float, float]]
    spread: Sequence[float] | None = None
    dotted: bool = False
    bound: bool = False


class _Tag(NamedTuple):
    x: float | None  # where the line ends; None for the right edge
    y: float
    text: str
    color: str


def draw_curves(
    curves: Sequence[Curve],
    *,
    name: str,
    label: str,
    x_title: str,
    y_title: str,
    base: int,
    width: int,
    level: tuple[str, float] | None = None,
    from_zero: bool = False,
    dotted: str = "test error",
) -> str:
    """Draw curves over a logarithmic x axis and return the SVG.

    Parameters
    ----------
    curves : sequence of Curve
        At least one, each with at least one point; y values are fractions.
    name : str
        Prefix of every id, unique on the page.
    label : str
        What the figure shows, for readers who do not see it.
    x_title, y_title : str
        Titles of the axes.
    base : int
        Base of the logarithm; ticks stand at its powers, or at the x values if they are few.
    width : int
        Width in CSS pixels.
    level : tuple of str and float, optional
        A named horizontal line.
    from_zero : bool (default: False)
        Whether the y axis starts at zero (default: just below the lowest value).
    dotted : str
        What all dotted lines show, each for the solid line of its color.

    Returns
    -------
    str
        An `<svg>` element.
    """
    wide = width > 500
    tags = _tags(curves, level, wide=wide, dotted=dotted)
    height, top, bottom, left = (340 if wide else 300), 34, 50, 46
    right = 20 + (7.9 if wide else 7.2) * max(len(tag.text) for tag in tags)
    with figure_style():
        figure = blank_figure(width, height)
        axes = axes_at(figure, left, top, width - left - right, height - top - bottom)
        axes.set_xscale("log", base=base)
        low, high = _y_limits(curves, level, from_zero)
        axes.set_ylim(low, high)
        _x_axis(axes, curves, base)
        _y_axis(axes, low, high)
        axes.set_xlabel(x_title, labelpad=6)
        figure.text(0, 1 - 12 / height, y_title, color=COLORS["muted"], va="center")
        if level is not None:
            axes.axhline(level[1], color=COLORS["muted"], linewidth=1.2, linestyle=(0, (4, 3)))
        for curve in curves:
            _draw_curve(axes, curve)
        _draw_tags(axes, tags, unit=(high - low) / (height - top - bottom), bold=wide)
        return to_svg(figure, name=name, label=label)


def spread_apart(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move places as little as needed to keep `gap` between them and stay in [low, high].

    When they cannot all fit, the lower end gives way.

    Parameters
    ----------
    places : sequence of float
        Where the things would stand, in any order.
    gap : float
        Smallest distance between two of them.
    low : float
        Lower end.
    high : float
        Upper end.

    Returns
    -------
    list of float
        The new places, in the order of the old ones.
    """
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = [places[index] for index in order]
    # Neighbors that are too close form a block around their common mean (pool adjacent).
    blocks: list[tuple[float, int]] = []
    for place in moved:
        blocks.append((place, 1))
        while len(blocks) > 1 and _touch(blocks[-2], blocks[-1], gap):
            (a, m), (b, n) = blocks[-2:]
            blocks[-2:] = [((a * m + b * n) / (m + n), m + n)]
    moved = [center + (i - (n - 1) / 2) * gap for center, n in blocks for i in range(n)]
    for i in range(len(moved)):
        moved[i] = max(moved[i], low + i * gap)
    for i in reversed(range(len(moved))):
        moved[i] = min(moved[i], high - (len(moved) - 1 - i) * gap)
    result = [0.0] * len(places)
    for index, place in zip(order, moved, strict=True):
        result[index] = place
    return result


def _touch(lower: tuple[float, int], upper: tuple[float, int], gap: float) -> bool:
    return upper[0] - lower[0] < gap * (lower[1] + upper[1]) / 2


def _draw_curve(axes: Axes, curve: Curve) -> None:
    x, y = (np.array(values, dtype=float) for values in zip(*curve.points, strict=True))
    color = COLORS[curve.color]
    if curve.spread is not None and any(curve.spread):
        half = np.asarray(curve.spread)
        low, high = axes.get_ylim()
        axes.fill_between(
            x,
            np.maximum(y - half, low),
            np.minimum(y + half, high),
            color=color,
            alpha=0.14,
            linewidth=0,
        )
    if curve.dotted:
        axes.plot(
            x, y, color=color, linestyle=(0, (1, 2)), linewidth=2, marker="o", markersize=3
        )
    else:
        axes.plot(
            x,
            y,
            color=color,
            linewidth=2.2,
            marker="o",
            markersize=6.5,
            markeredgecolor=COLORS["card"],
            markeredgewidth=1,
        )


def _y_limits(
    curves: Sequence[Curve], level: tuple[str, float] | None, from_zero: bool
) -> tuple[float, float]:
    values = [y for curve in curves for _, y in curve.points]
    values += [] if level is None else [level[1]]
    lowest, highest = min(values), max(values)
    room = max(0.01, 0.12 * (highest - lowest))
    return (0.0 if from_zero else max(0.0, lowest - room)), highest + room


def _y_axis(axes: Axes, low: float, high: float) -> None:
    axes.locator_params(axis="y", nbins=6)
    ticks = [tick for tick in axes.get_yticks() if low - 1e-9 <= tick <= min(high, 1) + 1e-9]
    whole = all(math.isclose(100 * tick, round(100 * tick), abs_tol=1e-6) for tick in ticks)
    axes.set_yticks(ticks, [f"{100 * tick:.{0 if whole else 1}f}%" for tick in ticks])
    axes.grid(axis="y")


def _x_axis(axes: Axes, curves: Sequence[Curve], base: int) -> None:
    values = sorted({x for curve in curves for x, _ in curve.points})
    margin = (values[-1] / values[0]) ** 0.03 if values[-1] > values[0] else base**0.5
    axes.set_xlim(values[0] / margin, values[-1] * margin)
    powers = [
        float(base) ** power
        for power in range(math.floor(math.log(values[0], base)), 64)
        if values[0] <= float(base) ** power <= values[-1]
    ]
    ticks = values if len(values) <= 6 or len(powers) < 2 else powers
    axes.set_xticks(ticks, [f"{tick:,.0f}" if tick >= 1 else f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def _tags(
    curves: Sequence[Curve], level: tuple[str, float] | None, *, wide: bool, dotted: str
) -> list[_Tag]:
    """Say what stands at the end of each line: its name and, given room, its value."""
    solid = [curve for curve in curves if not curve.dotted]
    ends = [
        (*curve.points[-1], curve.label, percent_up if curve.bound else percent, curve.color)
        for curve in solid
    ]
    last = [curve.points[-1] for curve in curves if curve.dotted]
    if last:  # one name for all of them: the color says whose it is
        x, y = (sum(values) / len(last) for values in zip(*last, strict=True))
        ends.append((x, y, dotted, percent, "muted"))
    tags = [
        _Tag(x, y, f"{shorten(name, 20)} {written(y)}" if wide else shorten(name, 12), color)
        for x, y, name, written, color in ends
    ]
    if level is not None:
        tags.append(_Tag(None, level[1], f"{level[0]} {percent_brief(level[1])}", "muted"))
    return tags


def _draw_tags(axes: Axes, tags: Sequence[_Tag], *, unit: float, bold: bool) -> None:
    """Write the tags to the right of the axes, moved apart where lines end close by.

    `unit` is the height of one pixel on the y axis.
    """
    low, high = axes.get_ylim()
    edge = axes.get_xlim()[1]
    places = spread_apart([tag.y for tag in tags], 16 * unit, low, high)
    for tag, place in zip(tags, places, strict=True):
        if abs(place - tag.y) > 3 * unit:
            _leader(axes, (tag.x or edge, tag.y), (edge, place), COLORS[tag.color])
        axes.annotate(
            tag.text,
            (edge, place),
            xytext=(14, 0),
            textcoords="offset points",
            va="center",
            color=COLORS[tag.color],
            fontweight="bold" if bold and tag.color != "muted" else "normal",
        )


def _leader(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str
) -> None:
    """Connect the end of a line with a tag that had to move away from it."""
    axes.annotate(
        "",
        start,
        xytext=end,
        textcoords=offset_copy(
            axes.transData, axes.get_figure(root=True), x=11, y=0, units="points"
        ),
        arrowprops={
            "arrowstyle": "-",
            "color": color,
            "linewidth": 0.8,
            "shrinkA": 0,
            "shrinkB": 0,
        },
    )
