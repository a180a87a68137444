"""Flower's run config as fedcert reads it: a run's settings, and its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedcert.errors import SettingsError
from fedcert.settings.run import RunSettings

__all__ = ["check_absolute", "settings_and_output"]


def settings_and_output(config: Mapping[str, Any]) -> tuple[RunSettings, Path]:
    """Read Flower's run config: a run's settings, and its folder.

    Raises
    ------
    SettingsError
        If a setting does not fit, or the folder is not an absolute path.
    """
    flat = dict(config)
    output = Path(str(flat.pop("output", "")))
    check_absolute(output)
    return RunSettings.from_flat(flat), output


def check_absolute(output: Path | None) -> Path:
    """Return a run folder that means the same in every working directory.

    Raises
    ------
    SettingsError
        If there is none, or its path is relative.
    """
    if output is None or not output.is_absolute():
        raise SettingsError(
            f"output = {str(output or '')!r} is not an absolute "
            "path; give one with flwr run ... --run-config 'output=\"/path/to/run\"'"
        )
    return output
