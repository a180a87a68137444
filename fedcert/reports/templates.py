"""The templates of pages: whatever is put in stays text, whoever wrote it."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fedcert.reports import formats

__all__ = ["environment"]


def environment() -> Environment:
    """Return the environment; it escapes all that is put in, and shows what is invisible."""
    templates = Environment(
        loader=PackageLoader("fedcert.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_cleaned,
    )
    for name in (
        "count",
        "data_size",
        "duration",
        "may_fail",
        "moment",
        "percent",
        "percent_brief",
        "percent_up",
        "plural",
        "relative_link",
        "short_digests",
        "sure_of",
    ):
        templates.filters[name] = getattr(formats, name)
    return templates


def _cleaned(value: Any) -> Any:
    """Replace control characters and text-direction overrides; markup of ours has none."""
    plain = isinstance(value, str) and not isinstance(value, Markup)
    return formats.clean_text(value) if plain else value
