"""SuperLink and SuperNodes for real: TLS, node keys, own data, certificates that verify."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from deployment.conftest import SIMULATED, Deployed
from fedcert.certificates import Certificate
from fedcert.deployment.processes import marked
from fedcert.models import load_base_model
from fedcert.pool import Pool
from fedcert.protocol.authority import SeedAuthority
from fedcert.protocol.log import read_log
from fedcert.records.signing import public_hex, read_key
from fedcert.scenarios import load_scenario

pytestmark = pytest.mark.deploy


def test_the_run_completes(deployed: Deployed) -> None:
    assert deployed.finished.status == "finished:completed"
    assert deployed.said[0].startswith("start the SuperLink on 127.0.0.1:")
    assert "server: certify new clients" in deployed.said


def test_every_certificate_verifies(deployed: Deployed) -> None:
    server = deployed.folder / "server"
    key = SeedAuthority(server).public_key
    new = deployed.clients("new")
    assert len(new) == 2
    for client in new:
        command = [Path(sys.executable).parent / "fedcert", "verify", "--json"]
        command += [deployed.run / "certificates" / f"{client}.json"]
        command += ["--bundle", deployed.run / "bundle", "--server-key", key]
        command += ["--witness", deployed.run / "witnesses" / f"{client}.json"]
        command += ["--log", server / "log.jsonl"]
        # What only the client can add.
        own = deployed.folder / "nodes" / client
        command += ["--adapter", own / "adapter", "--data", own / "data.csv"]
        command += ["--base-model", own / "base-model"]
        command += ["--public-key", public_hex(read_key(own / "client.key"))]
        command += ["--opening", own / "state" / "openings" / "000000.json"]
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        report = json.loads(done.stdout)
        assert report["passed"]
        names = {check["name"] for check in report["checks"]}
        assert names >= {"signer", "candidate", "adapter", "error count", "opening"}
        assert names >= {"server", "countersignature", "log", "logged"}


def test_the_upload_of_a_node_joins_the_pool(deployed: Deployed) -> None:
    settings = deployed.example.settings
    task = load_scenario(settings.scenario.name, settings.scenario.options)
    base = load_base_model(str(task.base_model()), num_labels=2)
    pool = Pool(deployed.run / "pool", settings.space_of(base))
    assert len(pool) == SIMULATED + 1
    assert deployed.clients("upstream")[0] in pool


def test_the_server_has_neither_data_nor_keys_nor_adapters_of_new_clients(
    deployed: Deployed,
) -> None:
    assert not (deployed.run / "clients").exists()
    held = [p for p in (deployed.run, deployed.folder / "server") for p in p.rglob("*")]
    texts = b"".join(path.read_bytes() for path in held if path.is_file())
    for client in deployed.clients("new"):
        own = deployed.folder / "nodes" / client
        first_row = (own / "data.csv").read_text().splitlines()[1]
        assert first_row.encode() not in texts
        salts = (own / "state" / "openings" / "000000.json").read_bytes()
        assert salts not in texts
        secret = own / "client.key"
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        assert secret.read_bytes() not in texts


def test_each_new_client_had_its_first_attempt_and_none_stays_open(
    deployed: Deployed,
) -> None:
    server = deployed.folder / "server"
    entries = read_log(server / "log.jsonl", SeedAuthority(server).public_key)
    assert len(entries) > 4
    for client in deployed.clients("new"):
        certificate = Certificate.read(deployed.run / "certificates" / f"{client}.json")
        assert certificate.protocol is not None
        assert certificate.protocol.attempt == 1
        assert certificate.support_size == 64


def test_a_client_app_may_run_apart_from_its_supernode(deployed: Deployed) -> None:
    client = deployed.clients("upstream")[0]
    logs = deployed.folder / "logs"
    assert "Starting Flower SuperExec" in (logs / f"{client}-apps.log").read_text()
    assert "Starting Flower SuperExec" not in (logs / f"{client}.log").read_text()
    assert stat.S_IMODE((deployed.folder / "keys" / f"{client}.secret").stat().st_mode) == 0o600


# Who may not join


def test_a_node_whose_key_is_not_registered_is_refused(deployed: Deployed) -> None:
    assert deployed.stranger_exit not in (None, 0)
    log = (deployed.folder / "logs" / "stranger.log").read_text()
    assert "Exit Code: 305" in log
    assert "SuperNode ID" not in log


def test_a_node_without_tls_never_gets_in(deployed: Deployed) -> None:
    # It goes on trying, and is told nothing.
    assert deployed.plain_exit is None
    log = (deployed.folder / "logs" / "plain.log").read_text()
    assert "Connection attempt failed" in log
    assert "SuperNode ID" not in log


def test_only_registered_nodes_are_online_and_known_to_the_run(deployed: Deployed) -> None:
    assert [node["status"] for node in deployed.online] == ["online"] * 3
    for client in ("stranger", "plain"):
        folder = deployed.folder / "nodes" / client
        assert [path.name for path in folder.iterdir()] == ["node.toml"]
        assert not (deployed.run / "certificates" / f"{client}.json").exists()


# In the end


def test_nothing_is_left_running(deployed: Deployed) -> None:
    # SuperLink, four SuperNodes at least, and what they started.
    assert len(deployed.pids) >= 5
    assert not any(psutil.pid_exists(pid) for pid in deployed.pids)
    assert marked(f"{deployed.folder}|") == []
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", deployed.port)) != 0
