"""Flat configurations as Flower reads them from a TOML file."""

from __future__ import annotations

import json
from collections.abc import Mapping

__all__ = ["flat_toml"]


def flat_toml(values: Mapping[str, str | bool | int | float]) -> str:
    """Write keys, dots and all, with their values, one a line.

    JSON's strings, numbers and truth values are TOML's too, save for one character.
    """
    lines = [
        f"{json.dumps(key)} = {json.dumps(value, ensure_ascii=False, allow_nan=False)}"
        for key, value in values.items()
    ]
    return "".join(f"{line}\n" for line in lines).replace("\x7f", "\\u007f")
