"""Figures of the prior: what it covers, and whether it replays its pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from fedcert.reports.svg import COLORS, NARROW, axes_at, blank_figure, figure_style, to_svg

__all__ = ["adapter_map", "nearest_distances"]

MOST_POINTS = 400  # per group in the scatter plot

_GROUP_COLORS = {"pool": "gray", "held-out": "orange", "samples": "blue"}


def adapter_map(
    groups: Mapping[str, Sequence[tuple[float, float]]], *, width: int = NARROW
) -> str:
    """Draw adapters as points in the first two principal directions, a color per group.

    Groups are ``pool``, ``held-out`` and ``samples``; of each the first 400 are drawn.
    """
    shown = {group: list(points)[:MOST_POINTS] for group, points in groups.items() if points}
    with figure_style():
        figure = blank_figure(width, 320)
        axes = axes_at(figure, 1, 50, width - 2, 238)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set(xticks=[], yticks=[])
        axes.spines[["left", "bottom"]].set_visible(True)
        axes.set_xlabel("first principal direction", labelpad=6)
        figure.text(
            0,
            1 - 30 / 320,
            "second principal direction \N{UPWARDS ARROW}",
            color=COLORS["muted"],
            va="center",
        )
        # Samples are many, so they go below; the few held-out adapters stay visible on top.
        for group in ("samples", "pool", "held-out"):
            if group in shown:
                x, y = zip(*shown[group], strict=True)
                axes.plot(
                    x,
                    y,
                    linestyle="",
                    marker="o",
                    color=COLORS[_GROUP_COLORS[group]],
                    markersize=4.5 if group == "samples" else 6.5,
                    alpha=0.45 if group == "samples" else 0.95,
                    markeredgecolor=COLORS["card"],
                    markeredgewidth=0 if group == "samples" else 0.8,
                )
        _draw_group_key(figure, {group: len(groups[group]) for group in shown})
        return to_svg(figure, name="map", label="Adapters in two principal directions")


def nearest_distances(
    samples: Sequence[float], held_out: Sequence[float], *, width: int = NARROW
) -> str:
    """Draw, for samples and for held-out adapters, how far the nearest pool adapter is.

    Each line is a cumulative fraction; a line that starts at distance zero shows replay.

    Parameters
    ----------
    samples : sequence of float
        Distance of each sample to the nearest adapter of the pool.
    held_out : sequence of float
        Distance of each held-out adapter to it.
    width : int (default: `NARROW`)
        Width in CSS pixels.

    Returns
    -------
    str
        An `<svg>` element.
    """
    groups = {"held-out": list(held_out), "samples": list(samples)}
    shown = {group: values for group, values in groups.items() if values}
    limit = 1.04 * max(1e-12, *(max(values) for values in shown.values()))
    with figure_style():
        figure = blank_figure(width, 320)
        axes = axes_at(figure, 42, 54, width - 54, 218)
        axes.set(xlim=(0, limit), ylim=(0, 1))
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
        axes.grid(axis="y")
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel("distance to the nearest pool adapter", labelpad=6)
        figure.text(
            0,
            1 - 30 / 320,
            "share at most this far",
            color=COLORS["muted"],
            va="center",
        )
        for group, values in shown.items():
            x, fraction = _cumulative(values, limit)
            axes.plot(
                x,
                fraction,
                drawstyle="steps-post",
                color=COLORS[_GROUP_COLORS[group]],
                linewidth=2.2,
            )
        _draw_group_key(figure, {group: len(values) for group, values in shown.items()})
        return to_svg(figure, name="nearest", label="Distances to the nearest pool adapter")


def _cumulative(values: Sequence[float], limit: float) -> tuple[list[float], list[float]]:
    """Turn values into the corners of their distribution function, at most 200 of them."""
    levels = np.linspace(0, 1, min(len(values), 200) + 1)[1:]
    corners = np.quantile(values, levels, method="inverted_cdf")
    return [0.0, *corners.tolist(), limit], [0.0, *levels.tolist(), 1.0]


def _draw_group_key(figure: Figure, sizes: Mapping[str, int]) -> None:
    """Name the colors of the groups in one line above the figure."""
    width, height = (72 * inches for inches in figure.get_size_inches())
    x = 0.0
    for group, size in sizes.items():
        text = f"\N{BLACK CIRCLE} {group} {size:,}"
        figure.text(
            x / width,
            1 - 10 / height,
            text,
            color=COLORS[_GROUP_COLORS[group]],
            va="center",
            fontweight="bold",
        )
        x += 8.2 * len(text) + 12
