"""Where commands write: over nothing that they read, and nothing that somebody else made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fedcert.errors import FedcertError, SettingsError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["check_certificate_folder", "check_output"]


def check_output(
    output: Path,
    *read: Path | None,
    kind: str = "",
    reads: Callable[[Path], object] | None = None,
) -> None:
    """Refuse to write over what a command reads, or over something of another kind.

    Call it before anything is spent.

    Parameters
    ----------
    output : Path
        Where the command is about to write.
    *read : Path or None
        What it reads.
    kind : str (default: "")
        What it writes, as in ``"a commitment"``.
    reads : callable, optional
        Reads such a file; raises `FedcertError` or ValueError if it is none.

    Raises
    ------
    SettingsError
        If one of these would be lost.
    """
    if not output.exists():
        return
    if any(path is not None and path.exists() and path.samefile(output) for path in read):
        raise SettingsError(f"--output {output} is what is read here; choose another name")
    if reads is None:
        return
    try:
        reads(output)
    except (FedcertError, ValueError, OSError):
        raise SettingsError(
            f"--output {output} is there already, and is not {kind}; choose another name, or "
            "move it away"
        ) from None


def check_certificate_folder(folder: Path, *, client: str, key: Ed25519PrivateKey) -> None:
    """Refuse to write over the certificate of another client, or of another signer.

    Parameters
    ----------
    folder : Path
        Where a certificate is about to be written.
    client : str
        Whose it will be.
    key : Ed25519PrivateKey
        Who will sign it.

    Raises
    ------
    SettingsError
        If the folder has one.
    """
    from fedcert.certificates import Certificate
    from fedcert.records.signing import public_hex

    try:
        there = Certificate.read(folder / "certificate.json")
    except FedcertError:
        return
    if (there.client, there.signature.public_key) != (client, public_hex(key)):
        raise SettingsError(
            f"{folder} has a certificate of the client {there.client!r} under the key "
            f"{there.signature.public_key[:12]}, and this one is of {client!r} under "
            f"{public_hex(key)[:12]}; choose another folder"
        )
