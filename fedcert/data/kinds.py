"""The kinds of input specifications, by the name under which a bundle stores them."""

from __future__ import annotations

from typing import Any

from fedcert.data.inputs import ImageInputs, InputSpec
from fedcert.data.prompts import PromptInputs
from fedcert.data.text import TextInputs
from fedcert.errors import BundleError, DataError
from fedcert.extensions import Kinds

__all__ = ["INPUT_KINDS", "input_spec_from_config", "register_inputs"]

INPUT_KINDS: Kinds[InputSpec] = Kinds("input specification", BundleError, asked="input kind")
"""What inputs may look like."""

register_inputs = INPUT_KINDS.register
"""Lets bundles of this process name a specification by its kind; a class decorator."""

for _kind in (ImageInputs, PromptInputs, TextInputs):
    register_inputs(_kind)


def input_spec_from_config(config: dict[str, Any]) -> InputSpec:
    """Rebuild a specification from `InputSpec.to_config`.

    Raises
    ------
    BundleError
        If the kind is unknown, or its arguments are not those of the kind.
    """
    arguments = dict(config)
    cls = INPUT_KINDS.named(arguments.pop("kind", None))
    try:
        return cls(**arguments)
    except (TypeError, ValueError, DataError) as error:
        raise BundleError(f"the input specification is damaged: {error}") from error
