"""What labels certify with a federation and without one: the README's figure and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedcert.reports.curves import Curve, draw_curves
from fedcert.reports.formats import percent, percent_up
from fedcert.reports.svg import PALETTE, WIDE
from fedcert.simulations.benchmarks.named_page import Row, head_start, means_of
from fedcert.simulations.benchmarks.publishing import between_markers

__all__ = ["FIGURE", "gain_figure", "gain_section"]

FIGURE = "figures/gain.svg"
"""Its path below ``docs/``."""
_SETTING = ("named-intents", "domain")
_ALONE = "embeddings + logistic regression"
_HEAD = "head from names"  # of those of all shares the best at each n, with hindsight
_SHOWN = {
    "planned": "fedcert",
    _HEAD: "head from names",
    _ALONE: "logistic regression",
    "zero-shot": "names alone",
}
_AT, _SHARE = 80, "0.5"


def gain_figure(record: dict[str, Any]) -> dict[str, str]:
    """Return the README's figure by its path below ``docs/``; empty until it is measured.

    Parameters
    ----------
    record : dict
        Of ``make bench-named``.
    """
    means = _measured(record)
    if not means:
        return {}
    curves = []
    for key, dotted in (("certificate", False), ("error", True)):
        for color, (method, label) in zip(PALETTE, _SHOWN.items(), strict=False):
            if dotted and method == "zero-shot":
                continue  # its error does not depend on n, and lines would lie on each other
            points = [
                (n, row[key]) for (name, n), row in sorted(means.items()) if name == method
            ]
            said = f"{label}, test" if dotted else label
            curves.append(Curve(said, color, points, dotted=dotted, bound=not dotted))
    figure = draw_curves(
        curves,
        name="gain",
        label="Mean certificate and true error by the number of labels, with fedcert and alone",
        x_title="labeled examples of the new client",
        y_title="mean certificate (solid), true error (dotted)",
        base=2,
        width=WIDE,
        from_zero=True,
    )
    return {FIGURE: figure}


def gain_section(readme: str, record: dict[str, Any]) -> str:
    """Put the figure's numbers into the README.

    Parameters
    ----------
    readme : str
        As it is.
    record : dict
        Of ``make bench-named``.

    Returns
    -------
    str
        As it shall be; the same until the figure's setting is measured.
    """
    means = _measured(record)
    if not means:
        return readme
    planned = [
        plan["recipe"]
        for plan in record["plans"]
        if (plan["scenario"], plan["setting"], plan["n"]) == (*_SETTING, _AT)
    ]
    rows = [row for row in record["table"] if (row["scenario"], row["setting"]) == _SETTING]
    start = head_start(rows, _AT).get(_SHARE)
    return between_markers(readme, "gain", _said(means, list(dict.fromkeys(planned)), start))


def _said(
    means: dict[tuple[str, int], Row],
    planned: Sequence[str],
    start: tuple[float, float] | None,
) -> str:
    ours, head, alone, names = (means[method, _AT] for method in _SHOWN)

    def reached(row: Row) -> str:
        return f"{percent_up(row['certificate'])} ± {100 * row['se']:.1f}"

    recipes = " or ".join(f"`{recipe}`" for recipe in planned)
    return (
        f"*With {_AT} labels a new client certifies an error of at most "
        f"**{percent_up(ours['certificate'])}** ± {100 * ours['se']:.1f} (true: "
        f"{percent(ours['error'])}), by recipes that other clients planned ({recipes}: "
        "[words](docs/which-recipe.md#words)). Without the federation, some of the labels "
        "train a head on the same encoder's embeddings and the others certify it: one that "
        f"starts at the names, at the best of three shares, reaches {reached(head)}, logistic "
        f"regression on half of them {reached(alone)}, and labels' names alone "
        f"{reached(names)}. Means over {ours['clients']} clients of {ours['seeds']} seeds, ± "
        f"one standard error, with {ours['ways']} labels of one domain each, which nobody "
        "upstream has; requests to an assistant (CLINC150) on "
        f"MiniLM. {_elsewhere(means)}{_started(start)}*"
    )


def _started(start: tuple[float, float] | None) -> str:
    """Say what the federation adds where nothing else differs."""
    if start is None:
        return ""
    gain, error = (100 * value for value in start)
    return (
        f" Where nothing else differs, and half of the {_AT} labels train a head, one that "
        "starts at the federation's adapter certifies "
        f"{abs(gain):.1f} ± {error:.1f} percentage points {'less' if gain < 0 else 'more'} "
        "error than one that starts at the names."
    )


def _elsewhere(means: dict[tuple[str, int], Row]) -> str:
    """Say at how many labels the best of the others is ahead, or no difference shows."""
    level: list[int] = []
    ahead: list[str] = []
    for n in sorted({n for method, n in means if method == "planned"}):
        others = [
            means[method, n]
            for method in _SHOWN
            if method != "planned" and (method, n) in means
        ]
        best = min(others, key=lambda row: float(row["above_planned"]))
        error = 2 * best["above_planned_se"]
        if best["above_planned"] < -error:
            ahead.append(f"{n} ({percent_up(best['certificate'])})")
        elif best["above_planned"] <= error:
            level.append(n)
    said = []
    if level:
        said.append(
            f"With {_listed(level)} labels it makes no difference beyond two standard errors "
            "from the best of these."
        )
    if ahead:
        said.append(f"With {_listed(ahead)} labels the best of these is ahead.")
    return " ".join(said or ["It is ahead at every n that was measured."])


def _listed(items: Sequence[object]) -> str:
    *first, last = map(str, items)
    return f"{', '.join(first)} and {last}" if first else last


def _measured(record: dict[str, Any]) -> dict[tuple[str, int], Row]:
    """Return means over the seeds of the figure's setting; empty if something is missing."""
    rows = [row for row in record["table"] if (row["scenario"], row["setting"]) == _SETTING]
    if not rows:
        return {}
    more = {"ways": rows[0]["ways"], "seeds": len({row["seed"] for row in rows})}
    means = {key: row | more for key, row in means_of(rows).items()}
    for n in {n for _, n in means}:
        heads = [
            row
            for (method, size), row in means.items()
            if size == n and method.startswith(f"{_HEAD} 0.")
        ]
        if heads:
            means[_HEAD, n] = min(heads, key=lambda row: float(row["certificate"]))
    shown = {key: row for key, row in means.items() if key[0] in _SHOWN}
    return shown if all((name, _AT) in shown for name in _SHOWN) else {}
