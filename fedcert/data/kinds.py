"""The kinds of input specifications, by the name under which a bundle stores them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from fedcert.data.inputs import ImageInputs, InputSpec
from fedcert.data.prompts import PromptInputs
from fedcert.data.text import TextInputs
from fedcert.errors import BundleError, DataError
from fedcert.extensions import enter, unknown_kind

__all__ = ["INPUT_KINDS", "input_spec_from_config", "register_inputs"]

InputsType = TypeVar("InputsType", bound=type[InputSpec])

# One line registers a kind.
INPUT_KINDS: dict[str, Callable[..., InputSpec]] = {
    ImageInputs.kind: ImageInputs,
    PromptInputs.kind: PromptInputs,
    TextInputs.kind: TextInputs,
}


def register_inputs(cls: InputsType) -> InputsType:
    """Let bundles of this process name a specification by its kind; a class decorator.

    Raises
    ------
    ValueError
        If the class is not complete, or another one has its kind.
    """
    enter(INPUT_KINDS, cls, what="input specification")
    return cls


def input_spec_from_config(config: dict[str, Any]) -> InputSpec:
    """Rebuild a specification from `InputSpec.to_config`.

    Raises
    ------
    BundleError
        If the kind is unknown, or its arguments are not those of the kind.
    """
    arguments = dict(config)
    kind = arguments.pop("kind", None)
    if kind not in INPUT_KINDS:
        raise BundleError(unknown_kind("input kind", kind, sorted(INPUT_KINDS)))
    try:
        return INPUT_KINDS[kind](**arguments)
    except (TypeError, ValueError, DataError) as error:
        raise BundleError(f"the input specification is damaged: {error}") from error
