"""Signed JSON objects: every message of the protocol that leaves a machine is one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcert.canonical import canonical_json
from fedcert.certificates.signing import sign, verify
from fedcert.certificates.strict_json import LARGEST, parse_json
from fedcert.errors import ProtocolError

__all__ = ["is_signed_by", "read_object", "signature_of", "to_text"]

# Where the format has another name than messages have.
_FORMATS = {"countersignature": "witness"}


def signature_of(members: Mapping[str, Any], key: Ed25519PrivateKey) -> str:
    """Sign an object without its ``signature``; its ``format`` says what it is for."""
    return sign(key, _payload(members))


def is_signed_by(members: Mapping[str, Any], public_key: str) -> bool:
    """Return whether ``signature`` is the key's signature of the other members."""
    return verify(public_key, _payload(members), str(members.get("signature")))


def to_text(members: Mapping[str, Any]) -> str:
    """Return JSON for people to read: sorted keys, an indent of two."""
    return json.dumps(members, indent=2, sort_keys=True, allow_nan=False) + "\n"


def read_object(path: Path, what: str) -> Any:
    """Read a JSON file strictly.

    Raises
    ------
    ProtocolError
        If it cannot be read, or is larger than any message is.
    CertificateError
        If it is damaged.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise ProtocolError(f"cannot read the {what} {path}: {error.strerror}") from error
    if len(content) > LARGEST:
        raise ProtocolError(f"the {what} {path} has more than {LARGEST:,} bytes")
    found = parse_json(content, what)
    said = found.get("format") if isinstance(found, dict) else None
    # Files of the protocol look alike: say which one this is before its members are judged.
    if isinstance(said, str) and not said.startswith(f"fedcert.{_FORMATS.get(what, what)}/"):
        raise ProtocolError(f"{path} is no {what}: it says that its format is {said!r}")
    return found


def _payload(members: Mapping[str, Any]) -> bytes:
    return canonical_json({k: v for k, v in members.items() if k != "signature"})
