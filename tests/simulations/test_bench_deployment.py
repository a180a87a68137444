"""``make bench-deployment``: its parts, its table, and that no fault is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from faults.deployed_nodes import DEPLOYED_NODE_FAULTS
from faults.devices import DEVICE_FAULTS
from faults.nodes import NODE_FAULTS
from faults.server import SERVER_FAULTS
from faults.uploads import UPLOAD_FAULTS
from flwr.app import Context, Message, RecordDict

from fedcert.simulations.benchmarks import deployment
from fedcert.simulations.benchmarks.deployment import (
    FAULTS,
    PARTS,
    fault_rows,
    main,
    overhead_of,
)
from fedcert.simulations.benchmarks.deployment_page import KINDS, reliability_page
from fedcert.simulations.benchmarks.deployment_scale import TimedApp, pool_uploads
from fedcert.simulations.benchmarks.publishing import page_of
from fedcert.simulations.runners.flower_internals import LocalGrid
from simulations.counting import ask, counting_app
from simulations.federation import tiny_settings

RUN = {
    "clients": 1000,
    "pooled": 999,
    "train_seconds": 55.0,
    "start_seconds": 10.0,
    "client_seconds": 100.0,
    "client_cpu_seconds": 80.0,
    "server_cpu_seconds": 4.0,
    "all_cpu_seconds": 92.0,
}


REPORT = """<testsuites><testsuite>
<testcase classname="faults.test_server_faults" name="a" time="1.26"><properties>
<property name="fault" value="the disk | fails"/><property name="expected" value="refused"/>
<property name="outcome" value="refused"/><property name="lost" value="nothing"/>
</properties></testcase>
<testcase classname="deployment.test_node_faults" name="b" time="2"><properties>
<property name="fault" value="a node dies"/><property name="expected" value="refused"/>
<property name="outcome" value="accepted"/><property name="lost" value="nothing"/>
</properties><failure message="AssertionError: another outcome">text</failure></testcase>
<testcase classname="faults.test_server_faults" name="c" time="2"><properties>
<property name="fault" value="a clock is off"/><property name="expected" value="refused"/>
</properties><failure message="OSError: no space">text</failure></testcase>
<testcase classname="faults.test_server_faults" name="of the judge" time="2"></testcase>
</testsuite></testsuites>"""


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    (tmp_path / "faults.xml").write_text(REPORT)
    return fault_rows(tmp_path / "faults.xml")


def test_the_report_of_the_tests_says_what_came_of_each_fault(
    rows: list[dict[str, Any]],
) -> None:
    good, other, raised = rows
    assert good == {
        "kind": "server",
        "fault": "the disk | fails",
        "expected": "refused",
        "outcome": "refused",
        "lost": "nothing",
        "as_expected": True,
        "seconds": 1.3,
    }
    assert (other["kind"], other["outcome"], other["as_expected"]) == (
        "node",
        "accepted",
        False,
    )
    assert (raised["outcome"], raised["lost"]) == ("not handled: OSError: no space", "unknown")
    assert not raised["as_expected"]


def test_every_fault_has_a_name_of_its_own_and_is_in_the_report() -> None:
    faults = [
        *SERVER_FAULTS,
        *UPLOAD_FAULTS,
        *DEVICE_FAULTS,
        *NODE_FAULTS,
        *DEPLOYED_NODE_FAULTS,
    ]
    assert len({fault.name for fault in faults}) == len(faults)
    for path in FAULTS:
        assert (Path(deployment._ROOT) / path).exists()


def test_every_file_of_faults_has_a_section_on_the_page() -> None:
    tests = Path(deployment._ROOT) / "tests"
    found = {path.stem.split("_")[1] for path in tests.glob("*/test_*_faults.py")}
    assert found == KINDS.keys()


def test_overhead_is_wall_time_over_the_clients_work_per_core() -> None:
    found = overhead_of(RUN, cores=2)
    assert found["ratio"] == pytest.approx(55 / 50)
    assert found["ratio_of_cpu"] == pytest.approx(55 / 40)
    assert found["ratio_of_work"] == pytest.approx(92 / 80)
    assert found["ratio_with_start"] == pytest.approx(65 / 50)


def test_the_page_shows_what_came_and_marks_what_should_not_have(
    rows: list[dict[str, Any]],
) -> None:
    page = reliability_page(page_of("reliability.md"), {"faults": rows})
    assert "| the disk \\| fails | refused | nothing |" in page
    assert "| a node dies | **accepted** (expected: refused) | nothing |" in page
    assert "1 of 3 faults" in page


def test_a_part_that_was_not_measured_stays_on_the_page() -> None:
    record: dict[str, Any] = {"simulation": overhead_of(RUN, 2), "machine": _machine()}
    page = reliability_page(page_of("reliability.md"), record)
    assert "| **wall time over ideal** | **1.10** |" in page
    again = reliability_page(
        page, {"peak_rss_by_clients": [{"clients": 50, "server_mib": 400, "total_mib": 900}]}
    )
    assert "| **wall time over ideal** | **1.10** |" in again
    assert "| 50 | 400 | 900 |" in again


def _machine() -> dict[str, Any]:
    return {"cores": 2, "cpu": "a processor"}


def _broken(_options: object) -> dict[str, Any]:
    row = {"kind": "server", "fault": "the disk | fails", "expected": "refused"}
    return {"faults": [row | {"outcome": "x", "lost": "y", "as_expected": False, "seconds": 1}]}


def test_an_unexpected_outcome_fails_the_benchmark_after_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PARTS, "faults", _broken)
    with pytest.raises(SystemExit, match="the disk"):
        main(["--part", "faults", "--output", str(tmp_path)])
    record = json.loads((tmp_path / "deployment.json").read_text())
    assert [row["fault"] for row in record["faults"]] == ["the disk | fails"]
    assert "pooled_uploads" not in record
    assert "disk \\| fails" in (tmp_path / "reliability.md").read_text()


def test_uploads_are_pooled_through_the_checks(tmp_path: Path) -> None:
    found = pool_uploads(30, folder=tmp_path, settings=tiny_settings())
    assert (found["uploads"], found["kept"]) == (30, 30)
    assert found["seconds"] > 0
    assert len(list((tmp_path / "pool" / "adapters").iterdir())) == 30


def test_clients_note_their_own_time(tmp_path: Path) -> None:
    times = tmp_path / "times.jsonl"
    grid = LocalGrid(TimedApp(counting_app(), times), nodes=3)
    list(grid.send_and_receive(ask(grid, "count")))
    lines = [json.loads(line) for line in times.read_text().splitlines()]
    assert [line["message"] for line in lines] == ["query.count"] * 3
    assert all(0 < line["cpu"] <= line["wall"] + 0.05 for line in lines)


def test_timing_changes_no_answer(tmp_path: Path) -> None:
    message = Message(RecordDict(), dst_node_id=100, message_type="query.count")
    context = Context(1, 100, {"partition-id": 0}, RecordDict(), {})
    reply = TimedApp(counting_app(), tmp_path / "times")(message, context)
    assert dict(reply.content["m"]) == {"partition": 0, "seen": 1}
