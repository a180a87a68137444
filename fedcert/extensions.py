"""Code of one's own: modules that register priors, recipes, or inputs when imported.

A bundle, a certificate, or a message names a kind, never a module, and looking a kind up
imports nothing. So what somebody sends can use only code that its reader has imported: by an
import statement, by ``fedcert --import MODULE``, or by a run's setting ``imports``.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any, Generic, TypeVar, cast

from fedcert.errors import FedcertError, SettingsError, did_you_mean

__all__ = ["Kinds", "import_extensions"]

T = TypeVar("T")
ClassType = TypeVar("ClassType", bound=type)

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


class Kinds(dict[str, type[T]], Generic[T]):
    """A family of classes, each by the kind that it calls itself.

    Parameters
    ----------
    what : str
        The family, such as "recipe".
    unknown : type of FedcertError
        What is raised of a kind that nobody registered.
    asked : str, optional
        What such an error calls it (default: as `what`).
    """

    def __init__(self, what: str, unknown: type[FedcertError], *, asked: str = "") -> None:
        super().__init__()
        self._what, self._unknown, self._asked = what, unknown, asked or what

    def register(self, cls: ClassType) -> ClassType:
        """Enter a class under its ``kind``, and return it: a class decorator.

        A class that is defined anew under its own name, as in a notebook, takes its old place;
        fedcert's own stay what they are.

        Raises
        ------
        ValueError
            If the class is abstract, its kind is no plain word, or another class has it.
        """
        what, name = self._what, cls.__name__
        if missing := sorted(getattr(cls, "__abstractmethods__", ())):
            raise ValueError(f"the {what} {name} lacks {', '.join(missing)}")
        kind = inspect.getattr_static(cls, "kind", None)
        if not isinstance(kind, str) or not _KIND.fullmatch(kind):
            raise ValueError(
                f"the {what} {name} needs a kind of lower-case letters, digits, - and _, not "
                f"{kind!r}"
            )
        there = self.get(kind)
        if there is not None and (
            _name(there) != _name(cls) or _name(there).startswith("fedcert.")
        ):
            raise ValueError(
                f"two {what}s call themselves {kind!r}: {_name(there)}, {_name(cls)}"
            )
        self[kind] = cast("type[T]", cls)
        return cls

    def named(self, kind: object) -> type[T]:
        """Return the class of a kind.

        Raises
        ------
        FedcertError
            If nobody registered it: the error of this family, which says how somebody's own
            becomes known.
        """
        if isinstance(kind, str) and kind in self:
            return self[kind]
        raise self._unknown(
            f"unknown {self._asked} {kind!r}; this version knows {', '.join(self)}, and others "
            "once the module that registers them is imported: fedcert --import MODULE, if you "
            f"trust it{did_you_mean(str(kind), self)}"
        )

    def made(self, config: Mapping[str, Any], error: type[FedcertError]) -> T:
        """Make a dataclass of this family from its kind and its fields.

        Parameters
        ----------
        config : Mapping
            The kind, and fields by name.
        error : type of FedcertError
            What is raised of fields that it does not have, or lacks.

        Returns
        -------
        T
            An object whose fields are these.
        """
        arguments = dict(config)
        cls = self.named(arguments.pop("kind", None))
        defaults = {entry.name: entry.default for entry in fields(cast("Any", cls))}
        what = f"a {self._what} of kind {config['kind']!r}"
        if unknown := sorted(str(key) for key in arguments if key not in defaults):
            raise error(
                f"{what} has no {', '.join(unknown)}; it has {', '.join(sorted(defaults))}"
            )
        needed = {name for name, default in defaults.items() if default is MISSING}
        if missing := sorted(needed - set(arguments)):
            raise error(f"{what} also needs {', '.join(missing)}")
        return cls(**arguments)


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
