"""Code of one's own: modules that register priors, recipes, or inputs when imported.

A bundle, a certificate, or a message names a kind, never a module, and looking a kind up
imports nothing. So what somebody sends can use only code that its reader has imported: by an
import statement, by ``fedcert --import MODULE``, or by a run's setting ``imports``.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable
from typing import Any

from fedcert.errors import FedcertError, SettingsError, did_you_mean

__all__ = ["enter", "import_extensions", "unknown_kind"]

_KIND = re.compile(r"[a-z][a-z0-9_-]{0,63}")


def import_extensions(modules: Iterable[str]) -> None:
    """Import modules, which register what they define.

    Only names from whoever runs this process may come here: importing runs code.

    Parameters
    ----------
    modules : iterable of str
        Dotted names.

    Raises
    ------
    SettingsError
        If a name is none, there is no such module, or importing it fails.
    """
    for name in modules:
        if not all(part.isidentifier() for part in name.split(".")):
            raise SettingsError(f"{name!r} is not the name of a module")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise SettingsError(
                    f"the module {name} needs the package {error.name!r}; install it"
                ) from error
            raise SettingsError(
                f"there is no module {name} on the import path; install it, or put its folder "
                "into PYTHONPATH"
            ) from error
        except FedcertError:
            raise
        except Exception as error:
            raise SettingsError(
                f"the module {name} cannot be imported: {type(error).__name__}: {error}"
            ) from error


def enter(registry: dict[str, Any], cls: type, *, what: str) -> None:
    """Put a class into a registry under its ``kind``.

    A class that is defined anew under its own name, as in a notebook, takes its old place;
    fedcert's own stay what they are.

    Raises
    ------
    ValueError
        If the class is abstract, its kind is no plain word, or another class has it.
    """
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise ValueError(f"the {what} {cls.__name__} lacks {', '.join(missing)}")
    kind = inspect.getattr_static(cls, "kind", None)
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        raise ValueError(
            f"the {what} {cls.__name__} needs a kind of lower-case letters, digits, - and _, "
            f"not {kind!r}"
        )
    there = registry.get(kind)
    if there is not None and (
        _name(there) != _name(cls) or _name(there).startswith("fedcert.")
    ):
        raise ValueError(f"two {what}s call themselves {kind!r}: {_name(there)}, {_name(cls)}")
    registry[kind] = cls


def unknown_kind(what: str, kind: object, known: Iterable[str]) -> str:
    """Say that a kind is unknown, and how somebody's own becomes known.

    Parameters
    ----------
    what : str
        The family, such as "recipe kind".
    kind : object
        The kind that was asked for.
    known : iterable of str
        The registered kinds.

    Returns
    -------
    str
        A message for an error.
    """
    listed = list(known)
    return (
        f"unknown {what} {kind!r}; this version knows {', '.join(listed)}, and others once the "
        "module that registers them is imported: fedcert --import MODULE, if you trust it"
        f"{did_you_mean(str(kind), listed)}"
    )


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
