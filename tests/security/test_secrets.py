"""Secrets stay where they are: in no output, log, error, or file that leaves a machine."""

from __future__ import annotations

import base64
import json
import logging
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from faults.device_rig import Parties, fedcert

from fedcert.errors import FedcertError
from fedcert.protocol.authority import SeedAuthority
from fedcert.protocol.commitment import Opening
from fedcert.protocol.device import DeviceState
from fedcert.records.signing import read_key

SECRET = ("device.key", "device.state", "server.key", "nonces")
"""Files and folders that stay where they are; everything else may be published or sent."""


def _spellings(secret: bytes) -> Iterator[bytes]:
    """Yield the ways in which bytes could have been written down."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    yield str(list(secret)).encode()
    yield repr(secret).encode()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for shift in range(3):  # where it stands in a longer text
            yield encode(bytes(shift) + secret)[4 * bool(shift) + shift : -4].rstrip(b"=")


def _secrets(parties: Parties) -> dict[str, bytes]:
    """Return all that must not leave the device or the server, as bytes."""
    secrets = {}
    for name, key in {
        "the device's key": parties.key(),
        "the server's key": read_key(parties.server / "server.key"),
    }.items():
        secrets[name] = key.private_bytes_raw()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        secrets[f"{name} as PEM"] = pem.splitlines()[1]
    secrets["the device's secret"] = bytes.fromhex((parties.state / "secret").read_text())
    [nonce] = (parties.server / "nonces").iterdir()
    secrets["the nonce"] = bytes.fromhex(nonce.read_text())
    [opening] = (parties.state / "openings").iterdir()
    for row, salt in enumerate(Opening.read(opening).salts):
        secrets[f"salt {row}"] = salt
    return secrets


def _leaks(content: bytes, secrets: dict[str, bytes]) -> list[str]:
    return [
        name
        for name, secret in secrets.items()
        if any(spelling in content for spelling in _spellings(secret))
    ]


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> tuple[Parties, str]:
    """Go all the way, mistakes included, with everything logged that anybody logs."""
    parties = Parties.make(tmp_path_factory.mktemp("secrets"))
    log = tmp_path_factory.mktemp("logs") / "everything.log"
    handler = logging.FileHandler(log)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    said: list[str | None] = []
    try:
        parties.certify()
        folder = parties.folder
        submission, witness = folder / "submission.json", folder / "witness.json"
        key = ("--key", folder / "device.key")
        state = ("--state", parties.server)
        said += [
            fedcert("submit", parties.certificate, *key, "-o", submission),
            fedcert("server", "accept", submission, "--bundle", parties.bundle, *state),
            fedcert(
                *("server", "countersign", parties.certificate, "--bundle", parties.bundle),
                *(*state, "-o", witness),
            ),
        ]
        assert said == [None, None, None]
        said += [
            parties.commit("--retry", data=parties.base / "config.json"),
            parties.personalize(),
            parties.personalize("--seed", folder / "commitment.json"),
            fedcert("server", "abort", folder / "commitment.json", "--reason", "x", *state),
        ]
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()
    return parties, log.read_text() + "\n".join(str(line) for line in said)


def test_the_search_finds_every_spelling() -> None:
    secret = bytes(range(32))
    pem = base64.b64encode(b"prefix--" + secret + b"suffix")
    for text in (
        secret,
        secret.hex().encode(),
        base64.b64encode(secret),
        pem,
        repr(secret).encode(),
    ):
        assert _leaks(b"x" + text + b"y", {"it": secret}) == ["it"]
    assert _leaks(bytes(reversed(secret)), {"it": secret}) == []


def test_no_secret_is_in_any_log_or_error(
    used: tuple[Parties, str], capfd: pytest.CaptureFixture[str]
) -> None:
    parties, said = used
    assert "already spent" in said
    assert "root " in said  # what commands print is in there too
    assert "has a certificate: it was not aborted" in said
    secrets = _secrets(parties)
    assert len(secrets) == 6 + 24
    assert _leaks(said.encode(), secrets) == []


def test_no_secret_is_in_what_is_published_or_sent(used: tuple[Parties, str]) -> None:
    parties, _ = used
    secrets = _secrets(parties)
    public = [
        path
        for path in parties.folder.rglob("*")
        if path.is_file() and not set(path.relative_to(parties.folder).parts) & set(SECRET)
    ]
    names = {path.name for path in public}
    assert {
        "log.jsonl",
        "log.jsonl.head",
        "commitment.json",
        "seed.json",
        "certificate.json",
        "certificate.html",
        "submission.json",
        "witness.json",
    } <= names
    leaks = {path.name: _leaks(path.read_bytes(), secrets) for path in public}
    assert {name: found for name, found in leaks.items() if found} == {}


def test_no_example_is_in_what_is_sent(used: tuple[Parties, str]) -> None:
    parties, said = used
    rows = parties.data.read_text().splitlines()[1:]
    numbers = {value for row in rows for value in row.split(",")[:-1] if len(value) > 8}
    assert len(numbers) > 200
    for name in ("commitment.json", "submission.json", "seed.json", "server/log.jsonl"):
        text = (parties.folder / name).read_text()
        assert not {number for number in numbers if number in text}
    assert not {number for number in numbers if number in said}


def test_secrets_are_for_their_owner_alone(used: tuple[Parties, str]) -> None:
    parties, _ = used
    kept = [
        parties.folder / "device.key",
        parties.server / "server.key",
        *(parties.server / "nonces").iterdir(),
        *(path for path in parties.state.rglob("*") if path.is_file()),
    ]
    assert len(kept) >= 6
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}


@pytest.mark.parametrize("damage", ["cut", "open"])
def test_an_error_about_a_secret_does_not_quote_it(
    used: tuple[Parties, str], tmp_path: Path, damage: str
) -> None:
    parties, _ = used
    secrets = _secrets(parties)
    state = tmp_path / "state"
    for name in ("secret", "server.key"):
        source = (parties.state if name == "secret" else parties.server) / name
        state.mkdir(exist_ok=True)
        copy = state / name
        content = source.read_bytes()
        copy.write_bytes(content[:-3] if damage == "cut" else content)
        copy.chmod(0o600 if damage == "cut" else 0o644)
        with pytest.raises(FedcertError) as caught:
            DeviceState(state) if name == "secret" else SeedAuthority(state)
        text = f"{caught.value!r} {caught.value.__cause__!r}"
        assert _leaks(text.encode(), secrets) == []
        assert json.dumps(content.decode())[1:30] not in text


def test_nothing_with_a_secret_shows_it(used: tuple[Parties, str]) -> None:
    """What a debugger or a careless log line would print."""
    parties, _ = used
    secrets = _secrets(parties)
    things = [SeedAuthority(parties.server), DeviceState(parties.state), parties.key()]
    state = DeviceState(parties.state)
    shown = " ".join([*map(repr, things), *map(str, things), repr(state.spent)])
    assert _leaks(shown.encode(), secrets) == []
