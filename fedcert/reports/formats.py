"""Numbers and names as a reader wants to see them."""

from __future__ import annotations

import math
import re
import unicodedata
from datetime import UTC, datetime
from pathlib import PurePosixPath
from urllib.parse import quote

__all__ = [
    "clean_text",
    "count",
    "data_size",
    "decimal_up",
    "duration",
    "may_fail",
    "moment",
    "percent",
    "percent_brief",
    "percent_up",
    "plural",
    "relative_link",
    "short_digests",
    "shorten",
    "sure_of",
]

MISSING = "\N{EN DASH}"  # what a table shows where nothing was measured
_SIZES = ("B", "kB", "MB", "GB", "TB")
# Overrides that would let an untrusted name reorder the text around it.
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean_text(text: str) -> str:
    """Make any string safe to print on one line.

    White space becomes a plain space; control characters, lone surrogates (legal in JSON,
    impossible in UTF-8) and text-direction overrides become the replacement character.
    """
    return "".join(_clean_character(character) for character in text)


def _clean_character(character: str) -> str:
    if character.isspace():
        return " "
    hostile = unicodedata.category(character) in {"Cc", "Cs"} or character in _BIDI_CONTROLS
    return "\N{REPLACEMENT CHARACTER}" if hostile else character


def shorten(text: str, length: int) -> str:
    """Cut a name in the middle: names of one run begin alike and differ at the end."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}\N{HORIZONTAL ELLIPSIS}{text[len(text) - tail :]}"


def short_digests(text: str) -> str:
    """Cut keys and digests of a sentence, which stand elsewhere in full."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52,}\b", "\\1\N{HORIZONTAL ELLIPSIS}", text)


def percent(fraction: float | None) -> str:
    """Print a fraction as a percentage, rounded to the nearest tenth."""
    return MISSING if fraction is None else f"{100 * fraction:.1f}%"


def percent_brief(fraction: float | None) -> str:
    """Print a setting such as chance or delta, without needless decimals."""
    return MISSING if fraction is None else f"{round(100 * fraction, 1):g}%"


def percent_up(bound: float | None) -> str:
    """Print an upper bound as a percentage, rounded up so as not to claim too much.

    A bound that is a tenth of a percent up to floating-point noise stays as it is.

    Examples
    --------
    >>> percent_up(0.1231), percent(0.1231)
    ('12.4%', '12.3%')
    """
    return MISSING if bound is None else f"{math.ceil(1000 * bound - 1e-9) / 10:.1f}%"


def sure_of(delta: float) -> str:
    """Print ``1 - delta`` as a percentage, rounded down so as not to promise too much.

    Examples
    --------
    >>> sure_of(0.05), sure_of(0.0004)
    ('95%', '99.9%')
    """
    return f"{math.floor(1000 * (1 - delta) + 1e-9) / 10:g}%"


def may_fail(delta: float) -> str:
    """Print a probability of being false as a percentage, rounded up.

    Examples
    --------
    >>> may_fail(0.05), may_fail(0.0004)
    ('5%', '0.1%')
    """
    return f"{math.ceil(1000 * delta - 1e-9) / 10:g}%"


def decimal_up(bound: float, places: int = 3) -> str:
    """Print an upper bound as a decimal fraction, rounded up as in `percent_up`."""
    scale = 10**places
    return f"{math.ceil(scale * bound - 1e-9) / scale:.{places}f}"


def count(number: float | None) -> str:
    """Print a number of things, with commas and without needless decimals."""
    if number is None:
        return MISSING
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:,.1f}"


def plural(number: int, noun: str) -> str:
    """Print a number of things with their name: '1 client', '2 clients'."""
    return f"{count(number)} {noun}" + ("" if number == 1 else "s")


def data_size(size: float | None) -> str:
    """Print a number of bytes in the unit that gives one to three digits."""
    if size is None:
        return MISSING
    power = 0
    while size >= 999.5 and power < len(_SIZES) - 1:
        size, power = size / 1000, power + 1
    return (
        f"{size:.1f} {_SIZES[power]}"
        if power and size < 99.95
        else f"{size:.0f} {_SIZES[power]}"
    )


def duration(seconds: float | None) -> str:
    """Print a time, to a precision that fits its length."""
    if seconds is None:
        return MISSING
    if seconds < 0.0995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes / 60:.1f} h"


def moment(stamp: str) -> str:
    """Print a time of ISO 8601 as date, hour, and minute of UTC; other text as it is.

    Examples
    --------
    >>> moment("2026-11-29T14:05+02:00")
    '2026-11-29 12:05 UTC'
    """
    try:
        when = datetime.fromisoformat(stamp)
    except ValueError:
        return stamp
    if when.tzinfo is None:
        return f"{when:%Y-%m-%d %H:%M}"
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def relative_link(path: str | None) -> str | None:
    """Turn a file's path into a link inside the run folder, or None where that is not safe.

    Paths carry client names, so an absolute path, a step upward or a scheme such as
    ``javascript:`` must never become a live link.
    """
    if not path or "\\" in path:
        return None
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts:
        return None
    return quote("/".join(parts), safe="/")
