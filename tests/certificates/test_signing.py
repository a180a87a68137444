"""Keys: kept from others, never overwritten, and signatures that mean something."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from fedcert.errors import CertificateError
from fedcert.records.signing import (
    generate_key,
    key_from_seed,
    public_hex,
    read_key,
    read_or_create_key,
    sign,
    verify,
    write_key,
)

from .conftest import ATTACKER, KEY


def test_the_first_test_vector_of_rfc_8032() -> None:
    seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
    key = key_from_seed(bytes.fromhex(seed))
    assert public_hex(key).startswith("d75a980182b10ab7d54bfed3c964073a")
    assert sign(key, b"").startswith("e5564300c360ac729086e2cc806e828a")


def test_only_the_signed_payload_verifies() -> None:
    signature = sign(KEY, b"claim")
    assert verify(public_hex(KEY), b"claim", signature)
    assert not verify(public_hex(KEY), b"Claim", signature)
    assert not verify(public_hex(ATTACKER), b"claim", signature)


@pytest.mark.parametrize("malformed", ["", "zz", "ab" * 31, "ab" * 65])
def test_malformed_keys_and_signatures_do_not_verify(malformed: str) -> None:
    assert not verify(malformed, b"claim", sign(KEY, b"claim"))
    assert not verify(public_hex(KEY), b"claim", malformed)


def test_generated_keys_differ() -> None:
    assert public_hex(generate_key()) != public_hex(generate_key())


def test_a_seed_of_another_length_is_refused() -> None:
    with pytest.raises(CertificateError, match="must be 32 bytes long, not 3"):
        key_from_seed(b"abc")


def test_a_key_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "client.pem"
    write_key(path, KEY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert public_hex(read_key(path)) == public_hex(KEY)
    assert list(path.parent.iterdir()) == [path]


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "client.pem"
    write_key(path, KEY)
    with pytest.raises(CertificateError, match="keys are never overwritten"):
        write_key(path, ATTACKER)
    assert public_hex(read_key(path)) == public_hex(KEY)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "my key.pem"
    write_key(path, KEY)
    path.chmod(mode)
    with pytest.raises(CertificateError) as caught:
        read_key(path)
    assert str(caught.value) == (
        f"the key {path} is open to other users (mode {mode:o}); run: chmod 600 '{path}'"
    )


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match=r"none\.pem: No such file"):
        read_key(tmp_path / "none.pem")


def test_other_files_are_not_keys(tmp_path: Path) -> None:
    path = tmp_path / "client.pem"
    path.touch(mode=0o600)
    other = X25519PrivateKey.generate()
    locked = BestAvailableEncryption(b"secret")
    for content, message in [
        (b"hello", "is not an unencrypted private key in PEM form"),
        (
            KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked),
            "is not an unencrypted private key in PEM form",
        ),
        (
            other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            "is not an Ed25519 key",
        ),
    ]:
        path.write_bytes(content)
        with pytest.raises(CertificateError, match=message):
            read_key(path)


def test_read_or_create_creates_once(tmp_path: Path) -> None:
    path = tmp_path / "client.pem"
    created = read_or_create_key(path)
    assert public_hex(read_or_create_key(path)) == public_hex(created)


def test_the_key_of_a_faster_process_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "client.pem"

    def slow_generate() -> object:
        write_key(path, KEY)
        return ATTACKER

    monkeypatch.setattr("fedcert.records.signing.generate_key", slow_generate)
    assert public_hex(read_or_create_key(path)) == public_hex(KEY)
