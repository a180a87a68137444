"""A reader never meets a half-written file or folder."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import NoReturn

import pytest

from fedcert.atomic import replaced_folder, write_atomically


def _full(*_args: object, **_options: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_a_file_gets_its_content_and_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "new" / "file"
    write_atomically(path, b"one", mode=mode)
    write_atomically(path, b"two", mode=mode)
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert _names(path.parent) == ["file"]


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, step, _full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert _names(tmp_path) == ["file"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with replaced_folder(tmp_path / "deep" / "folder") as staging:
            (staging / name).write_text(name)
    folder = tmp_path / "deep" / "folder"
    assert _names(folder) == ["two"]
    assert _names(folder.parent) == ["folder"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_a_failed_block_leaves_the_old_folder(tmp_path: Path) -> None:
    def fill(content: str, *, fail: bool) -> None:
        with replaced_folder(tmp_path / "folder") as staging:
            (staging / "file").write_text(content)
            if fail:
                raise RuntimeError("stop")

    fill("old", fail=False)
    with pytest.raises(RuntimeError, match="stop"):
        fill("new", fail=True)
    assert (tmp_path / "folder" / "file").read_text() == "old"
    assert _names(tmp_path) == ["folder"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failed_exchange_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    with replaced_folder(tmp_path / "folder") as staging:
        (staging / "file").write_text("old")
    calls, replace = [], os.replace

    def sometimes(source: object, target: object) -> None:
        calls.append(source)
        if len(calls) == failing:
            _full()
        replace(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "replace", sometimes)
    with (
        pytest.raises(OSError, match="No space left"),
        replaced_folder(tmp_path / "folder") as staging,
    ):
        (staging / "file").write_text("new")
    assert (tmp_path / "folder" / "file").read_text() == "old"
    assert len(calls) >= failing
