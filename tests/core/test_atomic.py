"""A reader never meets a half-written file or folder."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from fedcert.atomic import replaced_folder, write_atomically, write_once


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


@pytest.mark.parametrize("write", [write_atomically, write_once])
def test_an_error_names_the_file_and_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, bytes], None]
) -> None:
    monkeypatch.setattr(os, "open", _full)
    with pytest.raises(OSError, match="No space left") as caught:
        write(tmp_path / "file", b"new")
    assert caught.value.filename == str(tmp_path / "file")


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


def _recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path]]:
    """Record, in order, what is brought to the disk and what gets its name."""
    steps: list[tuple[str, Path]] = []
    fsync, replace, link = os.fsync, Path.replace, os.link

    def noted(handle: int) -> None:
        steps.append(("disk", Path(f"/proc/self/fd/{handle}").readlink()))
        fsync(handle)

    def named(path: Path, target: Path) -> Path:
        steps.append(("name", Path(target)))
        return replace(path, target)

    def linked(source: Path, target: Path) -> None:
        steps.append(("name", Path(target)))
        link(source, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "replace", named)
    monkeypatch.setattr(os, "link", linked)
    return steps


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc")


@needs_proc
def test_a_files_name_is_on_the_disk_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name lives in its folder: without its fsync a power cut can take the file away."""
    steps = _recorded(monkeypatch)
    write_atomically(tmp_path / "file", b"content")
    assert steps[0][0] == "disk"
    assert steps[1:] == [("name", tmp_path / "file"), ("disk", tmp_path)]


@needs_proc
@pytest.mark.parametrize("again", [False, True])
def test_a_folders_files_and_names_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    if again:
        (tmp_path / "folder").mkdir()
    steps = _recorded(monkeypatch)
    with replaced_folder(tmp_path / "folder") as staging:
        (staging / "deep").mkdir()
        (staging / "deep" / "file").write_text("content")
        (staging / "link").symlink_to("nothing")
    named = steps.index(("name", tmp_path / "folder"))
    before = {path.relative_to(staging) for kind, path in steps[:named] if kind == "disk"}
    assert before == {Path(), Path("deep"), Path("deep/file")}
    assert steps[-1] == ("disk", tmp_path)


@needs_proc
def test_keys_secrets_and_logs_are_there_after_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedcert.protocol.secrets import read_or_create_secret
    from fedcert.records.signing import generate_key, write_key

    key = generate_key()
    steps = _recorded(monkeypatch)
    write_key(tmp_path / "keys" / "key", key)
    read_or_create_secret(tmp_path / "state" / "secret")
    for folder, name in (("keys", "key"), ("state", "secret")):
        named = steps.index(("name", tmp_path / folder / name))
        assert ("disk", tmp_path / folder) in steps[named:]


def test_a_folder_that_knows_no_fsync_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def some(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", some)
    write_atomically(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"
