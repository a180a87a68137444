"""A device on its own: an archive in, a filed certificate out, and little in memory."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from faults.device_rig import (
    Parties,
    make_base,
    make_bundle,
    make_examples,
    write_csv,
)

from cli.conftest import Outcome, Run, tree
from fedcert.bundles import Bundle
from fedcert.certificates import Certificate
from fedcert.simulations.benchmarks.footprint import UNWANTED, personalize_in_a_process

PAGE = Path(__file__).resolve().parents[2] / "docs" / "devices.md"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Parties:
    return Parties.make(tmp_path_factory.mktemp("made"))


@pytest.fixture
def parties(made: Parties, tmp_path: Path) -> Parties:
    return Parties(Path(shutil.copytree(made.folder, tmp_path / "parties")))


def _mistake(shown: Outcome, text: str) -> None:
    assert (shown.code, shown.out) == (1, "")
    [line] = shown.err.splitlines()
    assert text in line


# The page


def _commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    text = "".join(blocks).replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip()]


def test_the_runbook_runs_as_written(
    run: Run, parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(parties.folder)
    write_csv(make_examples(seed=5), parties.folder / "other.csv")
    commands = _commands()
    assert len(commands) == 9
    known: dict[str, str] = {}
    for command in commands:
        for name, value in known.items():
            command = command.replace(name, value)  # noqa: PLW2901
        assert not re.search(r"[A-Z]{2,}_[A-Z]+", command), "it needs what nobody has printed"
        program, *words = shlex.split(command)
        assert program == "fedcert"
        shown = run(*words)
        assert (shown.code, shown.err) == (0, ""), command
        if found := re.search(r"^server key: (\w{64})$", shown.out, re.M):
            known["SERVER_KEY"] = found[1]
        if found := re.search(r"^bundle:  (\w{64})$", shown.out, re.M):
            known["BUNDLE_DIGEST"] = found[1]
    certificate = Certificate.read(Path("my-device/certificate.json"))
    assert certificate.protocol is not None
    assert Path(f"server/certificates/{certificate.digest}.json").is_file()
    assert Path(f"server/witnesses/{certificate.digest}.json").is_file()
    assert Certificate.read(Path("alone/certificate.json")).protocol is None


# Archives


def test_pack_and_unpack(run: Run, parties: Parties) -> None:
    archive, folder = parties.folder / "b.zip", parties.folder / "again"
    shown = run("bundle", "pack", parties.bundle, "-o", archive)
    assert (shown.code, shown.err) == (0, "")
    assert f"({archive.stat().st_size:,} bytes, sha256 " in shown.out
    sums = subprocess.run(["sha256sum", archive], capture_output=True, text=True, check=True)
    assert sums.stdout.split()[0] in shown.out
    assert f"bundle:  {Bundle.load(parties.bundle).digest}" in shown.out
    assert run("bundle", "unpack", archive, "-o", folder).code == 0
    assert tree(folder) == tree(parties.bundle)
    shown = run("prior", "inspect", archive, "--json")
    assert json.loads(shown.out)["bytes"] == archive.stat().st_size


def test_unpacking_replaces_a_bundle_and_nothing_else(run: Run, parties: Parties) -> None:
    archive, mine = parties.folder / "b.zip", parties.folder / "mine"
    assert run("bundle", "pack", parties.bundle, "-o", archive).code == 0
    mine.mkdir()
    (mine / "thesis.txt").write_text("three years")
    shown = run("bundle", "unpack", archive, "-o", mine)
    assert (shown.code, shown.out) == (1, "")
    assert "holds something that is no bundle, and nothing was written" in shown.err
    assert tree(mine) == {"thesis.txt": b"three years"}
    (mine / "thesis.txt").unlink()
    for _ in range(2):  # into an empty folder, and over a bundle
        assert run("bundle", "unpack", archive, "-o", mine).code == 0
        assert tree(mine) == tree(parties.bundle)
    shown = run("bundle", "pack", parties.bundle, "-o", mine)
    assert (shown.code, shown.out, shown.err) == (1, "", f"error: {mine}: Is a directory\n")


def test_a_damaged_bundle_is_not_packed(run: Run, parties: Parties) -> None:
    (parties.bundle / "bundle.sha256").unlink()
    shown = run("bundle", "pack", parties.bundle, "-o", parties.folder / "b.zip")
    _mistake(shown, "no bundle.sha256; this is not a bundle")
    assert not (parties.folder / "b.zip").exists()


# Handing in


@pytest.fixture
def certified(parties: Parties) -> Parties:
    parties.certify()
    return parties


def _submit(run: Run, parties: Parties, path: Path) -> Outcome:
    key = parties.folder / "device.key"
    return run("submit", parties.certificate, "--key", key, "-o", path)


def test_a_folder_of_submissions(run: Run, certified: Parties) -> None:
    inbox = certified.folder / "inbox"
    assert _submit(run, certified, inbox / "a.json").code == 0
    shutil.copy(inbox / "a.json", inbox / "b.json")
    (inbox / "c.json").write_text("{}")
    (inbox / ".d.json.part").write_text("half of a f")
    words = ("--bundle", certified.bundle, "--state", certified.server)
    shown = run("server", "accept", inbox, *words, "--json")
    assert (shown.code, shown.err) == (1, "")
    rows = json.loads(shown.out)
    assert [row["outcome"] for row in rows] == ["accepted", "accepted before", "refused"]
    assert rows[0]["witness"] == rows[1]["witness"]
    assert "is missing" in rows[2]["refused"]
    shown = run("server", "accept", inbox / "a.json", *words)
    assert shown.code == 0
    assert shown.out.startswith(f"accepted before: {inbox / 'a.json'}: {certified.server}")
    shown = run(
        *("verify", certified.certificate, "--bundle", certified.bundle),
        *("--witness", rows[0]["witness"], "--log", certified.server / "log.jsonl"),
    )
    assert shown.code == 0


def test_bundles_are_found_in_folders_and_runs(run: Run, certified: Parties) -> None:
    run_folder = certified.folder / "run"
    make_bundle(certified.base, seed=1).save(run_folder / "bundles" / "0001")
    shutil.copytree(certified.bundle, run_folder / "bundles" / "0002")
    (run_folder / "bundles" / ".0003.half").mkdir()
    path = certified.folder / "submission.json"
    assert _submit(run, certified, path).code == 0
    state = ("--state", certified.server)
    shown = run("server", "accept", path, "--bundle", run_folder / "bundles" / "0001", *state)
    assert shown.code == 1
    assert "is not among those at hand; give it with --bundle" in shown.out
    for place in (run_folder, run_folder / "bundles"):
        assert run("server", "accept", path, "--bundle", place, *state).code == 0


def test_a_certificate_of_somebody_else_is_not_handed_in(run: Run, certified: Parties) -> None:
    thief = certified.folder / "thief.key"
    assert run("keys", "create", thief).code == 0
    shown = run("submit", certified.certificate, "--key", thief)
    _mistake(shown, "was signed with another key than yours")
    shown = run("submit", certified.certificate, "--key", certified.folder / "none.key")
    _mistake(shown, "cannot read the key")


# Footprint


@pytest.mark.parametrize("words", [["--help"], ["personalize", "--help"], ["submit", "--help"]])
def test_help_needs_no_heavy_library(words: list[str]) -> None:
    heavy = {"torch", "transformers", "scipy", *UNWANTED}
    code = (
        f"import sys; sys.argv = ['fedcert', *{words!r}]\n"
        "from fedcert.cli import main\n"
        f"try:\n    main()\nfinally:\n    print(sorted({heavy!r} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Parties:
    """A federation whose candidates are long: a chunk of them takes 70 MB, several times."""
    parties = Parties(tmp_path_factory.mktemp("wide"))
    make_base(parties.base, hidden=64)
    make_bundle(parties.base, rank=64, candidates=2048).save(parties.bundle)
    write_csv(make_examples(), parties.data)
    return parties


def test_personalizing_keeps_to_its_memory(wide: Parties, tmp_path: Path) -> None:
    archive = tmp_path / "bundle.zip"
    Bundle.load(wide.bundle).pack(archive)
    free = personalize_in_a_process(
        tmp_path / "free", data=wide.data, bundle=wide.bundle, base=wide.base
    )
    budget = round(free["after_imports_mib"]) + 170
    held = personalize_in_a_process(
        tmp_path / "held", "--memory", budget, data=wide.data, bundle=archive, base=wide.base
    )
    assert free["status"] == held["status"] == 0, (free["error"], held["error"])
    assert held["peak_rss_mib"] < budget < free["peak_rss_mib"]
    # The budget changes what is in memory at once, not what comes out.
    first, second = (
        Certificate.read(tmp_path / name / "out" / "certificate.json")
        for name in ("free", "held")
    )
    assert first.candidate == second.candidate
    assert (first.errors, first.bound) == (second.errors, second.bound)
    # Neither Flower nor Ray nor anything else that a device can do without.
    assert free["unwanted"] == held["unwanted"] == []


def test_too_small_a_budget_is_refused_before_anything_is_spent(
    run: Run, parties: Parties
) -> None:
    shown = run(
        *("personalize", parties.data, "--bundle", parties.bundle, "--client", "device"),
        *("--key", parties.folder / "device.key", "-o", parties.output, "--memory", 50),
    )
    _mistake(shown, "a budget of 50 MiB is too small: libraries, bundle and base model take")
    assert re.search(r"give --memory \d+ or more", shown.err)
    assert parties.spent() == 0
    assert not parties.output.exists()
