"""What earlier versions wrote, read by this one: every format is a contract.

`make.py` made the artefacts. They are never made again: if a test here fails, the code has
to be mended, or read the old format beside a new one. All goes through the command line, so
that only a change of what users have can make a test fail.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from simulations.federation import IMPORTABLE

from fedcert.cli import main

BLESSINGS = sorted(path.parent for path in Path(__file__).parent.glob("*/manifest.json"))
RECIPES = ("union", "split", "hybrid", "posterior_split", "weighted_union", "mixed_union")
# Chains of a refinement repeat only where arithmetic rounds alike.
ROUNDED = {"posterior_split": {"choice"}}

assert IMPORTABLE.is_dir()  # imported so that the scenario of the run is found


@dataclass
class Shown:
    """Exit status, and what was printed."""

    code: int
    out: str
    err: str


Run = Callable[..., Shown]


@pytest.fixture(params=BLESSINGS, ids=lambda folder: folder.name)
def blessed(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def manifest(blessed: Path) -> dict[str, Any]:
    return json.loads((blessed / "manifest.json").read_text())


@pytest.fixture
def copy(blessed: Path, tmp_path: Path) -> Path:
    """Everything in a folder where a command may write; secrets as private as they were."""
    copied = Path(shutil.copytree(blessed, tmp_path / "copy", symlinks=True))
    for path in copied.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o700 if path.is_dir() else 0o600)
    return copied


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    def command(*words: object) -> Shown:
        monkeypatch.setattr(sys, "argv", ["fedcert", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capfd.readouterr()
        code = ended.value.code
        return Shown(code if isinstance(code, int) else 0, printed.out, printed.err)

    return command


def _tells(shown: Shown) -> Any:
    assert (shown.code, shown.err) == (0, ""), shown.err or shown.out
    return json.loads(shown.out)


def _failed(shown: Shown, recipe: str) -> set[str]:
    """Return the checks that failed, of the kinds that were made."""
    assert shown.err == ""
    checks = json.loads(shown.out)["checks"]
    # What is refined is no candidate: with the data it is made again.
    drawn = "choice" if recipe == "posterior_split" else "candidate"
    assert {"bound", "signature", "adapter", drawn, "error count"} <= {
        check["name"] for check in checks
    }
    return {check["name"] for check in checks if not check["passed"]}


def test_nothing_was_made_again(blessed: Path, manifest: dict[str, Any]) -> None:
    """What an earlier version wrote tells nothing any more once a later one wrote it over."""
    found = {
        str(path.relative_to(blessed)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in blessed.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    assert found == manifest["files"]
    assert BLESSINGS


# What a device downloads


def test_bundles(blessed: Path, run: Run, tmp_path: Path) -> None:
    digests = {}
    for name in ("gaussian", "diffusion", "diffusion.zip", "run/bundle"):
        facts = _tells(run("prior", "inspect", blessed / name, "--json"))
        digests[name] = facts["bundle digest"]
        assert facts["prior"].startswith("gaussian" if name == "gaussian" else "diffusion")
        assert len(facts["recipes"]) == (2 if name == "run/bundle" else len(RECIPES))
    assert digests["diffusion"] == digests["diffusion.zip"]
    shown = run("bundle", "unpack", blessed / "diffusion.zip", "--output", tmp_path / "folder")
    assert digests["diffusion"] in shown.out
    repacked = tmp_path / "again.zip"
    shown = run("bundle", "pack", tmp_path / "folder", "--output", repacked)
    assert digests["diffusion"] in shown.out


def test_a_plan(blessed: Path, run: Run) -> None:
    expected = _tells(run("plan", "--bundle", blessed / "run/bundle", "--n", 32, "--json"))
    assert expected["n"] == 32
    assert 0 < expected["low"] <= expected["mean"] <= expected["high"] <= 1


# What a device leaves with


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_certificate_without_a_server(blessed: Path, run: Run, recipe: str) -> None:
    shown = run(
        *("verify", blessed / "unwitnessed" / recipe / "certificate.json", "--json"),
        *("--bundle", blessed / "gaussian", "--data", blessed / "data" / f"{recipe}.npz"),
        *("--base-model", blessed / "run/base-model"),
    )
    assert _failed(shown, recipe) <= ROUNDED.get(recipe, set())


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_witnessed_certificate(
    blessed: Path, manifest: dict[str, Any], run: Run, recipe: str
) -> None:
    """With all that a verifier can have: bundle, adapter, data, base model, salts, server."""
    folder, told = blessed / "witnessed" / recipe, ()
    if recipe != manifest["pending"]:
        told = ("--witness", folder / "witness.json", "--log", blessed / "server/log.jsonl")
    shown = run(
        *("verify", folder / "certificate.json", "--json", *told),
        *("--bundle", blessed / "diffusion.zip", "--data", blessed / "data" / f"{recipe}.npz"),
        *("--opening", blessed / "devices" / f"{recipe}.state/openings/000000.json"),
        *("--base-model", blessed / "run/base-model", "--server-key", manifest["server_key"]),
    )
    assert _failed(shown, recipe) <= ROUNDED.get(recipe, set())
    names = {check["name"] for check in json.loads(shown.out)["checks"]}
    assert {"server", "opening"} <= names
    assert ({"countersignature", "log", "logged", "log entry"} <= names) == bool(told)


def test_a_changed_certificate_does_not_verify(copy: Path, run: Run) -> None:
    """Otherwise the above would hold for a command that says yes to everything."""
    path = copy / "unwitnessed" / "union" / "certificate.json"
    content = json.loads(path.read_text())
    content["bound"] /= 2
    path.write_text(json.dumps(content))
    assert run("verify", path, "--bundle", copy / "gaussian").code == 1


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_adapter_loads_with_stock_peft(blessed: Path, recipe: str) -> None:
    import torch
    from peft import PeftModel
    from transformers import ViTForImageClassification

    base = ViTForImageClassification.from_pretrained(blessed / "run/base-model")
    adapted = PeftModel.from_pretrained(base, str(blessed / "witnessed" / recipe / "adapter"))
    images = torch.linspace(0, 1, 64).reshape(4, 1, 4, 4)
    with torch.no_grad():
        logits = adapted(pixel_values=images).logits
        with adapted.disable_adapter():
            assert not torch.equal(adapted(pixel_values=images).logits, logits)


# Between device and server


def test_a_device_commits_as_it_did(
    copy: Path, blessed: Path, run: Run, tmp_path: Path
) -> None:
    """Key, secret, ledger, and salts are read: the same examples give the same commitment."""
    output = tmp_path / "again.json"
    shown = run(
        *("commit", blessed / "data" / "union.npz", "--bundle", blessed / "diffusion"),
        *("--client=union", "--key", copy / "devices" / "union.key", "--output", output),
    )
    assert (shown.code, shown.err) == (0, "")
    committed = blessed / "witnessed" / "union" / "commitment.json"
    assert json.loads(output.read_text()) == json.loads(committed.read_text())


def test_spent_examples_stay_spent(copy: Path, run: Run, tmp_path: Path) -> None:
    words = ("--bundle", copy / "diffusion", "--key", copy / "devices/union.key")
    later = copy / "data" / "later.npz"
    shown = run("commit", later, *words, "--client", "union", "-o", tmp_path / "c.json")
    assert (shown.code, shown.out) == (1, "")
    assert "already spent on: monitoring" in shown.err


def test_a_watch_of_distinct_inputs_begins_anew(copy: Path, run: Run) -> None:
    """It counted each input once: its wealth is not that of a sample, and cannot go on."""
    words = (
        *("monitor", copy / "data" / "later.npz", "--json", "--bundle", copy / "diffusion"),
        *("--certificate", copy / "witnessed/union/certificate.json"),
        *("--base-model", copy / "run/base-model", "--key", copy / "devices/union.key"),
    )
    shown = run(*words)
    assert (shown.code, shown.out) == (1, "")
    assert "100 of the 100 examples have an input that" in shown.err
    state = json.loads(run(*words, "--rows-are-new").out)
    assert (state["counted"], state["trials"], state["restarted"]) == (100, 100, True)


def test_the_logs(blessed: Path, manifest: dict[str, Any], run: Run) -> None:
    def audited(name: str) -> dict[str, dict[str, Any]]:
        words = ("--server-key", manifest["server_key"], "--json")
        told = _tells(run("server", "audit", blessed / name / "log.jsonl", *words))
        return {attempt["client"]: attempt for attempt in told["attempts"]}

    pending = manifest["pending"]
    left_open = {client for client, row in audited("server").items() if row["open"]}
    closed = audited("closed")
    assert left_open == {pending}
    assert set(closed) == set(RECIPES)
    assert not any(row["open"] for row in closed.values())
    assert closed[pending]["outcome"] == "lost"
    shown = run(
        *("server", "audit", blessed / "closed" / "log.jsonl"),
        *("--server-key", manifest["server_key"]),
    )
    assert "1 of 1 bundles closed, their seeds computed again" in shown.out


def test_the_server_goes_on(
    copy: Path, blessed: Path, manifest: dict[str, Any], run: Run, tmp_path: Path
) -> None:
    """The same commitment gets the same seed; what is pending is handed in and accepted."""
    folder, state = copy / "witnessed" / manifest["pending"], ("--state", copy / "server")
    seed = tmp_path / "seed.json"
    shown = run("server", "issue-seed", folder / "commitment.json", *state, "--output", seed)
    assert (shown.code, shown.err) == (0, "")
    assert json.loads(seed.read_text()) == json.loads((folder / "seed.json").read_text())
    accepting = ("--bundle", blessed / "diffusion", *state, "--json")
    [first] = _tells(run("server", "accept", folder / "submission.json", *accepting))
    assert first["outcome"] == "accepted"
    key, again = copy / "devices" / f"{manifest['pending']}.key", tmp_path / "again.json"
    shown = run("submit", folder / "certificate.json", "--key", key, "--output", again)
    assert (shown.code, shown.err) == (0, "")
    [second] = _tells(run("server", "accept", again, *accepting))
    assert second["outcome"] == "accepted before"
    shown = run(
        *("verify", folder / "certificate.json", "--bundle", blessed / "diffusion"),
        *("--witness", second["witness"], "--log", copy / "server" / "log.jsonl"),
    )
    assert (shown.code, shown.err) == (0, "")


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_submission(copy: Path, manifest: dict[str, Any], run: Run, recipe: str) -> None:
    [row] = _tells(
        run(
            *("server", "accept", copy / "witnessed" / recipe / "submission.json", "--json"),
            *("--bundle", copy / "diffusion", "--state", copy / "server"),
        )
    )
    before = "" if recipe == manifest["pending"] else " before"
    assert row["outcome"] == f"accepted{before}"


# What a run leaves


@pytest.mark.parametrize("client", ["tiny-14", "tiny-15"])
def test_the_certificates_of_a_run(blessed: Path, run: Run, client: str) -> None:
    folder = blessed / "run"
    shown = run(
        *("verify", folder / "clients" / client / "certificate.json", "--bundle", folder),
        *("--witness", folder / "witnesses" / f"{client}.json"),
        *("--log", folder / "protocol" / "log.jsonl"),
    )
    assert (shown.code, shown.err) == (0, "")


def test_a_run_is_told_about(blessed: Path, copy: Path, run: Run) -> None:
    status = _tells(run("status", blessed / "run", "--json"))
    assert (status["state"], status["certificates"]) == ("finished", 2)
    shown = run("report", copy / "run")
    assert (shown.code, shown.err) == (0, "")
    assert (copy / "run" / "report.html").is_file()


def test_a_run_goes_on(
    copy: Path, blessed: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its settings, pool, bundle, and log are read; nothing is done or made a second time."""
    base = copy / "cache" / "base-models" / "tiny"
    shutil.copytree(blessed / "run" / "base-model", base)
    monkeypatch.setenv("FEDCERT_CACHE", str(copy / "cache"))
    folder = copy / "run"
    shown = run(
        *("simulate", "--settings", folder / "settings.toml", "--output", folder),
        *("--runner=inprocess", "--json"),
    )
    assert _tells(shown)["new_clients"] == 2
    kept = ("pool/adapters", "bundles", "certificates", "witnesses", "protocol")
    for path in [path for name in kept for path in (blessed / "run" / name).rglob("*")]:
        again = folder / path.relative_to(blessed / "run")
        assert path.is_dir() or again.read_bytes() == path.read_bytes(), again


def test_the_pool(copy: Path) -> None:
    """All adapters are whole and in the bundle's space; the same upload is no new one."""
    from fedcert.bundles import Bundle
    from fedcert.pool import Pool

    pool = Pool(copy / "run" / "pool", Bundle.load(copy / "run" / "bundle").space)
    assert len(pool.entries()) == len(pool.matrix()) == 12
    assert len(pool.planners()) == 2


def test_what_a_client_has_released(blessed: Path) -> None:
    from fedcert.privacy.ledger import Release, ReleaseLedger

    ledger = ReleaseLedger(blessed / "ledger.json")
    assert ledger.releases == (Release("an upload", 0.5),)
