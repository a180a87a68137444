"""Records that are signed, sent, and kept: one reader, one writer, one signature."""

from fedcert.records.record import LARGEST, Record, Signed
from fedcert.records.strict import (
    Digest,
    OrAbsent,
    RecordError,
    SignatureText,
    members_of,
    parse_json,
)

__all__ = [
    "LARGEST",
    "Digest",
    "OrAbsent",
    "Record",
    "RecordError",
    "SignatureText",
    "Signed",
    "members_of",
    "parse_json",
]
