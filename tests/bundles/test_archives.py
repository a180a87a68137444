"""Archives: the same bytes each time, and nothing that reaches outside of the folder."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest

from fedcert.bundles.archives import ArchiveLimits, pack, read_archive
from fedcert.errors import BundleError

FILES = {"bundle.json": b"{}", "bundle.safetensors": bytes(range(256)) * 50}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "archive.zip"
    path.parent.mkdir()
    return path


def _member(name: str, *, mode: int = 0o100644) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.create_system, member.external_attr = 3, mode << 16
    return member


def _refused(archive: Path, text: str, limits: ArchiveLimits | None = None) -> None:
    """Reading refuses it, and leaves nothing behind."""
    limits = limits or ArchiveLimits()
    before = sorted(archive.parent.parent.rglob("*"))
    with pytest.raises(BundleError, match=text):
        read_archive(archive, limits)
    assert sorted(archive.parent.parent.rglob("*")) == before


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    first = pack(FILES, tmp_path / "a.zip")
    second = pack(dict(reversed(FILES.items())), tmp_path / "b.zip")
    assert first == second
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    # Of another machine and day; a new value here is a new format.
    assert first == "ff5e06f8d308dcae8b76d834820c2172f55de36bfa1a805e5f461453da44a3e2"
    assert read_archive(tmp_path / "a.zip") == FILES


def test_what_others_pack_is_read_too(archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in FILES.items():
            target.writestr(name, content)
    assert read_archive(archive) == FILES


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../evil",
        "..",
        ".",
        "a/../../evil",
        "folder/file",
        "folder/",
        "C:evil",
        "C:\\evil",
        "..\\evil",
        "\\\\host\\share",
        "~",
        ".hidden",
        "trailing.",
        "trailing ",
        "a\nb",
        "\x1b[2Ja",
        "gnp.\u202exe",
        "\u00e4",
        "a" * 101,
        "a*b",
        "con:",
    ],
)
def test_a_name_that_is_not_plain_is_refused(archive: Path, name: str) -> None:
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr(_member("fine"), b"harmless")
        target.writestr(_member(name), b"evil")
    _refused(archive, "its member .* is not the plain name of a file; nothing was unpacked")


def test_a_name_behind_a_zero_byte_counts(archive: Path) -> None:
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr(_member("fine%/../evil"), b"evil")
    archive.write_bytes(archive.read_bytes().replace(b"fine%", b"fine\x00"))
    _refused(archive, r"its member 'fine\\x00/../evil' is not the plain name")


@pytest.mark.parametrize(
    "kind",
    [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFDIR],
)
def test_what_is_not_a_plain_file_is_refused(archive: Path, kind: int) -> None:
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr(_member("evil", mode=kind | 0o777), b"/etc/passwd")
    _refused(archive, "its member 'evil' is a link, a device, or a folder")


def test_a_member_that_begins_before_the_file_is_refused(archive: Path) -> None:
    pack(FILES, archive)
    content = bytearray(archive.read_bytes())
    # The end of the archive says that its directory begins a kilobyte later than it does.
    place = content.rindex(b"PK\x05\x06") + 16
    content[place : place + 4] = (int.from_bytes(content[place : place + 4], "little") + 1024
                                  ).to_bytes(4, "little")  # fmt: skip
    archive.write_bytes(content)
    _refused(archive, "its member 'bundle.json' is damaged")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["bundle.json", "Bundle.JSON"])
def test_a_name_that_is_there_twice_is_refused(archive: Path, second: str) -> None:
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr(_member("bundle.json"), b"one")
        target.writestr(_member(second), b"another")
    _refused(archive, f"its member '{second}' is there twice, or differs from another in case")


def test_too_many_members_are_refused(archive: Path) -> None:
    pack({f"m{i}": b"" for i in range(17)}, archive)
    _refused(archive, "it has 17 members, more than 16")


def test_what_declares_too_much_is_refused_before_it_is_read(archive: Path) -> None:
    pack({"a": bytes(600), "b": bytes(600)}, archive)
    _refused(archive, "with its member 'b' it has 1,200 bytes", ArchiveLimits(size=1000))


def test_a_zip_bomb_is_refused(archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("bomb", bytes(20 * 2**20))
    assert archive.stat().st_size < 50_000
    _refused(archive, "its member 'bomb' would grow from .* to 20,971,520 bytes")


def test_a_bomb_that_lies_about_its_size_yields_no_more_than_it_declares(archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("bomb", bytes(20 * 2**20))
    true, false = (n.to_bytes(4, "little") for n in (20 * 2**20, 1000))
    archive.write_bytes(archive.read_bytes().replace(true, false))
    _refused(archive, "its member 'bomb' is damaged")


def test_another_name_in_front_of_the_data_is_refused(archive: Path) -> None:
    """A zip file has each name twice: other programs would go by the first one."""
    pack({"harmless": b"evil"}, archive)
    archive.write_bytes(archive.read_bytes().replace(b"harmless", b"../../ev", 1))
    _refused(archive, "its member 'harmless' is damaged")


def test_members_that_share_their_data_are_refused(archive: Path) -> None:
    """The trick behind bombs without compression: many entries for the same bytes."""
    pack({"a": bytes(5000), "b": b""}, archive)
    content = archive.read_bytes()
    with zipfile.ZipFile(archive) as source:
        directory, offset = source.start_dir, source.getinfo("b").header_offset
    entries = content[directory:].replace(offset.to_bytes(4, "little"), bytes(4), 1)
    archive.write_bytes(content[:directory] + entries)
    _refused(archive, "its member 'b' is damaged")


@pytest.mark.parametrize("bits", [0x1, 0x41])
def test_an_encrypted_member_is_refused(archive: Path, bits: int) -> None:
    pack({"a": b"x"}, archive)
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as source:
        content[source.start_dir + 8] |= bits
    archive.write_bytes(bytes(content))
    _refused(archive, "its member 'a' is encrypted")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_rare_way_of_packing_is_refused(archive: Path, method: int) -> None:
    with zipfile.ZipFile(archive, "w", method) as target:
        target.writestr("a", b"x" * 100)
    _refused(archive, "packed in a way that this version does not read")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 0.999])
def test_a_download_that_was_cut_off_is_refused(archive: Path, share: float) -> None:
    pack(FILES, archive)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(share * len(content))])
    _refused(archive, "not a whole zip archive .* cut off: get it again")


def test_a_flipped_byte_is_found_wherever_it_matters(archive: Path) -> None:
    """Either it is refused, or it was in a date or some such and the files are the same."""
    pack(FILES, archive)
    content = archive.read_bytes()
    reasons = []
    for position in range(0, len(content), 97):
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        archive.write_bytes(bytes(damaged))
        try:
            unchanged = read_archive(archive) == FILES
        except BundleError as error:
            reasons.append(str(error))
        else:
            assert unchanged
    assert all(str(archive) in reason for reason in reasons)
    assert len(reasons) > 100


@pytest.mark.parametrize(
    "content", [b"not a zip", b"PK\x05\x06" + bytes(18), b"\x80\x04\x95pickle."]
)
def test_something_else_is_no_archive(archive: Path, content: bytes) -> None:
    archive.write_bytes(content)
    if content.startswith(b"PK"):
        assert read_archive(archive) == {}
    else:
        _refused(archive, "not a whole zip archive")


def test_an_archive_that_is_not_there(archive: Path) -> None:
    _refused(archive, "there is no such archive")


@pytest.mark.parametrize("name", ["a/b", "..", "", "ü"])
def test_packing_keeps_to_the_same_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match="cannot be the name of a file"):
        pack({name: b""}, tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []
