"""What `fedcert verify` did not check: nothing is silent, in words and in JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from faults.device_rig import make_base, make_bundle

from cli.conftest import Outcome, Run
from cli.test_protocol import Parties
from fedcert.certificates import Certificate


@pytest.fixture
def certified(run: Run, tmp_path: Path, bundle: Path, data: Path) -> tuple[Parties, str]:
    """A witnessed certificate with all that a server and a client can hand out."""
    parties = Parties(run, tmp_path, bundle)
    server_key = parties.publish()
    seed = parties.issue(parties.commit(data))
    assert parties.personalize(data, seed).code == 0
    witness = tmp_path / "witness.json"
    shown = parties.server("countersign", parties.certificate, "-b", bundle, "-o", witness)
    assert shown.code == 0
    return parties, server_key


def _open(shown: Outcome) -> dict[str, Any]:
    report = json.loads(shown.out)
    assert (shown.code, report["passed"]) == (0, True)
    return {item["name"]: item["option"] for item in report["unchecked"]}


def test_each_option_closes_what_it_names(
    certified: tuple[Parties, str], run: Run, data: Path
) -> None:
    parties, server_key = certified
    signer = Certificate.read(parties.certificate).signature.public_key
    given = {
        "bundle": ("--bundle", parties.bundle),
        "data": ("--data", data),
        "public-key": ("--public-key", signer),
        "server-key": ("--server-key", server_key),
        "witness": ("--witness", parties.folder / "witness.json"),
        "log": ("--log", parties.log),
        "opening": ("--opening", parties.folder / "device.state" / "openings" / "000000.json"),
    }
    words: list[object] = ["verify", parties.certificate, "--json"]
    left = _open(run(*words))
    assert set(left) - {"choice"} == {*given, "adapter"}
    for name, option in given.items():
        if name == "server-key":
            assert server_key in run("verify", parties.certificate).out.replace("\n", "")
        assert left[name].startswith(option[0])
        words += option
        left = _open(run(*words))
        assert name not in left
    assert left == {"seeds": "--log, after the server has closed the bundle"}
    assert parties.server("close", parties.bundle).code == 0
    assert _open(run(*words)) == {}
    shown = run(*words[:2], *words[3:])
    assert "not checked" not in shown.out


def test_the_list_is_in_the_text_too(certified: tuple[Parties, str], run: Run) -> None:
    parties, _ = certified
    shown = run("verify", parties.certificate, "--log", parties.log)
    text = " ".join(shown.out.split())
    for name in ("bundle", "adapter", "data", "opening", "public-key", "server-key", "witness"):
        assert f"not checked: {name}: whether" in text
    assert "not checked: seeds: whether the server chose the seed: the bundle is still" in text
    assert "seeds of 1 open bundles cannot be computed again yet" in text


def test_another_federations_bundle(
    certified: tuple[Parties, str], run: Run, data: Path, tmp_path: Path
) -> None:
    parties, _ = certified
    make_base(tmp_path / "other-base")
    make_bundle(tmp_path / "other-base", rank=3).save(tmp_path / "other")
    for words in (
        ("verify", parties.certificate, "--data", data),
        ("monitor", data, "--certificate", parties.certificate),
    ):
        shown = run(*words, "--bundle", tmp_path / "other", "--json")
        assert shown.code == 1
        report = json.loads(shown.out)
        failed = {check["name"] for check in report["checks"] if not check["passed"]}
        assert report["passed"] is False
        assert {"bundle", "adapter"} <= failed
        shown = run(*words, "--bundle", tmp_path / "other")
        assert shown.code == 1
        assert "FAILED bundle" in " ".join(shown.out.split())
