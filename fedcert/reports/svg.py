"""From a matplotlib figure to SVG text that can stand inline in an HTML page.

What matplotlib writes is a whole document with its own style sheet, fixed colors, and the
same ids in every figure. Here it becomes one `<svg>` element that takes fonts and colors
from the page (so that the dark scheme reaches the figures), carries ids of its own, and
refers to nothing outside itself.
"""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedcert.reports.colors import COLORS, PALETTE

__all__ = [
    "COLORS",
    "NARROW",
    "PALETTE",
    "WIDE",
    "axes_at",
    "blank_figure",
    "figure_style",
    "to_svg",
]

WIDE = 760  # CSS pixels: the column of the page
NARROW = 350  # half of it, and a phone

_FONT = "var(--fc-font, system-ui, sans-serif)"
_NAMES = {value: name for name, value in COLORS.items()}
_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": COLORS["rule"],
    "axes.grid.axis": "both",
    "axes.labelcolor": COLORS["muted"],
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 12.5,
    "grid.color": COLORS["rule"],
    "grid.linewidth": 1,
    "lines.linewidth": 2,
    "path.simplify": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "fedcert",
    "text.color": COLORS["ink"],
    # A client called `$x` is a name, not a formula.
    "text.parse_math": False,
    "xtick.color": COLORS["rule"],
    "xtick.labelcolor": COLORS["muted"],
    "xtick.major.pad": 7,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.color": COLORS["rule"],
    "ytick.labelcolor": COLORS["muted"],
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Set matplotlib to the report's style, whatever the user's own configuration says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def blank_figure(width: float, height: float) -> Figure:
    """Make an empty figure measured in CSS pixels."""
    return Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="none")


def axes_at(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes at a place given in CSS pixels from the figure's upper left corner.

    Parameters
    ----------
    figure : Figure
        The figure.
    left : float
        Distance of the axes from its left edge, CSS pixels.
    top : float
        Distance from its upper edge, CSS pixels.
    width : float
        Width of the axes, CSS pixels.
    height : float
        Height of the axes, CSS pixels.

    Returns
    -------
    Axes
        The new axes.
    """
    full_width, full_height = (72 * inches for inches in figure.get_size_inches())
    bottom = full_height - top - height
    axes = figure.add_axes(
        (left / full_width, bottom / full_height, width / full_width, height / full_height)
    )
    axes.set_facecolor("none")
    axes.set_axisbelow(True)
    return axes


def to_svg(figure: Figure, *, name: str, label: str) -> str:
    """Draw a figure as one `<svg>` element.

    Parameters
    ----------
    figure
        Must have been made inside `figure_style`.
    name
        Prefix of every id; unique among the figures of one page.
    label
        What the figure shows, for readers who do not see it.

    Returns
    -------
    str
        The element, without a style sheet of its own.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The browser draws the text: a glyph missing from matplotlib's font is no loss.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = ET.fromstring(buffer.getvalue())  # noqa: S314 (matplotlib wrote it just now)
    _drop_document_parts(root)
    _own_ids(root, name)
    for element in root.iter():
        _adapt(element)
    view_box = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib.update(
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": view_box,
            "role": "img",
            "aria-label": label,
            "stroke-linejoin": "round",
            "style": f"font-family: {_FONT}",
        }
    )
    return ET.tostring(root, encoding="unicode")


def _drop_document_parts(root: ET.Element) -> None:
    """Remove what has no place in a page.

    That is metadata, the style sheet (its `*` rule would reach the whole page), and clip
    paths, which the figures do not need because their limits contain their data.
    """
    unwanted = {f"{_SVG}metadata", f"{_SVG}style", f"{_SVG}clipPath"}
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in unwanted:
                parent.remove(child)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{_SVG}defs" and len(child) == 0:
                parent.remove(child)


def _own_ids(root: ET.Element, name: str) -> None:
    """Keep the ids that something refers to, renamed in order of appearance."""
    used = {target for element in root.iter() if (target := element.get(_LINK))}
    renamed: dict[str, str] = {}
    for element in root.iter():
        old = element.attrib.pop("id", None)
        if old is not None and f"#{old}" in used:
            renamed[f"#{old}"] = f"{name}-{len(renamed)}"
            element.set("id", renamed[f"#{old}"])
    for element in root.iter():
        target = element.attrib.pop(_LINK, None)
        if target is not None:
            element.set("href", f"#{renamed[target]}")


def _adapt(element: ET.Element) -> None:
    """Drop the namespace, take fonts and colors from the page, shorten coordinates."""
    element.tag = element.tag.removeprefix(_SVG)
    element.tail = None
    if element.tag != "text":
        element.text = None
    element.attrib.pop("clip-path", None)
    for key in element.attrib.keys() & {"d", "x", "y", "transform"}:
        # A hundredth of a pixel; more would only carry the platform's last bits.
        element.set(key, re.sub(r"-?\d+\.\d+", _two_decimals, element.attrib[key]))
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]  # matplotlib turns level text by nothing
    if "style" in element.attrib:
        element.set("style", _page_style(element.attrib["style"]))


def _page_style(style: str) -> str:
    """Replace fixed colors by the page's, the font by the page's, and bold by semibold.

    matplotlib's own font, by which the text was measured, has no semibold.
    """
    style = re.sub(r"#[0-9a-f]{6}", _page_color, style)
    # The family as a property, or (matplotlib with a single family) in the shorthand.
    style = re.sub(r"font-family: [^;]*(; )?", "", style)
    style = re.sub(r"(font: [^;]*px) [^;]*", rf"\1 {_FONT}", style)
    return re.sub(r"(font(?:-weight)?: )(?:700|bold)\b", r"\g<1>600", style)


def _two_decimals(match: re.Match[str]) -> str:
    number = round(float(match.group()), 2) + 0.0  # + 0.0 turns -0.0 into 0.0
    return f"{number:g}" if abs(number) < 1000 else f"{number:.2f}"


def _page_color(match: re.Match[str]) -> str:
    name = _NAMES.get(match.group())
    return match.group() if name is None else f"var(--fc-{name}, {match.group()})"
