"""Commitments, seeds, countersignatures, and the watch, as files and commands."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.conftest import Outcome, Run
from fedcert.bundles import Bundle
from fedcert.cache import state_folder
from fedcert.certificates import Certificate, GainPromise, RecipeTable
from fedcert.data import Examples
from fedcert.protocol import watching
from fedcert.scenarios import load_scenario


@dataclass
class Parties:
    """A server and a device with nothing but files between them."""

    run: Run
    folder: Path
    bundle: Path

    def server(self, command: str, *arguments: object) -> Outcome:
        return self.run("server", command, *arguments, "--state", self.folder / "server")

    def publish(self) -> str:
        """Publish the bundle; return the server's public key."""
        shown = self.server("publish", self.bundle)
        assert (shown.code, shown.err) == (0, "")
        return shown.out.splitlines()[1].removeprefix("server key: ")

    def device(self, command: str, data: Path, *arguments: object) -> Outcome:
        return self.run(
            *(command, data, "--bundle", self.bundle, "--key", self.folder / "device.key"),
            *arguments,
        )

    def commit(self, data: Path, *arguments: object) -> Path:
        path = self.folder / "commitment.json"
        shown = self.device("commit", data, "--client", "device", "-o", path, *arguments)
        assert (shown.code, shown.err) == (0, "")
        return path

    def issue(self, commitment: Path) -> Path:
        path = self.folder / "seed.json"
        shown = self.server("issue-seed", commitment, "--output", path)
        assert (shown.code, shown.err) == (0, "")
        return path

    def personalize(self, data: Path, seed: Path, *arguments: object) -> Outcome:
        output = self.folder / "device"
        return self.device(
            "personalize", data, "--client", "device", "-o", output, "--seed", seed, *arguments
        )

    @property
    def certificate(self) -> Path:
        return self.folder / "device" / "certificate.json"

    @property
    def log(self) -> Path:
        return self.folder / "server" / "log.jsonl"


@pytest.fixture
def parties(run: Run, tmp_path: Path, bundle: Path) -> Parties:
    return Parties(run, tmp_path, bundle)


def _mistake(shown: Outcome, text: str) -> None:
    assert (shown.code, shown.out) == (1, "")
    [line] = shown.err.splitlines()
    assert text in line


def _checks(shown: Outcome) -> dict[str, bool]:
    return {check["name"]: check["passed"] for check in json.loads(shown.out)["checks"]}


def test_from_commitment_to_countersignature(parties: Parties, data: Path, run: Run) -> None:
    server_key = parties.publish()
    seed = parties.issue(parties.commit(data))
    # The same examples in another file are the same examples.
    shown = parties.personalize(data.with_suffix(".npz"), seed, "--server-key", server_key)
    assert (shown.code, shown.err) == (0, "")
    assert "(delta 0.0495)" in shown.out
    witness = parties.folder / "witness.json"
    shown = parties.server(
        "countersign", parties.certificate, "--bundle", parties.bundle, "-o", witness
    )
    assert (shown.code, shown.err) == (0, "")
    shown = run(
        *("verify", parties.certificate, "--bundle", parties.bundle, "--data", data),
        *("--server-key", server_key, "--witness", witness, "--log", parties.log, "--json"),
        *("--opening", parties.folder / "device.state" / "openings" / "000000.json"),
    )
    assert (shown.code, shown.err) == (0, "")
    checks = _checks(shown)
    assert all(checks.values())
    told = {"witness", "server", "countersignature", "log", "logged", "log entry", "opening"}
    assert told <= set(checks)
    shown = run("server", "audit", parties.log, "--server-key", server_key)
    assert shown.code == 0
    digest = Certificate.read(parties.certificate).digest
    assert shown.out.splitlines()[0] == f"device, attempt 1 (first): {digest}"
    assert "1 seeds, 0 open; 0 of 1 bundles closed" in shown.out


def test_without_a_seed_the_certificate_is_unwitnessed_as_before(
    parties: Parties, data: Path, run: Run
) -> None:
    output = parties.folder / "device"
    shown = parties.device("personalize", data, "--client", "device", "-o", output)
    assert shown.code == 0
    certificate = Certificate.read(parties.certificate)
    assert certificate.protocol is None
    assert certificate.delta == 0.05
    shown = run("verify", parties.certificate, "--server-key", "00" * 32, "--json")
    assert shown.code == 1
    assert _checks(shown)["server"] is False
    shown = run("verify", parties.certificate, "--log", parties.log)
    _mistake(shown, "--log needs a witnessed certificate")
    # And what it has spent cannot be committed to.
    _mistake(
        parties.device("commit", data, "--client", "device"),
        "40 of the 40 examples are already spent on: an unwitnessed certificate",
    )


def test_key_and_ledger_do_not_follow_the_working_directory(
    parties: Parties, data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same file in two folders under two names is the same file."""
    own = tmp_path / "own state"
    monkeypatch.setenv("FEDCERT_STATE", str(own))
    words = ("personalize", data, "--bundle", parties.bundle, "--output", "device")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        shown = parties.run(*words, "--client", name)
        if name == "one":
            assert (shown.code, shown.err) == (0, "")
    _mistake(shown, "40 of the 40 examples are already spent on: an unwitnessed certificate")
    assert {path.name for path in own.iterdir()} == {"fedcert.key", "fedcert.state"}
    assert not list((tmp_path / "two").iterdir())
    # A key of before is neither passed over nor taken without a word.
    (own / "fedcert.key").rename(tmp_path / "two" / "fedcert.key")
    (own / "fedcert.state").rename(tmp_path / "two" / "fedcert.state")
    for command in ("personalize", "commit"):
        shown = parties.run(command, data, "--bundle", parties.bundle, "--client", "two",
                            *("--output", "x"))  # fmt: skip
        _mistake(shown, "go on with it by --key fedcert.key, or with the other by "
                 f"--key '{own}/fedcert.key', each with the ledger beside it")  # fmt: skip
    assert not (tmp_path / "two" / "x").exists()
    shown = parties.run(*words, "--client", "one", "--key", "fedcert.key")
    assert (shown.code, shown.err) == (0, "")


def test_where_nothing_is_said_state_goes_where_the_system_keeps_state(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("FEDCERT_STATE", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_folder() == tmp_path / "fedcert"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_folder() == tmp_path / ".local" / "state" / "fedcert"


@pytest.mark.parametrize("client", ["", " "])
def test_an_empty_client_spends_nothing(parties: Parties, data: Path, client: str) -> None:
    for command in ("commit", "personalize"):
        shown = parties.device(command, data, "--client", client, "-o", parties.folder / "x")
        _mistake(shown, "is no client id: give a stable name")
    parties.publish()
    _mistake(parties.server("enroll", client, "00" * 32), "is no client id")
    assert not (parties.folder / "x").exists()
    assert not (parties.folder / "device.state").exists()
    parties.issue(parties.commit(data))


def test_repeats_and_rows_that_cannot_be_read(
    parties: Parties, examples: Examples, run: Run
) -> None:
    images, labels = np.array(examples.inputs), [str(label) for label in examples.labels]
    images[4], labels[7] = np.nan, "purple"
    path = parties.folder / "rows.npz"
    names = np.array([{"0": "dark", "1": "bright"}.get(name, name) for name in labels])
    np.savez(path, input=images, label=names)
    output = parties.folder / "device"
    words = ("--client", "device", "-o", output)
    shown = parties.device("personalize", path, *words, "--json")
    assert shown.code == 0
    assert "2 of the 40 examples cannot be read, or have no label of the task" in shown.err
    assert "(row 5, row 8); each counts as an error. Leave them in" in shown.err
    assert Certificate.from_json(shown.out).errors >= 0
    shown = run("verify", parties.certificate, "--bundle", parties.bundle, "--data", path,
                "--json")  # fmt: skip
    assert shown.code == 0
    assert _checks(shown)["sample"] is True
    images[4] = images[5]
    np.savez(path, input=images, label=names)
    words = (
        "--client",
        "device",
        "-o",
        parties.folder / "again",
        "--state",
        parties.folder / "s",
    )
    shown = parties.device("personalize", path, *words)
    assert shown.code == 1
    assert "2 of the 40 support examples have an input that occurs more than once" in shown.err
    assert parties.device("personalize", path, *words, "--duplicates-are-real").code == 0


def test_the_state_is_private_and_lies_beside_the_key(parties: Parties, data: Path) -> None:
    parties.commit(data)
    state = parties.folder / "device.state"
    files = [path for path in state.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"secret", "spent.sqlite", "000000.json"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    (state / "secret").chmod(0o644)
    shown = parties.device("commit", data, "--client", "device")
    _mistake(shown, "is open to other users (mode 644); run: chmod 600")


def test_only_publishing_and_enrolling_make_a_server(
    parties: Parties, data: Path, run: Run
) -> None:
    """Another server than the one that was meant would count attempts anew."""
    parties.publish()
    commitment, other = parties.commit(data), parties.folder / "sever"
    for words in (
        ("issue-seed", commitment),
        ("abort", commitment, "--reason", "why not"),
        ("close", parties.bundle),
        ("accept", commitment, "--bundle", parties.bundle),
    ):
        _mistake(
            run("server", *words, "--state", other), "is no server's folder: it has no log"
        )
        assert not other.exists()
    assert run("server", "enroll", "device", "00" * 32, "--state", other).code == 0


def test_one_file_in_the_place_of_another(parties: Parties, data: Path) -> None:
    parties.publish()
    commitment = parties.commit(data)
    _mistake(
        parties.personalize(data, commitment),
        f"{commitment} is no seed: it says that its format is 'fedcert.commitment/1'",
    )
    seed = parties.issue(commitment)
    _mistake(
        parties.server("issue-seed", seed),
        f"{seed} is no commitment: it says that its format is 'fedcert.seed/1'",
    )


def test_a_retry_is_the_second_attempt(parties: Parties, data: Path, run: Run) -> None:
    server_key = parties.publish()
    first = parties.commit(data)
    parties.issue(first)
    shown = parties.server("abort", first, "--reason", "the battery died")
    assert shown.code == 0
    seed = parties.issue(parties.commit(data, "--retry"))
    shown = parties.personalize(data, seed, "--json")
    assert shown.code == 0
    receipt = Certificate.from_json(shown.out).protocol
    assert receipt is not None
    assert receipt.attempt == 2
    shown = run("server", "audit", parties.log, "--server-key", server_key, "--json")
    told = [(a["attempt"], a["relation"], a["outcome"], a["open"])
            for a in json.loads(shown.out)["attempts"]]  # fmt: skip
    assert told == [(1, "first", "the battery died", False), (2, "retry", None, True)]


def test_a_seed_for_other_examples_another_server_or_nobody(
    parties: Parties, data: Path, examples: Examples, tmp_path: Path
) -> None:
    parties.publish()
    seed = parties.issue(parties.commit(data))
    _mistake(
        parties.personalize(data, seed, "--server-key", "00" * 32), "you expect the server 0000"
    )
    fewer = tmp_path / "fewer.npz"
    np.savez(fewer, input=examples.inputs[1:], label=examples.labels[1:])
    _mistake(
        parties.personalize(fewer, seed),
        "39 examples do not fit the commitment to 40: all committed examples are used",
    )
    _mistake(
        parties.personalize(data, seed, "--state", tmp_path / "elsewhere"),
        "there is no commitment",
    )
    assert not parties.certificate.exists()
    changed = json.loads(seed.read_text())
    changed["seed"] = "00" * 32
    seed.write_text(json.dumps(changed))
    _mistake(parties.personalize(data, seed), "the seed is forged or damaged")
    _mistake(parties.personalize(data, tmp_path / "none.json"), "cannot read the seed")


def test_a_server_that_knows_its_clients(parties: Parties, data: Path, run: Run) -> None:
    parties.publish()
    commitment = parties.commit(data)
    shown = parties.server("issue-seed", commitment, "--no-enroll-new")
    _mistake(shown, "the client 'device' is not enrolled")
    shown = run("keys", "show", parties.folder / "device.key")
    assert parties.server("enroll", "device", shown.out.strip()).code == 0
    seed = parties.folder / "seed.json"
    shown = parties.server("issue-seed", commitment, "--no-enroll-new", "-o", seed)
    assert shown.code == 0
    assert "attempt 1 of device, delta 0.0495 of 0.05" in shown.out


def test_a_seed_is_told_with_the_delta_of_promises_too(
    parties: Parties, data: Path, tmp_path: Path
) -> None:
    bundle = Bundle.load(parties.bundle)
    recipe = replace(
        bundle.recipes.recipe_for(64), delta=0.025, promises=(GainPromise(share=1.0),)
    )
    replace(bundle, recipes=RecipeTable(((1, recipe),))).save(tmp_path / "promising")
    asked = replace(parties, bundle=tmp_path / "promising")
    asked.publish()
    shown = asked.server("issue-seed", asked.commit(data), "-o", tmp_path / "seed.json")
    assert "attempt 1 of device, delta 0.0495 of 0.05" in shown.out


def test_a_closed_bundle(parties: Parties, data: Path, run: Run) -> None:
    server_key = parties.publish()
    commitment = parties.commit(data)
    parties.issue(commitment)
    assert parties.server("close", parties.bundle).code == 0
    shown = run("server", "audit", parties.log, "--server-key", server_key)
    assert "device, attempt 1 (first): open" in shown.out
    assert "1 of 1 bundles closed, their seeds computed again" in shown.out
    shown = parties.server("issue-seed", parties.commit(data, "--retry"))
    _mistake(shown, "is closed: its nonce is public")


def test_an_edited_log_fails_the_audit(parties: Parties, data: Path, run: Run) -> None:
    server_key = parties.publish()
    parties.issue(parties.commit(data))
    parties.log.write_text(parties.log.read_text().replace('"attempt":1', '"attempt":2'))
    _mistake(run("server", "audit", parties.log, "--server-key", server_key), "was changed")


# The watch


@pytest.fixture
def watched(parties: Parties, data: Path) -> Any:
    """Certify, and return a call of `monitor` on newly labeled examples."""
    output = parties.folder / "device"
    assert parties.device("personalize", data, "--client", "device", "-o", output).code == 0

    class Monitor:
        def mistake(self, examples: Examples, *arguments: object, **columns: Any) -> Outcome:
            path = parties.folder / "new.npz"
            np.savez(path, input=examples.inputs, label=examples.labels, **columns)
            return parties.device(
                "monitor", path, "--certificate", parties.certificate, "--json", *arguments
            )

        def __call__(
            self, examples: Examples, *arguments: object, **columns: Any
        ) -> tuple[int, dict[str, Any]]:
            shown = self.mistake(examples, *arguments, **columns)
            assert shown.err == "", shown.err
            return shown.code, json.loads(shown.out)

    return Monitor()


def _drifted(count: int) -> Examples:
    """Draw examples of the device, with their labels exchanged."""
    drawn = load_scenario("tiny_scenario:Tiny", {})._draw("new", "device", count)  # type: ignore[attr-defined]
    return Examples(drawn.inputs, 1 - drawn.labels)


def test_the_watch_counts_each_observation_and_remembers(
    watched: Any, parties: Parties
) -> None:
    calm = load_scenario("tiny_scenario:Tiny", {}).test_examples("device")
    assert calm is not None
    code, first = watched(calm.take(slice(60)))
    assert (code, first["counted"], first["trials"]) == (0, 60, 60)
    shown = watched.mistake(calm.take(slice(50, 100)))
    _mistake(shown, "10 of the 50 examples have an input that occurs more than once here, or")
    code, again = watched(calm.take(slice(50, 100)), "--rows-are-new")
    assert (code, again["counted"], again["seen"], again["trials"]) == (0, 50, 0, 110)
    assert again["errors"] < 110 * again["bound"]
    assert again["bound_now"] <= first["bound_now"]
    signed = parties.certificate.parent / "spot-checks.json"
    shown = parties.run("verify", parties.certificate, "--spot-checks", signed, "--json")
    report = json.loads(shown.out)
    found = {check["name"]: check["passed"] for check in report["checks"]}
    assert {"spot checks", "drift test", "living bound"} <= set(found)
    assert all(found.values())
    # That the outcomes are true no check can show.
    assert "spot checks" in {left["name"] for left in report["unchecked"]}


def test_a_column_of_ids_lets_a_file_grow(watched: Any) -> None:
    calm = load_scenario("tiny_scenario:Tiny", {}).test_examples("device")
    assert calm is not None
    repeated = calm.take([0, 1, 0, 2, 0, 3])
    for rows, counted in ((4, 4), (6, 2), (6, 0)):
        given = {"row": [f"call {row}" for row in range(rows)]}
        code, found = watched(repeated.take(slice(rows)), "--id-column", "row", **given)
        assert (code, found["counted"], found["seen"]) == (0, counted, rows - counted)
    assert found["trials"] == 6
    _mistake(watched.mistake(calm, "--id-column", "row"), "no column 'row'; it has input")
    without = {"row": [f"call {row}" for row in range(5)] + [" "]}
    shown = watched.mistake(repeated, "--id-column", "row", **without)
    _mistake(shown, "'row' is empty in 1 of 6 rows (row 6, for instance)")


def test_errors_that_look_like_mistakes_count_where_one_says_so(
    watched: Any, parties: Parties
) -> None:
    """A file that is left out because of the errors in it leaves a sample of the others."""
    calm = load_scenario("tiny_scenario:Tiny", {}).test_examples("device")
    assert calm is not None
    path = parties.folder / "outside.npz"
    images = np.array(calm.inputs[:2])
    images[1] = np.nan
    asked = ("monitor", path, "--certificate", parties.certificate, "--json")
    for labels, inputs in (
        (["of no class", "nor this"], calm.inputs[:2]),
        (["17", "18"], calm.inputs[2:4]),
        ([0, 0], np.concatenate([images[1:], images[1:] + 1])),
    ):
        np.savez(path, input=inputs, label=np.array(labels))
        refused = parties.device(*asked)
        assert (refused.code, refused.out) == (1, "")
        assert "--outside-counts" in refused.err
        shown = parties.device(*asked, "--outside-counts", "--rows-are-new")
        assert json.loads(shown.out)["counted"] == 2
    assert json.loads(shown.out)["errors"] == 6
    # What nobody observed is no error: that is a mistake whatever is stated.
    np.savez(path, input=calm.inputs[4:6], label=np.array(["", ""]))
    shown = parties.device(*asked)
    assert shown.code == 1
    assert "has no label" in shown.err
    assert "--outside-counts" not in shown.err


def test_a_column_of_ids_is_no_pixel(watched: Any, parties: Parties) -> None:
    calm = load_scenario("tiny_scenario:Tiny", {}).test_examples("device")
    assert calm is not None
    path = parties.folder / "new.csv"
    pixels = calm.inputs.reshape(len(calm), -1)
    lines = [",".join(["when", *(f"p{at}" for at in range(pixels.shape[1])), "label"])]
    lines += [
        ",".join([str(row), *map(str, image), str(label)])
        for row, (image, label) in enumerate(zip(pixels, calm.labels, strict=True))
    ]
    path.write_text("\r\n".join(lines), encoding="utf-8")
    asked = ("monitor", path, "--certificate", parties.certificate, "--json")
    shown = parties.device(*asked, "--id-column", "when")
    assert (shown.code, shown.err) == (0, "")
    assert json.loads(shown.out)["counted"] == len(calm)


def test_the_watch_notices_drift_and_does_not_forget_it(watched: Any) -> None:
    code, drifted = watched(_drifted(60))
    assert code == 1
    assert drifted["alarm"] is True
    assert drifted["alarm_at"] <= 60
    assert drifted["bound_now"] is None
    calm = load_scenario("tiny_scenario:Tiny", {}).test_examples("device")
    code, later = watched(calm)
    assert (code, later["alarm_at"]) == (1, drifted["alarm_at"])


def test_the_watch_refuses_what_certified(watched: Any, examples: Examples) -> None:
    _mistake(
        watched.mistake(examples, "--rows-are-new"),
        "40 of the 40 examples have an input that is already spent on: an unwitnessed "
        "certificate",
    )


def test_a_watch_that_began_anew_does_not_write_over_an_alarm(
    watched: Any, parties: Parties
) -> None:
    assert watched(_drifted(60))[0] == 1
    signed = parties.certificate.parent / "spot-checks.json"
    kept = signed.read_bytes()
    calm = load_scenario("tiny_scenario:Tiny", {}).test_examples("device")
    assert calm is not None
    shown = watched.mistake(calm, "--state", parties.folder / "elsewhere.state")
    _mistake(shown, "has 60 spot checks of this certificate, which the state folder does not")
    assert signed.read_bytes() == kept


@pytest.mark.parametrize("alarmed", [False, True], ids=["calm", "alarmed"])
def test_a_watch_of_earlier_code_begins_anew_unless_it_gave_an_alarm(
    watched: Any, parties: Parties, alarmed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = load_scenario("tiny_scenario:Tiny", {}).test_examples("device")
    assert calm is not None
    purpose = f"monitoring {Certificate.read(parties.certificate).digest[:16]}"
    with monkeypatch.context() as earlier:
        earlier.setattr(watching, "_names", lambda _: (purpose, f"{purpose}, by observation"))
        assert watched(_drifted(60) if alarmed else calm.take(slice(60)))[0] == alarmed
    signed = parties.certificate.parent / "spot-checks.json"
    kept, later = signed.read_bytes(), calm.take(slice(60, 90))
    if alarmed:
        shown = watched.mistake(later, "--rows-are-new")
        _mistake(shown, "has an ALARM of a watch that would begin anew now")
        assert signed.read_bytes() == kept
        return
    code, found = watched(later, "--rows-are-new")
    assert (code, found["trials"], found["restarted"]) == (0, 30, True)
    code, found = watched(calm.take(slice(90, 100)), "--rows-are-new")
    assert (code, found["trials"], found["restarted"]) == (0, 40, False)


def test_the_level_of_a_watch_is_fixed_at_its_start(
    watched: Any, parties: Parties, data: Path
) -> None:
    watched(_drifted(3), "--alpha", 0.01)
    shown = parties.device(
        *("monitor", data, "--certificate", parties.certificate, "--alpha", 0.2),
    )
    _mistake(shown, "this watch began with alpha = 0.01")


def test_what_was_watched_cannot_certify(
    watched: Any, parties: Parties, tmp_path: Path
) -> None:
    new = _drifted(40)
    watched(new)
    path = tmp_path / "again.npz"
    np.savez(path, input=new.inputs, label=new.labels)
    shown = parties.device("commit", path, "--client", "device")
    _mistake(shown, "40 of the 40 examples are already spent on: monitoring")
