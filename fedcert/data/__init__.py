"""Labeled examples: what they are, how they are read, how they become model inputs."""

from typing import TYPE_CHECKING

from fedcert.lazy import exporting

if TYPE_CHECKING:
    from fedcert.data.examples import Examples
    from fedcert.data.inputs import ImageInputs, InputSpec
    from fedcert.data.kinds import input_spec_from_config, register_inputs
    from fedcert.data.prompts import PromptInputs
    from fedcert.data.readers import read_examples, read_unlabeled
    from fedcert.data.text import TextInputs

__all__ = [
    "Examples",
    "ImageInputs",
    "InputSpec",
    "PromptInputs",
    "TextInputs",
    "input_spec_from_config",
    "read_examples",
    "read_unlabeled",
    "register_inputs",
]

# Examples are verified without torch, which their encoding needs.
__getattr__ = exporting(
    __name__,
    {
        "Examples": "fedcert.data.examples",
        "ImageInputs": "fedcert.data.inputs",
        "InputSpec": "fedcert.data.inputs",
        "PromptInputs": "fedcert.data.prompts",
        "TextInputs": "fedcert.data.text",
        "input_spec_from_config": "fedcert.data.kinds",
        "read_examples": "fedcert.data.readers",
        "read_unlabeled": "fedcert.data.readers",
        "register_inputs": "fedcert.data.kinds",
    },
)
