"""What the commands share that run a federation, or would: their options and their settings."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedcert.errors import RunError

if TYPE_CHECKING:
    from fedcert.settings import RunSettings

__all__ = [
    "OutputOption",
    "OverridesOption",
    "RunnerOption",
    "ScenarioArgument",
    "SettingsOption",
    "naming_the_extra",
    "quiet",
    "settings_of",
]

ScenarioArgument = Annotated[
    str | None,
    typer.Argument(
        help="A built-in scenario such as `digits`, or `module:Class`; by default that of the "
        "settings, or else `digits`."
    ),
]
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", help="Run folder; an unfinished run goes on.")
]
SettingsOption = Annotated[
    Path | None, typer.Option("--settings", "-s", help="A TOML file with settings.")
]
OverridesOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="One setting, `section.key=value`; may be repeated."),
]
RunnerOption = Annotated[
    str,
    typer.Option(help="`ray`: all cores; `inprocess`: this process, opens no port."),
]


def settings_of(
    scenario: str | None,
    settings: Path | None,
    overrides: Sequence[str],
    *,
    otherwise: Mapping[str, Any] | None = None,
) -> RunSettings:
    """Read the settings of a run as a command was given them.

    Parameters
    ----------
    scenario : str or None
        The scenario, if it is not left to the settings.
    settings : Path or None
        A TOML file.
    overrides : sequence of str
        ``key=value``; they count more than the rest.
    otherwise : Mapping, optional
        As in `RunSettings.read`.

    Returns
    -------
    RunSettings
        Validated.

    Raises
    ------
    SettingsError
        If one of them is wrong.
    """
    from fedcert.settings import RunSettings

    named = [f'scenario.name="{scenario}"'] if scenario else []
    return RunSettings.read(settings, [*named, *overrides], otherwise=otherwise)


@contextmanager
def naming_the_extra() -> Iterator[None]:
    """Name what a simulation needs if the block cannot import it.

    Raises
    ------
    RunError
        If a package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise RunError(
            f"simulations need the package {error.name!r}: pip install 'fedcert[simulation]'"
        ) from error


def quiet() -> None:
    """Silence libraries that would print over the progress bars."""
    import transformers

    logging.getLogger("flwr").setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
