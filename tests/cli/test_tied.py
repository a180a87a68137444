"""``adapter.tied`` on the command line: a run, and a device that is certified and verified."""

from __future__ import annotations

import json
from pathlib import Path

from simulations.federation import SCENARIO

from cli.conftest import Run
from fedcert.bundles import Bundle

TINY = [
    "simulate",
    SCENARIO,
    "--runner=inprocess",
    "--set=adapter.rank=2",
    "--set=training.steps=10",
    "--set=certificate.candidates=50",
    "--set=certificate.support-size=32",
    "--set=server.min-pool=11",
    "--set=evaluation.baselines=false",
]


def test_a_certificate_in_a_tied_space_is_found_right_by_recomputation(
    run: Run, tmp_path: Path, data: Path, key: Path
) -> None:
    shown = run(*TINY, "--set=adapter.tied=3", "--output", tmp_path / "run")
    assert shown.code == 0, shown.err
    bundle = tmp_path / "run" / "bundle"
    space = Bundle.load(bundle).space
    assert space.tied == 3
    inspected = json.loads(run("prior", "inspect", bundle, "--json").out)
    assert (inspected["tied numbers"], inspected["rank"]) == (3, 2)
    assert inspected["adapter dimension"] == space.dimension < space.untied.dimension

    device = tmp_path / "device"
    shown = run(
        *("personalize", data, "--bundle", bundle, "--client", "device"),
        *("--key", key, "--state", tmp_path / "state", "--output", device, "--json"),
    )
    assert (shown.code, shown.err) == (0, "")
    shown = run(
        *("verify", device / "certificate.json", "--bundle", bundle),
        *("--data", data.with_suffix(".npz"), "--json"),
    )
    assert (shown.code, shown.err) == (0, "")
    checks = {check["name"]: check["passed"] for check in json.loads(shown.out)["checks"]}
    assert {"candidate", "adapter", "error count"} <= checks.keys()
    assert all(checks.values())


def test_more_numbers_than_modules_have_are_refused(run: Run, tmp_path: Path) -> None:
    shown = run(*TINY, "--set=adapter.tied=8", "--output", tmp_path / "run")
    assert shown.code == 1
    said = " ".join(shown.err.split())
    assert "adapter.tied = 8 saves nothing: at rank 2 the 2 adapted modules have 8" in said
    assert "choose fewer, or 0" in said
    assert "Traceback" not in shown.err
