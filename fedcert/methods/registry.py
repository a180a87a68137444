"""Which methods there are, by the kind that the setting `method` names.

The variants are entered in `fedcert.methods`; somebody's own enters with `register_method`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedcert.errors import SettingsError, UnknownKindError
from fedcert.extensions import Kinds
from fedcert.methods.base import AveragingMethod, Method

__all__ = ["METHODS", "averaging_method", "method_from_config", "register_method"]


class UnknownMethodError(UnknownKindError, SettingsError):
    """No method of this kind is registered."""


METHODS: Kinds[Method] = Kinds("method", UnknownMethodError)
"""Every method, in the order of the tables."""

register_method = METHODS.register
"""Lets settings, messages, and bundles of this process name a method; a class decorator."""


def method_from_config(config: Mapping[str, Any]) -> Method:
    """Rebuild a method from `Method.to_config`.

    Raises
    ------
    SettingsError
        If the kind is unknown, or the settings are none of it.
    """
    return METHODS.named(config.get("kind")).from_config(config)


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
