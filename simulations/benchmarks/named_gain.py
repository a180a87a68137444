"""What labels certify with a federation and without one: the README's figure and numbers."""

from __future__ import annotations

from typing import Any

from fedcert.reports.curves import Curve, draw_curves
from fedcert.reports.formats import percent, percent_up
from fedcert.reports.svg import PALETTE, WIDE
from fedcert.simulations.benchmarks.named_page import Row, means_of
from fedcert.simulations.benchmarks.publishing import between_markers

__all__ = ["FIGURE", "gain_figure", "gain_section"]

FIGURE = "figures/gain.svg"
"""Its path below ``docs/``."""
_SETTING = ("named-intents", "domain")
_ALONE = "embeddings + logistic regression"
_HEAD = "head from names 0.5"
_SHOWN = {
    "planned": "fedcert",
    _HEAD: "head from names",
    _ALONE: "logistic regression",
    "zero-shot": "names alone",
}
_AT = 80


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
    return between_markers(readme, "gain", _said(means)) if means else readme


def _said(means: dict[tuple[str, int], Row]) -> str:
    ours, head, alone, names = (means[method, _AT] for method in _SHOWN)

    def reached(row: Row) -> str:
        return f"{percent_up(row['certificate'])} ({percent(row['error'])})"

    return (
        f"*With {_AT} labels a new client certifies an error of at most "
        f"**{percent_up(ours['certificate'])}** (true: {percent(ours['error'])}). Without "
        "the federation, half of the labels train a head on the same encoder's embeddings and "
        f"the other half certify it: one that starts at the names reaches {reached(head)}, "
        f"logistic regression {reached(alone)}, and labels' names alone {reached(names)}. "
        f"Means over {ours['clients']} clients with {ours['ways']} labels of "
        "one domain each, which nobody upstream has; requests to an assistant (CLINC150) on "
        f"MiniLM.{_elsewhere(means)}*"
    )


def _elsewhere(means: dict[tuple[str, int], Row]) -> str:
    """Say at how many labels the best of the others is ahead on average."""
    sizes = sorted({n for method, n in means if method == "planned"})
    said = []
    for n in sizes:
        others = {
            label: means[method, n]["certificate"]
            for method, label in _SHOWN.items()
            if method != "planned" and (method, n) in means
        }
        ours, best = means["planned", n]["certificate"], min(others, key=lambda o: others[o])
        if others[best] < ours:
            said.append(
                f"with {n} labels the {best} is ahead ({percent_up(others[best])}, and fedcert "
                f"{percent_up(ours)})"
            )
    text = "; ".join(said)
    return f" {text[0].upper()}{text[1:]}." if said else ""


def _measured(record: dict[str, Any]) -> dict[tuple[str, int], Row]:
    """Return means over the seeds of the figure's setting; empty if something is missing."""
    rows = [row for row in record["table"] if (row["scenario"], row["setting"]) == _SETTING]
    means = {
        key: row | {"ways": rows[0]["ways"]}
        for key, row in means_of(rows).items()
        if key[0] in _SHOWN
    }
    return means if all((name, _AT) in means for name in _SHOWN) else {}
