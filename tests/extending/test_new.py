"""`fedcert new`: an app that Flower takes, that runs, and that is clean; or nothing at all."""

from __future__ import annotations

import importlib
import io
import json
import os
import shlex
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.supercore.utils import is_valid_name
from simulations.test_flower_app import Flower

from extending.blocks import blocks, command
from extending.conftest import Forget
from fedcert.certificates import Certificate, verify_record
from fedcert.cli.new_app import UPSTREAM_AND_NEW, make_app
from fedcert.errors import SettingsError
from fedcert.scenarios import load_scenario
from fedcert.settings import RunSettings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, package = make_app(tmp_path_factory.mktemp("new") / "my-app")
    assert package == "my_app"
    return folder


@pytest.fixture
def inside(app: Path, forget: Forget, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the app's folder onto the import path, as Flower does."""
    monkeypatch.syspath_prepend(app)
    return app


def _config(app: Path) -> dict[str, Any]:
    project = tomllib.loads((app / "pyproject.toml").read_text(encoding="utf-8"))
    config: dict[str, Any] = project["tool"]["flwr"]["app"]["config"]
    return config


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_command_says_what_to_do_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "Two-Words"
    assert command("new", folder, monkeypatch=monkeypatch) == 0
    said = capfd.readouterr().out
    assert f"made:   {folder}" in said
    assert f"flwr run {folder} --stream --run-config 'output=" in said
    assert " --federation-config 'num-supernodes=28 " in said
    assert (folder / "two_words" / "data.py").is_file()


def test_it_is_an_app_that_flower_bundles(app: Path) -> None:
    (app / "runs").mkdir()
    (app / "runs" / "results.json").write_text("{}")
    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(app))) as bundle:
        names = set(bundle.namelist())
    package = {f"my_app/{name}.py" for name in ("__init__", "client_app", "data", "model")}
    assert package | {"my_app/server_app.py", "pyproject.toml", "LICENSE"} <= names
    # Results do not travel.
    assert not any(name.startswith(("runs/", "tests/")) for name in names)


def test_its_config_is_accepted_and_has_the_scenarios_defaults(inside: Path) -> None:
    config = _config(inside)
    assert config.pop("output") == ""  # no machine's path
    settings = RunSettings.from_mapping(config)
    scenario = load_scenario(settings.scenario.name, {})
    assert settings.prior.kind == "gaussian"  # data.py's, since no line says otherwise
    counts = len(scenario.upstream_clients), len(scenario.new_clients)
    assert counts == UPSTREAM_AND_NEW
    assert tuple(settings.scenario.options.values()) == UPSTREAM_AND_NEW
    readme = (inside / "README.md").read_text()
    assert f"num-supernodes={sum(UPSTREAM_AND_NEW)} " in readme
    assert f"fedcert simulate {settings.scenario.name} --output" in readme


def test_its_own_test_passes(inside: Path, tmp_path: Path) -> None:
    sys.path.insert(0, str(inside / "tests"))
    try:
        tests = importlib.import_module("test_app")
    finally:
        sys.path.remove(str(inside / "tests"))
    tests.test_every_new_client_gets_a_certificate_that_holds(tmp_path)
    for index in range(3):
        tests.test_no_example_is_used_twice(index)


def test_it_is_clean(app: Path) -> None:
    for words in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "ruff", *words),
                *("--config", str(ROOT / "pyproject.toml")),
                # The app's package is its own; fedcert is one that it uses.
                *("--config", 'lint.isort.known-first-party=["my_app"]', "."),
            ],
            cwd=app,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "name",
    [
        "",
        "1st",
        "-x",
        "x-",
        "under_score",
        "dot.ted",
        "a b",
        "x" * 33,
        "naïve",
        "a/b",
        "x\n",
        "../x",
        '"',
        "fedcert",
        "Fedcert",
        "clients",
        "strategies",
        "simulations",
        "tests",
        "numpy",
        "flwr",
        "json",
        "class",
        "import",
    ],
)
def test_a_name_that_would_not_do_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot name a Flower app|one with --name"):
        make_app(tmp_path / "fine" / "app-1", name=name or " ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "A-1", "x" * 32, "my-app-2", "z9"])
def test_other_names_are_flowers_names(name: str, tmp_path: Path) -> None:
    assert is_valid_name(name)[0]
    folder, package = make_app(tmp_path / "here", name=name)
    assert package.isidentifier()
    assert f'name = "{name}"' in (folder / "pyproject.toml").read_text()


def test_a_folder_that_flower_refuses_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Flower refuses an app in a folder named 'my_app'"):
        make_app(tmp_path / "my_app", name="my-app")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / ".hidden").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name, text in [
        ("full", "not an empty"),
        ("file", "not an empty"),
        ("here", "you are in"),
    ]:
        with pytest.raises(SettingsError, match=text):
            make_app(tmp_path / name)
    assert _files(tmp_path) == {"full/.hidden", "file"}


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "pyproject.toml" in _files(make_app(tmp_path / "empty", name="other")[0])


def test_nothing_is_left_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write, written = Path.write_text, []

    def full(path: Path, *arguments: Any, **options: Any) -> int:
        if len(written) == 4:
            raise OSError(28, "No space left on device", str(path))
        written.append(path)
        return write(path, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", full)
    assert command("new", tmp_path / "app-1", monkeypatch=monkeypatch) == 1
    assert "No space left on device" in capfd.readouterr().err
    assert len(written) == 4
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("parent", ["a b", "it's", 'quo"ted', "back\\slash", "ü€😀", "{{ x }}"])
def test_any_path_is_written_right(
    parent: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / parent / "app-1"
    assert command("new", folder, monkeypatch=monkeypatch) == 0
    (run,) = [
        line.removeprefix("run:")
        for line in capfd.readouterr().out.splitlines()
        if line.startswith("run:")
    ]
    words = shlex.split(run)
    assert words[2] == str(folder)
    given = tomllib.loads(words[words.index("--run-config") + 1])
    assert given == {"output": str(folder / "runs" / "flwr")}


@pytest.mark.slow
def test_it_is_typed(app: Path, tmp_path: Path) -> None:
    # fedcert laid out as it installs, since mypy does not read `package-dir`.
    layout = tmp_path / "layout"
    (layout / "fedcert").mkdir(parents=True)
    for entry in (ROOT / "fedcert").iterdir():
        (layout / "fedcert" / entry.name).symlink_to(entry)
    for name in ("clients", "simulations", "strategies"):
        (layout / "fedcert" / name).symlink_to(ROOT / name)
    (tmp_path / "page").mkdir()
    for page in ("extending.md", "baselines.md"):
        for name, text in blocks(page, "file").items():
            (tmp_path / "page" / name).write_text(text)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")),
            *("--cache-dir", str(tmp_path / "cache"), "--follow-imports", "silent"),
            *(str(app / "my_app"), str(app / "tests" / "test_app.py"), str(tmp_path / "page")),
        ],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": f"{layout}:{app}:{tmp_path / 'page'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def flower(tmp_path: Path) -> Iterator[Flower]:
    flower = Flower(tmp_path)
    yield flower
    flower.stop()


@pytest.mark.slow
def test_flwr_run_takes_it_as_it_is(app: Path, flower: Flower) -> None:
    """The command that `fedcert new` prints, with less than the machine's cores."""
    output = app / "runs" / "flwr"
    flower(
        *("run", str(app), "--stream", "--run-config", f'output="{output}"'),
        "--federation-config",
        f"num-supernodes={sum(UPSTREAM_AND_NEW)} client-resources-num-cpus=1 "
        "init-args-num-cpus=2",
    )
    (run,) = json.loads(flower("list", "--format", "json"))["runs"]
    assert run["status"] == "finished:completed"
    written = list((output / "certificates").iterdir())
    assert len(written) == UPSTREAM_AND_NEW[1]
    assert all(verify_record(Certificate.read(path)).passed for path in written)
