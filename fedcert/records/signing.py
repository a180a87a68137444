"""Ed25519 keys and signatures (RFC 8032).

A signature proves who made a claim; only recomputation proves the claim.
"""

from __future__ import annotations

import os
import shlex
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from fedcert.atomic import write_once
from fedcert.errors import CertificateError
from fedcert.records.strict import RecordError

__all__ = [
    "ALGORITHM",
    "generate_key",
    "key_from_seed",
    "public_hex",
    "read_key",
    "read_or_create_key",
    "read_private",
    "sign",
    "verify",
    "write_key",
]

ALGORITHM: Final = "ed25519"
"""Name of the only signature algorithm, as certificates spell it."""


def generate_key() -> Ed25519PrivateKey:
    """Draw a new private key from the operating system's randomness."""
    return Ed25519PrivateKey.generate()


def key_from_seed(seed: bytes) -> Ed25519PrivateKey:
    """Make the private key whose secret is `seed`; for simulations and tests.

    Raises
    ------
    CertificateError
        If the seed is not 32 bytes long.
    """
    if len(seed) != 32:
        raise CertificateError(f"a key's seed must be 32 bytes long, not {len(seed)}")
    return Ed25519PrivateKey.from_private_bytes(seed)


def public_hex(key: Ed25519PrivateKey) -> str:
    """Return the public half of a key as 64 hexadecimal digits."""
    return key.public_key().public_bytes_raw().hex()


def sign(key: Ed25519PrivateKey, payload: bytes) -> str:
    """Return the signature of `payload` as 128 hexadecimal digits."""
    return key.sign(payload).hex()


def verify(public_key: str, payload: bytes, signature: str) -> bool:
    """Return whether `signature` is the public key's signature of `payload`.

    Malformed keys and signatures, in hexadecimal, are False like wrong ones.

    Parameters
    ----------
    public_key : str
        64 hexadecimal digits (Ed25519).
    payload : bytes
        The signed bytes.
    signature : str
        128 hexadecimal digits.

    Returns
    -------
    bool
        True exactly if the signature is valid.
    """
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(signature), payload)
    except (InvalidSignature, ValueError):
        return False
    return True


def write_key(path: Path, key: Ed25519PrivateKey) -> None:
    """Write a private key as unencrypted PKCS #8 PEM that only its owner may read.

    Raises
    ------
    CertificateError
        If there is something at `path` already: a lost key cannot be had back.
    """
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        write_once(path, pem)
    except FileExistsError:
        raise CertificateError(
            f"there is a file at {path} already; keys are never overwritten, move it away first"
        ) from None


def read_private(path: Path, what: str) -> bytes:
    """Read a file that only its owner may read.

    Parameters
    ----------
    path : Path
        The file.
    what : str
        What it is, for messages.

    Raises
    ------
    RecordError
        If it is missing, or open to group or others.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read()
    except OSError as error:
        raise RecordError(f"cannot read the {what} {path}: {error.strerror}") from error
    if mode & 0o077:
        raise RecordError(
            f"the {what} {path} is open to other users (mode {mode:03o}); "
            f"run: chmod 600 {shlex.quote(str(path))}"
        )
    return content


def read_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key that `write_key` wrote.

    Raises
    ------
    CertificateError
        If the file is missing, open to group or others, or not such a key.
    """
    return _decoded(read_private(path, "key"), path)


def read_or_create_key(path: Path) -> Ed25519PrivateKey:
    """Read the key at `path`; if there is none, generate one and write it there.

    Raises
    ------
    CertificateError
        As in `read_key`.
    """
    if not path.exists():
        # Another process may be faster: then its key is the one to use.
        with suppress(CertificateError):
            write_key(path, generate_key())
    return read_key(path)


def _decoded(pem: bytes, path: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(pem, password=None)
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(
            f"{path} is not an unencrypted private key in PEM form: {error}"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise CertificateError(f"the key {path} is not an Ed25519 key")
    return key
