"""Packages that import what they export when it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["exporting"]


def exporting(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a module's ``__getattr__`` (PEP 562) that finds each name in its module.

    An auditor who verifies a record, or somebody who asks for ``--help``, then waits for no
    model library.

    Parameters
    ----------
    package : str
        The package's own name.
    places : Mapping[str, str]
        Where each exported name is defined.

    Returns
    -------
    callable
        Imports a name, and keeps it in the package.
    """

    def find(name: str) -> Any:
        if name not in places:
            # With name and module Python says "Did you mean ...".
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}",
                name=name,
                obj=sys.modules[package],
            )
        value = getattr(import_module(places[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    # Python looks there for what a mistyped name may have meant, and shells to complete one.
    names = vars(sys.modules[package])
    names["__dir__"] = lambda: sorted({*names, *places})
    return find
