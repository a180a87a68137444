"""The one reader, writer, and signature of everything that is signed, sent, or kept."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from fedcert.errors import CertificateError, ProtocolError
from fedcert.records import Digest, OrAbsent, Record, RecordError, SignatureText, Signed
from fedcert.records.signing import key_from_seed, public_hex

KEY, OTHER = (key_from_seed(bytes([i]) * 32) for i in (1, 2))


@dataclass(frozen=True, kw_only=True)
class Inner(Record):
    what = "inner"

    count: int


@dataclass(frozen=True, kw_only=True)
class Note(Signed):
    what = "note"
    format = "fedcert.note/1"

    author: Digest
    text: str
    kind: Literal["plain", "loud"]
    weight: float
    parts: tuple[Inner, ...]
    salts: tuple[bytes, ...]
    reason: str | None
    signature: SignatureText
    label: OrAbsent[str] = None

    def validate(self, path: str) -> None:
        if len(self.parts) != len(self.salts):
            raise RecordError(f"{path}.salts must be one for each part")


def note(**changes: Any) -> Note:
    unsigned = Note(
        author=public_hex(KEY),
        text="Grüße",
        kind="plain",
        weight=0.5,
        parts=(Inner(count=3),),
        salts=(b"\x00\xff",),
        reason=None,
        signature="",
    )
    return replace(unsigned, **changes).signed(KEY)


@pytest.mark.parametrize("changes", [{}, {"label": "own"}, {"reason": "late", "weight": 3.0}])
def test_what_is_written_is_read_and_keeps_its_signature(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    written = note(**changes)
    written.write(tmp_path / "note.json")
    read = Note.read(tmp_path / "note.json")
    assert read == written
    assert read.payload() == written.payload()
    assert read.is_signed_by(public_hex(KEY))
    assert not read.is_signed_by(public_hex(OTHER))


def test_a_later_member_is_absent_and_an_empty_one_is_null() -> None:
    members = note().to_object()
    assert "label" not in members
    assert members["reason"] is None
    assert b"signature" not in note().payload()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"more": 1}, r"note\.more is not a known field"),
        ({"author": "A" * 64}, r"note\.author must be 64 lower-case hexadecimal digits"),
        ({"text": ""}, r"note\.text must be text"),
        ({"text": "\ud800"}, "half of a surrogate pair"),
        ({"kind": "quiet"}, r"note\.kind must be 'plain' or 'loud', not 'quiet'"),
        ({"weight": True}, r"note\.weight must be a number"),
        ({"weight": 2**53}, "finite number below"),
        ({"parts": {}}, r"note\.parts must be an array"),
        ({"parts": [{"count": 1.0}]}, r"note\.parts\[0\]\.count must be an integer"),
        ({"parts": [{"count": -1}]}, "must be from 0 to"),
        ({"parts": [{}]}, r"note\.parts\[0\]\.count is missing"),
        ({"salts": ["zz"]}, r"note\.salts\[0\] must be bytes in lower-case hexadecimal"),
        ({"salts": ["00", "00"]}, "one for each part"),
        ({"reason": 3}, r"note\.reason must be text"),
        ({"label": None}, r"note\.label must be text, not None"),
        ({"format": "fedcert.note/2"}, "format is 'fedcert.note/2'; this version reads"),
    ],
)
def test_every_deviation_is_named_with_its_file(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    path = tmp_path / "note.json"
    path.write_text(json.dumps(note().to_object() | changes))
    with pytest.raises(RecordError, match=problem) as told:
        Note.read(path)
    assert str(path) in str(told.value)


def test_another_kind_of_file_is_called_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    path.write_text(json.dumps(note().to_object() | {"format": "fedcert.seed/1"}))
    with pytest.raises(
        RecordError, match=r"is no note: it says that its format is 'fedcert\.seed"
    ):
        Note.read(path)


@pytest.mark.parametrize("kind", [CertificateError, ProtocolError])
def test_a_missing_file_is_an_error_that_callers_catch(
    tmp_path: Path, kind: type[Exception]
) -> None:
    with pytest.raises(kind, match="cannot read the note"):
        Note.read(tmp_path / "note.json")
