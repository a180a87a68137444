"""Making a Flower app of one's own from the templates that come with fedcert."""

from __future__ import annotations

import importlib.util
import keyword
import re
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from fedcert.atomic import replaced_folder
from fedcert.errors import SettingsError

__all__ = ["UPSTREAM_AND_NEW", "make_app", "package_of"]

UPSTREAM_AND_NEW = (24, 4)
"""Upstream and new clients of the app's example."""

_SCENARIO = "DigitPairs"
# What Flower takes as a name, less a hyphen at the end, which pip refuses.
_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?")
# The folders of fedcert's own tree, and the app's: on the import path they would hide others.
_RESERVED = {"clients", "data", "model", "simulations", "strategies", "tests"}


def make_app(folder: Path, *, name: str | None = None) -> tuple[Path, str]:
    """Write a Flower app: data, base model, apps, test, and README.

    Parameters
    ----------
    folder : Path
        Where it goes, in full or not at all; it must be empty or not there.
    name : str, optional
        The app's name; by default the folder's.

    Returns
    -------
    tuple of (Path, str)
        The folder as an absolute path, and the name of the app's package.

    Raises
    ------
    SettingsError
        If the folder holds something, or Flower or Python would refuse a name.
    """
    folder = folder.resolve()
    _check_folder(folder)
    name = name or folder.name
    package = package_of(name)
    files = _rendered(folder, name, package)
    with replaced_folder(folder) as staging:
        for place, text in files.items():
            path = staging / place
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return folder, package


def package_of(name: str) -> str:
    """Return the name of an app's package.

    Raises
    ------
    SettingsError
        If Flower refuses the app's name, or the package would hide another one.
    """
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"{name!r} cannot name a Flower app: {_RULES}; give another one with --name"
        )
    package = name.replace("-", "_").lower()
    if keyword.iskeyword(package) or package in _RESERVED or _is_installed(package):
        raise SettingsError(
            f"the package of an app named {name!r} would be {package!r}, a name that Python or "
            "an installed package has already; give another one with --name"
        )
    return package


_RULES = (
    "it must start with a letter, hold letters, digits and hyphens alone, not end with a "
    "hyphen, and have at most 32 characters"
)


def _check_folder(folder: Path) -> None:
    if folder == Path.cwd():
        raise SettingsError("name a folder other than the one that you are in")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingsError(f"{folder} is not an empty folder; nothing was written")
    # `flwr build` looks at the folder's name as well as at the app's.
    if not _NAME.fullmatch(folder.name):
        raise SettingsError(
            f"Flower refuses an app in a folder named {folder.name!r}: {_RULES}"
        )
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        raise SettingsError(f"the path {folder!r} is not valid text") from error


def _is_installed(package: str) -> bool:
    found = importlib.util.find_spec(package)
    # A mere folder on the import path, which may be the new app's, has no origin.
    return found is not None and found.origin is not None


def _rendered(folder: Path, name: str, package: str) -> dict[str, str]:
    """Return the files' texts by place."""
    upstream, new = UPSTREAM_AND_NEW
    values = {
        "name": name,
        "package": package,
        "scenario": _SCENARIO,
        "upstream": upstream,
        "new": new,
        "nodes": upstream + new,
    }
    places = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        "LICENSE": "LICENSE",
        ".gitignore": "gitignore",
        f"{package}/__init__.py": "init.py",
        f"{package}/server_app.py": "server_app.py",
        f"{package}/client_app.py": "client_app.py",
        f"{package}/data.py": "data.py",
        f"{package}/model.py": "model.py",
        "tests/test_app.py": "test_app.py",
    }
    templates = Environment(  # noqa: S701 - TOML and Python, nothing that a browser shows
        loader=PackageLoader("fedcert", "templates/app"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    return {
        place: templates.get_template(f"{source}.jinja").render(values)
        for place, source in places.items()
    }
