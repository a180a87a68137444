"""Writing TOML: what the standard library reads alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date, time
from typing import Any

from fedcert.errors import SettingsError

__all__ = ["flat_toml", "toml_key", "toml_of"]


def flat_toml(values: Mapping[str, str | bool | int | float]) -> str:
    """Write keys, dots and all, with their values, one a line, as Flower reads them."""
    return "".join(f"{toml_of(key)} = {toml_of(value)}\n" for key, value in values.items())


def toml_of(value: Any) -> str:
    """Return a setting's value as TOML has it.

    Raises
    ------
    SettingsError
        If TOML has no word for it.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # TOML knows every escape that JSON uses.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        pairs = (f"{toml_key(k)} = {toml_of(v)}" for k, v in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_of, value))}]"
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, int | float):
        return repr(value)
    raise SettingsError(f"the setting {value!r} cannot be written as TOML")


def toml_key(key: str) -> str:
    """Return a key as TOML has it, in quotes where it needs them."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml_of(key)
