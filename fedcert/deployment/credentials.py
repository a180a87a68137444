"""Keys and certificates of a deployment: a CA, the server's certificate, and nodes' keys.

The same as with OpenSSL and ``ssh-keygen``, without either of them::

    python -m fedcert.deployment.credentials tls --host fl.example.org
    python -m fedcert.deployment.credentials node hospital-3
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedcert.atomic import write_atomically
from fedcert.errors import SettingsError

__all__ = ["TlsFiles", "make_node_key", "make_tls"]

_PRIVATE = 0o600
_LABEL = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_VALID = timedelta(days=365)
# A clock that is a little behind must not find a certificate from the future.
_SKEW = timedelta(hours=1)


@dataclass(frozen=True)
class TlsFiles:
    """Where the files of the server's TLS are.

    Attributes
    ----------
    ca : Path
        The CA's certificate: what nodes and users trust.
    certificate, key : Path
        The server's own, signed by the CA.
    """

    ca: Path
    certificate: Path
    key: Path


def make_tls(folder: Path, hosts: Sequence[str] = ("localhost", "127.0.0.1")) -> TlsFiles:
    """Make a CA and a server's certificate for some hosts; what is there is kept.

    The CA's key is left in ``ca.key``: keep it off the server in earnest.

    Parameters
    ----------
    folder : Path
        Gets ``ca.crt``, ``ca.key``, ``server.crt`` and ``server.key``.
    hosts : sequence of str
        Names and IP addresses under which the server is reached.

    Raises
    ------
    SettingsError
        If one of them is neither, or what is there is incomplete or for others.
    """
    for host in hosts:
        if not _is_host(host):
            raise SettingsError(f"{host!r} is neither a host's name nor an IP address")
    files = TlsFiles(folder / "ca.crt", folder / "server.crt", folder / "server.key")
    if files.key.is_file():
        _check_complete(files, hosts)
        return files
    ca_key, server_key = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    ca_name, server_name = _name("fedcert deployment CA"), _name(hosts[0])
    ca = (
        _builder(ca_name, ca_name, ca_key.public_key(), ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(ca_key, hashes.SHA384())
    )
    server = (
        _builder(server_name, ca_name, server_key.public_key(), ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([_alternative(h) for h in hosts]), critical=False
        )
        .sign(ca_key, hashes.SHA384())
    )
    pem = serialization.Encoding.PEM
    write_atomically(folder / "ca.key", _private_pem(ca_key), mode=_PRIVATE)
    write_atomically(files.ca, ca.public_bytes(pem))
    write_atomically(files.certificate, server.public_bytes(pem))
    # The last one: an interrupted run starts over.
    write_atomically(files.key, _private_pem(server_key), mode=_PRIVATE)
    return files


def _check_complete(files: TlsFiles, hosts: Sequence[str]) -> None:
    """Make sure that what is kept is all there, and for these hosts."""
    anew = f"move {files.key.parent} away and make all of them again"
    for path in (files.ca, files.certificate):
        if not path.is_file():
            raise SettingsError(
                f"{path} is missing beside {files.key.name}: put it back, or {anew}"
            )
    known = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    names = known.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if missing := [host for host in hosts if _alternative(host) not in [*names]]:
        raise SettingsError(
            f"{files.certificate} was made for other hosts, and not for {', '.join(missing)}; "
            f"{anew}: nodes then need the new {files.ca.name}"
        )


def make_node_key(path: Path) -> Path:
    """Make a node's key pair for Flower, as ``ssh-keygen -t ecdsa -b 384`` does.

    Parameters
    ----------
    path : Path
        Gets the private key, readable by its owner alone; a key that is there is kept.

    Returns
    -------
    Path
        The public key, beside it, to be registered with the server.
    """
    public = path.with_name(f"{path.name}.pub")
    if path.is_file():
        key = _private_key(path)
    elif public.is_file():
        raise SettingsError(
            f"{public} is there, and its private key {path} is not: put that back, or choose "
            "another name for a new pair"
        )
    else:
        key = ec.generate_private_key(ec.SECP384R1())
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
        write_atomically(path, private, mode=_PRIVATE)
    line = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    if not public.is_file():
        write_atomically(public, line + b"\n")
    return public


def _private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SettingsError(
            f"{path}: this is no private key of a node ({error}); choose another name"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SettingsError(
            f"{path}: this is a key of another kind than nodes have; choose another name"
        )
    return key


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False
        )
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _is_host(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return len(text) < 254 and bool(_HOST.fullmatch(text))
    return True


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
