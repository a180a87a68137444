"""Every command on good input."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest
from simulations.federation import CLIENTS, IMPORTABLE, SCENARIO

from cli.conftest import Run, tree
from fedcert import __version__
from fedcert.bundles import Bundle
from fedcert.certificates import Certificate
from fedcert.records.signing import public_hex, read_key
from fedcert.settings import RunSettings
from fedcert.simulations.simulating import Simulation

COMMANDS = [
    [],
    ["simulate"],
    ["personalize"],
    ["verify"],
    ["report"],
    ["prior"],
    ["prior", "inspect"],
    ["prior", "profile"],
    ["keys"],
    ["keys", "create"],
    ["keys", "show"],
]

TINY = [
    SCENARIO,
    "--runner=inprocess",
    "--set=adapter.rank=2",
    "--set=training.steps=10",
    "--set=prior.kind=gaussian",
    "--set=certificate.candidates=50",
    "--set=certificate.support-size=32",
    "--set=server.min-pool=10",
    "--set=evaluation.baselines=false",
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_of_every_command(run: Run, command: list[str]) -> None:
    shown = run(*command, "--help")
    assert shown.code == 0
    assert shown.err == ""
    assert f"Usage: fedcert {' '.join(command)}".strip() in shown.out
    assert len(shown.out.splitlines()) > 5


def test_the_version(run: Run) -> None:
    shown = run("--version")
    assert (shown.code, shown.out, shown.err) == (0, f"fedcert {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["simulate", "--no-such-option"],
        ["personalize"],
        ["verify"],
        ["keys", "create"],
        ["simulate", "a", "b"],
    ],
    ids=" ".join,
)
def test_a_mistake_in_the_call(run: Run, arguments: list[str]) -> None:
    shown = run(*arguments)
    assert shown.code == 2
    assert shown.out == ""
    assert "Usage: fedcert" in shown.err
    assert "Traceback" not in shown.err


# simulate


def test_simulate_prints_json_and_nothing_else(run: Run, tmp_path: Path) -> None:
    shown = run("simulate", *TINY, "--output", tmp_path / "run", "--json")
    assert shown.code == 0
    summary = json.loads(shown.out)
    assert summary == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["new_clients"] == 2
    settings = RunSettings.read(tmp_path / "run" / "settings.toml")
    assert (settings.scenario.name, settings.training.steps) == (SCENARIO, 10)


def test_simulate_prints_a_table_and_where_things_are(run: Run, tmp_path: Path) -> None:
    # A long path with brackets, which are not markup.
    output = tmp_path / ("[bold] " + "a-long-name-" * 8)
    shown = run("simulate", *TINY, "--output", output)
    assert shown.code == 0
    for text in (*CLIENTS[-2:], f"report:       {output}/report.html", "gaussian prior on 13"):
        assert text in shown.out
    for phase in ("train upstream adapters ...", "certify new clients ..."):
        assert phase in shown.out.splitlines()
    [line] = [line for line in shown.out.splitlines() if line.startswith("bundle:")]
    assert line == f"bundle:       {output}/bundle  (base model: {output}/base-model)"


def test_simulate_takes_a_settings_file(run: Run, tmp_path: Path, finished: Simulation) -> None:
    settings = finished.output / "settings.toml"
    shown = run(
        *("simulate", "--settings", settings, "--output", tmp_path / "run"),
        *("--set=prior.kind=pool", "--set=evaluation.baselines=false"),
        *("--set=evaluation.candidates=50", "--json"),
        "--runner=inprocess",
    )
    assert shown.code == 0
    assert json.loads(shown.out)["new_clients"] == 2


def test_simulate_tells_of_failed_clients_and_exits_with_1(run: Run, tmp_path: Path) -> None:
    broken = "--set=scenario.options.broken=tiny-02,tiny-03"
    shown = run("simulate", *TINY, broken, "--output", tmp_path / "run", "--json")
    assert shown.code == 1
    assert json.loads(shown.out)["new_clients"] == 2
    last = shown.err.splitlines()[-1]
    assert last == (
        "error: 2 clients failed: 2 x training (tiny-02, tiny-03): RuntimeError: "
        "the disk of \N{HORIZONTAL ELLIPSIS} is gone"
    )


# personalize and verify


def _personalize(run: Run, data: Path, bundle: Path, key: Path, output: Path) -> Certificate:
    shown = run(
        *("personalize", data, "--bundle", bundle, "--client", "device"),
        *("--key", key, "--output", output, "--json"),
    )
    assert (shown.code, shown.err) == (0, "")
    certificate = Certificate.from_json(shown.out)
    assert Certificate.read(output / "certificate.json") == certificate
    return certificate


def test_personalize_gives_the_same_certificate_from_every_format(
    run: Run, data: Path, bundle: Path, key: Path, tmp_path: Path
) -> None:
    certificates = {
        suffix: _personalize(run, data.with_suffix(suffix), bundle, key, tmp_path / suffix[1:])
        for suffix in (".csv", ".npz", ".jsonl")
    }
    first = certificates[".csv"]
    assert certificates == dict.fromkeys(certificates, first)
    assert (first.client, first.support_size) == ("device", 40)
    assert first.signature.public_key == public_hex(read_key(key))
    assert first.bound < 0.5
    assert tree(tmp_path / "csv") == tree(tmp_path / "npz") == tree(tmp_path / "jsonl")


def test_personalize_says_what_it_certified(
    run: Run, data: Path, bundle: Path, tmp_path: Path
) -> None:
    output, key = tmp_path / "device", tmp_path / "new.key"
    shown = run(
        *("personalize", data, "-b", bundle, "--client", "device"),
        *("--key", key, "-o", output),
    )
    assert (shown.code, shown.err) == (0, "")
    certificate = Certificate.read(output / "certificate.json")
    lines = shown.out.splitlines()
    assert certificate.statement in lines
    [line] = [line for line in lines if line.startswith("bound: ")]
    assert line.endswith(" (delta 0.05)")
    assert 0 <= float(line.split()[1]) - certificate.bound < 1e-4
    assert f"adapter:     {output}/adapter" in lines
    assert f"certificate: {output}/certificate.json" in lines
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert certificate.signature.public_key == public_hex(read_key(key))


def test_verify_with_everything_at_hand(
    run: Run, data: Path, bundle: Path, key: Path, tmp_path: Path
) -> None:
    _personalize(run, data, bundle, key, tmp_path / "device")
    certificate = tmp_path / "device" / "certificate.json"
    shown = run(
        *("verify", certificate, "--bundle", bundle, "--data", data.with_suffix(".npz")),
        *("--public-key", public_hex(read_key(key)), "--json"),
    )
    assert (shown.code, shown.err) == (0, "")
    report = json.loads(shown.out)
    assert report["passed"] is True
    assert all(check["passed"] for check in report["checks"])
    names = [check["name"] for check in report["checks"]]
    assert {"signature", "bound", "signer", "candidate", "adapter", "error count"} <= set(names)


def test_verify_says_what_it_could_not_check(run: Run, finished: Simulation) -> None:
    certificate = finished.output / "clients" / CLIENTS[-1] / "certificate.json"
    shown = run("verify", certificate)
    assert (shown.code, shown.err) == (0, "")
    text = " ".join(shown.out.split())
    assert "ok signature" in text
    assert "not checked: bundle: whether recipe and seed are the federation's and" in text
    assert "not checked: data: whether the errors were counted right (--data)" in text
    assert "FAILED" not in text
    assert Certificate.read(certificate).signature.public_key in re.sub(r"\s", "", shown.out)
    with_bundle = run("verify", certificate, "--bundle", finished.output / "bundle")
    assert with_bundle.code == 0
    text = " ".join(with_bundle.out.split())
    assert "ok adapter" in text
    assert "not checked: bundle" not in text
    assert "not checked: data: whether the errors were counted right (--data)" in text


# report, prior inspect, keys


def test_report_renders_again_what_the_run_wrote(
    run: Run, finished: Simulation, tmp_path: Path
) -> None:
    first = (finished.output / "report.html").read_bytes()
    output = tmp_path / ("a-long-name-" * 8) / "report [1].html"
    shown = run("report", finished.output, "--output", output)
    assert (shown.code, shown.out, shown.err) == (0, f"{output}\n", "")
    assert output.read_bytes() == first
    shown = run("report", finished.output)
    assert (shown.code, shown.out) == (0, f"{finished.output}/report.html\n")
    assert (finished.output / "report.html").read_bytes() == first


def test_prior_profile(run: Run, bundle: Path, data: Path) -> None:
    words = ("prior", "profile", data, "--bundle", bundle, "--candidates", 200)
    shown = run(*words, "--json")
    assert (shown.code, shown.err) == (0, "")
    facts = json.loads(shown.out)
    assert (facts["examples"], facts["candidates"]) == (40, 200)
    shares = [row["share"] for row in facts["share_at_most"]]
    assert shares == sorted(shares)
    assert 0 < shares[-1] <= 1
    counts = [row["m"] for row in facts["best_of"]]
    assert counts == [1, 10, 100, 200]
    assert facts["best_of"][-1]["risk"] <= facts["best_of"][0]["risk"]
    table = run(*words)
    assert table.code == 0
    assert "do not certify on them" in table.out
    again = run(*words, "--json", "--seed", 1)
    assert json.loads(again.out) != facts


def test_prior_inspect(run: Run, bundle: Path) -> None:
    loaded = Bundle.load(bundle)
    shown = run("prior", "inspect", bundle, "--json")
    assert (shown.code, shown.err) == (0, "")
    facts = json.loads(shown.out)
    assert facts["prior"] == "diffusion"
    assert facts["adapter dimension"] == 42
    assert facts["bundle digest"] == loaded.digest
    assert facts["labels"] == ["dark", "bright"]
    assert facts["pool"] == 14
    assert facts["bytes"] == sum(file.stat().st_size for file in bundle.iterdir())
    table = run("prior", "inspect", bundle)
    assert table.code == 0
    assert loaded.digest in re.sub(r"\s", "", table.out)


def test_keys_are_made_for_their_owner_alone_and_never_overwritten(
    run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "keys" / "my.key"
    made = run("keys", "create", path)
    assert (made.code, made.err) == (0, "")
    assert re.fullmatch(r"[0-9a-f]{64}\n", made.out)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    shown = run("keys", "show", path)
    assert (shown.code, shown.out) == (0, made.out)
    before = tree(tmp_path)
    again = run("keys", "create", path)
    assert (again.code, again.out) == (1, "")
    assert again.err.startswith(f"error: there is a file at {path} already; keys are never")
    assert tree(tmp_path) == before


def test_the_scenario_of_these_tests_is_found_as_a_users_would_be() -> None:
    assert sorted(path.name for path in IMPORTABLE.glob("*.py")) == [
        "tiny_names.py",
        "tiny_scenario.py",
    ]
