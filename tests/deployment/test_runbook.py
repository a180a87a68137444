"""docs/deployment.md: its commands are those that run, its files are read as it says."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from flwr.app import Context, RecordDict

import fedcert.cli.deploy
from fedcert import deployment
from fedcert.clients.node import node_of
from fedcert.settings import RunSettings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
_SOURCES = [
    *Path(deployment.__file__).parent.glob("*.py"),
    Path(str(fedcert.cli.deploy.__file__)),
    *Path(__file__).parent.glob("*.py"),
]
RUN_HERE = "\n".join(p.read_text(encoding="utf-8") for p in _SOURCES if p != Path(__file__))


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def _commands() -> list[list[str]]:
    lines = "\n".join(_blocks("sh")).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.strip()]


@pytest.mark.parametrize("command", _commands(), ids=lambda command: " ".join(command)[:40])
def test_a_command_is_one_that_the_tests_run(command: list[str]) -> None:
    if command[0] == "export":
        for setting in command[1:]:
            name, _, value = setting.partition("=")
            assert f'"{name}": "{value}"' in RUN_HERE
        return
    program = command[2] if command[:2] == ["python", "-m"] else command[0]
    assert program in RUN_HERE
    for option in (word for word in command if word.startswith("--")):
        # Those of the credentials are arguments of their functions.
        assert option in RUN_HERE or f"{option[2:]}: Annotated" in RUN_HERE


def test_there_are_such_commands() -> None:
    programs = {command[0] for command in _commands()}
    assert programs >= {"flower-superlink", "flower-supernode", "flower-superexec", "flwr"}
    assert programs >= {"fedcert"}


def test_the_run_and_the_node_of_the_page_go_together(tmp_path: Path) -> None:
    _connection, node, run = map(tomllib.loads, _blocks("toml"))
    output = Path(run.pop("output"))
    settings = RunSettings.from_flat(run)
    data = tmp_path / "data.csv"
    data.write_text("input,label\nhello,mine\n")
    here = {"data-path": str(data), "base-model": str(tmp_path)}
    context = Context(1, 1, node | here, RecordDict(), {})
    found = node_of(context, settings, output)
    assert (found.client, found.role) == ("hospital-1", "upstream")
    assert found.folder == Path("/var/lib/fedcert")
    assert found.scenario.labels == ("other", "mine")


def test_the_table_names_every_key_of_a_node() -> None:
    sources = [ROOT / "clients" / name for name in ("node.py", "node_config.py")]
    code = "".join(source.read_text() for source in sources)
    keys = set(re.findall(r'config(?:\.get\(|, |\[)"([a-z-]+)"', code))
    assert keys - {"partition-id"} == {
        *("client-id", "role", "data-path", "input-column", "label-column"),
        *("output", "key-path", "state-path", "base-model", "adapter-path"),
        *("duplicates-are-real", "repeats-are-new", "labels-path", "unlabeled-path"),
        *("device", "plans"),
    }
    for key in keys - {"partition-id"}:
        assert f"`{key}`" in PAGE
