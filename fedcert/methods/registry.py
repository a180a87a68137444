"""Which methods there are, by the kind that the setting `method` names.

The variants are entered in `fedcert.methods`; somebody's own enters with `register_method`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from fedcert.errors import SettingsError, UnknownKindError
from fedcert.extensions import enter, unknown_kind
from fedcert.methods.base import AveragingMethod, Method

__all__ = ["METHODS", "averaging_method", "method_from_config", "register_method"]

METHODS: dict[str, type[Method]] = {}
"""Every method, in the order of the tables."""

MethodType = TypeVar("MethodType", bound=type[Method])


class UnknownMethodError(UnknownKindError, SettingsError):
    """No method of this kind is registered."""


def register_method(cls: MethodType) -> MethodType:
    """Let settings, messages, and bundles of this process name a method; a class decorator.

    Raises
    ------
    ValueError
        If the class is not complete, or another one has its kind.
    """
    enter(METHODS, cls, what="method")
    return cls


def method_from_config(config: Mapping[str, Any]) -> Method:
    """Rebuild a method from `Method.to_config`.

    Raises
    ------
    SettingsError
        If the kind is unknown, or the settings are none of it.
    """
    kind = config.get("kind")
    if not isinstance(kind, str) or kind not in METHODS:
        raise UnknownMethodError(unknown_kind("method", kind, METHODS))
    return METHODS[kind].from_config(config)


def averaging_method(config: Mapping[str, Any]) -> AveragingMethod:
    """Rebuild a method that has rounds.

    Raises
    ------
    SettingsError
        As in `method_from_config`, or if the method has none.
    """
    method = method_from_config(config)
    if not isinstance(method, AveragingMethod):
        raise SettingsError(f"the method {method.kind} has no rounds to take part in")
    return method
