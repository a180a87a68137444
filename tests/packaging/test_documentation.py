"""README.md and docs/: links lead somewhere, and commands have the options shown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import typer.main
from click import Command, Context, Group

from fedcert.cli import app as cli
from fedcert.errors import SettingsError
from fedcert.settings import RunSettings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\]\(([^()\s]+)\)")  # of an image, too


def _id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def _links(page: Path) -> list[str]:
    return [link for link in _LINK.findall(_CODE.sub("", _prose(page))) if "://" not in link]


def _anchors(page: Path) -> set[str]:
    """Return what GitHub makes of the headings."""
    found: list[str] = []
    for title in re.findall(r"^#+ +(.+?)\s*$", _prose(page), re.MULTILINE):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        # The second heading of the same name gets -1.
        found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return set(found)


def _leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists() or not target.is_relative_to(ROOT):
        return False
    return not anchor or anchor in _anchors(target)


def test_every_link_leads_somewhere() -> None:
    dead = [
        f"{_id(page)}: {link}"
        for page in PAGES
        for link in _links(page)
        if not _leads_somewhere(page, link)
    ]
    assert dead == []


def test_a_dead_link_is_noticed(tmp_path: Path) -> None:
    page = DOCS / "index.md"
    assert _leads_somewhere(page, "flower.md#over-time")
    assert not _leads_somewhere(page, "flower.md#over-there")
    assert not _leads_somewhere(page, "flowers.md")
    assert not _leads_somewhere(page, str(tmp_path))


def test_every_page_can_be_reached_from_the_overview() -> None:
    linked = {link.partition("#")[0] for link in _links(DOCS / "index.md")}
    assert {page.name for page in DOCS.glob("*.md")} - linked == {"index.md"}


def test_three_readers_find_three_pages_each() -> None:
    _, _, rest = _prose(DOCS / "index.md").partition("## Three pages for a start")
    readers = rest.partition("## ")[0].split("\n**A")[1:]
    pages = [re.findall(r"^\d\. \[.*?\]\((.*?)\)", reader, re.M) for reader in readers]
    assert [len(found) for found in pages] == [3, 3, 3]
    assert len({page for found in pages for page in found}) == 9


def _commands(page: Path) -> Iterator[list[str]]:
    for language, text in _FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "sh":
            for line in text.replace("\\\n", " ").splitlines():
                yield shlex.split(line, comments=True)


def _resolved(words: list[str]) -> tuple[Command, list[str]]:
    """Find the command that the words call; return it with the words after its name."""
    command: Command = typer.main.get_command(cli.app)
    if words[0] == "--import":
        words = words[2:]
    while isinstance(command, Group):
        name, *words = words
        found = command.get_command(Context(command), name)
        assert found is not None, f"there is no command {name!r}"
        command = found
    return command, words


CALLS = [
    (f"{_id(page)}: {' '.join(words)[:60]}", words[at + 1 :])
    for page in PAGES
    for words in _commands(page)
    for at, word in enumerate(words)
    if Path(word).name == "fedcert" and (at == 0 or "=" in words[0])
]


def test_commands_have_the_options_that_a_page_gives_them() -> None:
    unknown = {where: wrong for where, words in CALLS if (wrong := _unknown(words))}
    assert unknown == {}


def _unknown(words: list[str]) -> set[str]:
    """Return what a command on a page has that the command line does not know."""
    command, given = _resolved(words)
    known = {option for param in command.params for option in param.opts}
    settings = {word for option, word in pairwise(given) if option == "--set"}
    return {word for word in given if word.startswith("-")} - known | {
        setting
        for setting in settings
        if "there is no such setting" in _complaint(setting.partition("=")[0])
    }


def _complaint(setting: str) -> str:
    """Return what is wrong with a setting that has a value which suits none."""
    try:
        RunSettings.from_flat({setting: "?"})
    except SettingsError as error:
        return str(error)
    return ""


def test_commands_were_found() -> None:
    assert len(CALLS) > 30
    assert _unknown(["simulate", "--nonsense", "--set", "prior.kid=1"]) == {
        "--nonsense",
        "prior.kid=1",
    }
    assert "there is no such setting" in _complaint("prior.kid")


def _all_commands(command: Command, path: str = "") -> Iterator[tuple[str, Command]]:
    if isinstance(command, Group):
        for name, inner in command.commands.items():
            yield from _all_commands(inner, f"{path} {name}".strip())
    else:
        yield path, command


def test_the_page_on_the_command_line_names_every_command_and_no_other() -> None:
    every = dict(_all_commands(typer.main.get_command(cli.app)))
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`fedcert ([a-z][a-z -]*[a-z])`", page))
    assert named <= every.keys()
    assert {path for path in every if not path.startswith("server ")} <= named


def test_help_explains_every_argument_and_option() -> None:
    for path, command in _all_commands(typer.main.get_command(cli.app)):
        assert command.help, path
        for param in command.params:
            assert getattr(param, "help", None), f"fedcert {path}: {param.name} has no help"
