"""Labelled examples: what they are, how they are read, how they become model inputs."""

from fedcert.data.examples import Examples
from fedcert.data.inputs import ImageInputs, InputSpec
from fedcert.data.kinds import input_spec_from_config, register_inputs
from fedcert.data.prompts import PromptInputs
from fedcert.data.readers import read_examples
from fedcert.data.text import TextInputs

__all__ = [
    "Examples",
    "ImageInputs",
    "InputSpec",
    "PromptInputs",
    "TextInputs",
    "input_spec_from_config",
    "read_examples",
    "register_inputs",
]
