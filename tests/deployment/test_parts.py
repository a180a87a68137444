"""The parts of a deployment that need no SuperLink: keys, processes, files."""

from __future__ import annotations

import ssl
import stat
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    load_ssh_private_key,
    load_ssh_public_key,
)
from flwr.common.config import parse_config_args
from tiny_models import Family
from typer.testing import CliRunner

from fedcert.cli.deploy import deploy
from fedcert.deployment import Deployment, FinishedRun, NodeSetup
from fedcert.deployment.credentials import (
    TlsFiles,
    make_node_key,
    make_tls,
)
from fedcert.deployment.processes import Service, free_ports, marked
from fedcert.deployment.runs import Submission
from fedcert.errors import RunError, SettingsError
from fedcert.settings.toml import flat_toml
from fedcert.simulations.deployed_example import digits_on_nodes, grow_pool

# Keys


def _shake_hands(server: TlsFiles, trusted: Path, host: str) -> None:
    """Let a client that trusts `trusted` connect to a server, without a network."""
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepting.load_cert_chain(server.certificate, server.key)
    asking = ssl.create_default_context(cafile=str(trusted))
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        asking.wrap_bio(down, up, server_hostname=host),
        accepting.wrap_bio(up, down, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert ends[0].version() == "TLSv1.3"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_the_servers_certificate_is_trusted_by_who_trusts_the_ca(
    tmp_path: Path, host: str
) -> None:
    files = make_tls(tmp_path)
    _shake_hands(files, files.ca, host)


def test_another_ca_or_another_host_is_not_trusted(tmp_path: Path) -> None:
    files, other = make_tls(tmp_path / "a"), make_tls(tmp_path / "b")
    with pytest.raises(ssl.SSLCertVerificationError):
        _shake_hands(files, other.ca, "localhost")
    with pytest.raises(ssl.SSLCertVerificationError, match="example"):
        _shake_hands(files, files.ca, "example.org")
    # The server's certificate is none to sign others with.
    with pytest.raises(ssl.SSLCertVerificationError):
        _shake_hands(other, files.certificate, "localhost")


def test_secrets_are_their_owners_and_are_kept(tmp_path: Path) -> None:
    files = make_tls(tmp_path / "tls")
    public = make_node_key(tmp_path / "keys" / "node")
    secret = [files.key, files.ca.with_name("ca.key"), tmp_path / "keys" / "node"]
    before = [path.read_bytes() for path in [*secret, public, files.ca]]
    assert [stat.S_IMODE(path.stat().st_mode) for path in secret] == [0o600] * 3
    make_tls(tmp_path / "tls")
    assert make_node_key(tmp_path / "keys" / "node") == public
    assert [path.read_bytes() for path in [*secret, public, files.ca]] == before


def test_a_key_that_is_there_is_kept_whatever_became_of_its_public_half(tmp_path: Path) -> None:
    path = tmp_path / "node"
    public = make_node_key(path)
    private, line = path.read_bytes(), public.read_bytes()
    public.unlink()  # it was moved to the server
    assert make_node_key(path).read_bytes() == line
    assert path.read_bytes() == private
    path.unlink()
    with pytest.raises(SettingsError, match=r"private key .*node is not: put that back"):
        make_node_key(path)
    assert public.read_bytes() == line
    path.write_text("something else")
    with pytest.raises(SettingsError, match="no private key of a node"):
        make_node_key(path)


@pytest.mark.parametrize("host", ["bad host!", "", "-a.example", "a..example", "1.2.3.4/8"])
def test_what_is_no_host_gets_no_certificate(tmp_path: Path, host: str) -> None:
    with pytest.raises(SettingsError, match="neither a host's name nor an IP address"):
        make_tls(tmp_path / "tls", ["fl.example.org", host])
    assert not (tmp_path / "tls").exists()


def test_files_of_tls_are_all_there_and_for_the_hosts_or_refused(tmp_path: Path) -> None:
    files = make_tls(tmp_path, ["fl.example.org"])
    with pytest.raises(SettingsError, match=r"for other hosts, and not for other\.example"):
        make_tls(tmp_path, ["fl.example.org", "other.example"])
    files.ca.unlink()
    with pytest.raises(SettingsError, match=r"ca\.crt is missing beside server\.key"):
        make_tls(tmp_path, ["fl.example.org"])


def test_a_nodes_key_is_what_flower_reads(tmp_path: Path) -> None:
    public = load_ssh_public_key(make_node_key(tmp_path / "node").read_bytes())
    private = load_ssh_private_key((tmp_path / "node").read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert isinstance(private.curve, ec.SECP384R1)
    assert private.public_key() == public


def test_the_command_makes_what_python_makes(tmp_path: Path) -> None:
    run = CliRunner().invoke
    tls = run(deploy, ["tls", "--host", "fl.example.org", "--folder", str(tmp_path / "t")])
    assert tls.exit_code == 0, tls.output
    files = make_tls(tmp_path / "t", ["fl.example.org"])
    _shake_hands(files, files.ca, "fl.example.org")
    node = run(deploy, ["node-key", str(tmp_path / "hospital-3")])
    assert f"to be registered:  {tmp_path / 'hospital-3.pub'}" in node.output


# Processes

# A child in a session of its own, which ignores polite requests, as its parent does not.
_STUBBORN = """
import signal, subprocess, sys, time
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
print("started", flush=True)
time.sleep(60)
"""


def _service(tmp_path: Path, name: str, program: str) -> Service:
    return Service(
        name,
        [sys.executable, "-c", program],
        mark=f"{tmp_path}|{name}|",
        folder=tmp_path / "empty",
        log=tmp_path / f"{name}.log",
        environment={"GIVEN": "yes"},
    )


def _wait_for(condition: object, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_a_service_started_ends_with_it(tmp_path: Path) -> None:
    service = _service(tmp_path, "a", _STUBBORN)
    other = _service(tmp_path, "a2", "import time; time.sleep(60)")
    _wait_for(lambda: len(marked(service.mark)) == 2)
    assert len(marked(f"{tmp_path}|")) == 3
    service.kill()
    assert marked(service.mark) == []
    assert not service.running
    assert [process.pid for process in marked(f"{tmp_path}|")] == [other.process.pid]
    other.stop()
    assert marked(f"{tmp_path}|") == []


def test_a_service_runs_in_an_empty_folder_and_leaves_a_log(tmp_path: Path) -> None:
    service = _service(tmp_path, "a", "import os; print(os.getcwd(), os.environ['GIVEN'])")
    assert service.wait(20) == 0
    assert service.log.read_text() == f"{(tmp_path / 'empty').resolve()} yes\n"


def test_waiting_has_an_end(tmp_path: Path) -> None:
    service = _service(tmp_path, "slow", "import time; time.sleep(60)")
    with pytest.raises(RunError, match=r"^slow did not end within 0\.1 s; see .*slow\.log$"):
        service.wait(0.1)
    service.kill()


def test_free_ports_differ() -> None:
    assert len({*free_ports(20)}) == 20


def test_a_deployment_that_cannot_start_leaves_nothing_behind(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path)
    deployment.tls.certificate.write_text("no certificate")
    with pytest.raises(RunError, match=r"the SuperLink did not start; see .*superlink\.log"):
        deployment.__enter__()
    assert marked(f"{tmp_path.resolve()}|") == []


def test_what_was_started_and_never_noted_is_ended_too(tmp_path: Path) -> None:
    """An interrupt between the start of a process and the note of it leaves such a one."""
    folder = tmp_path.resolve()
    deployment = Deployment(folder)
    lost = _service(folder, "lost", _STUBBORN)
    while "started" not in lost.log.read_text():
        time.sleep(0.05)
    assert deployment.services == {}
    deployment.close()
    assert marked(f"{folder}|") == []


def test_warnings_are_passed_on_but_preparing(tmp_path: Path) -> None:
    said: list[str] = []
    program = "print('WARNING :   preparing it'); print('WARNING :   1 client failed')"
    service = _service(tmp_path, "run", f"{program}; print('INFO :   fit ...')")
    assert service.wait(20) == 0
    Submission(service, status_of=str, say=said.append)._pass_on()
    assert said == ["server: 1 client failed", "server: fit"]


def test_a_folder_that_is_in_use_is_refused(tmp_path: Path) -> None:
    service = _service(tmp_path.resolve(), "superlink", "import time; time.sleep(60)")
    try:
        with pytest.raises(RunError, match=f"runs there already .*{service.process.pid}"):
            Deployment(tmp_path).__enter__()
        assert psutil.pid_exists(service.process.pid)
    finally:
        service.kill()


def test_a_folder_without_an_app(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds no Flower app"):
        Deployment(tmp_path, app=tmp_path)


def test_the_cause_of_a_failed_run_is_the_last_error(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    lines = ["INFO :  x", "ValueError: first", "Traceback", "fedcert.errors.RunError: last", ""]
    log.write_text("\n".join(lines))
    assert FinishedRun("1", "finished:failed", log).cause == "fedcert.errors.RunError: last"
    log.write_text("nothing\n")
    assert FinishedRun("1", "finished:failed", log).cause == ""


# Files


def test_flower_reads_the_configuration_of_a_node(tmp_path: Path) -> None:
    awkward = tmp_path / 'it\'s "my" däta \\ = 1.csv'
    setup = NodeSetup("a", "new", awkward, tmp_path, {"label-column": "y", "n": 3})
    config = parse_config_args([str(setup.write_config(tmp_path / "a"))])
    assert config == {
        "client-id": "a",
        "role": "new",
        "data-path": str(awkward),
        "output": str(tmp_path / "a"),
        "base-model": str(tmp_path),
        "label-column": "y",
        "n": 3,
    }


def test_flat_toml_keeps_keys_and_values() -> None:
    values = {"a.b": "x\x7f\n\"'", "c-d": True, "e": 1e-05, "f": -3, "g": ""}
    text = flat_toml(values)
    assert tomllib.loads(text) == values


def test_each_node_gets_its_own_digits(tmp_path: Path, vit: Family) -> None:
    example = digits_on_nodes(tmp_path, nodes=5, simulated=2, base=vit.folder)
    assert [node.role for node in example.nodes] == ["upstream"] * 2 + ["new"] * 3
    texts = [node.data.read_text() for node in example.nodes]
    assert len({*texts}) == 5
    assert [len(text.splitlines()) for text in texts] == [101, 101, 65, 65, 65]
    assert len(example.simulated) == 2
    assert not {node.client for node in example.nodes} & example.simulated.keys()
    assert example.settings.scenario.name == "own-data"


def test_more_nodes_change_nothing_for_those_that_are_there(
    tmp_path: Path, vit: Family
) -> None:
    def deal(nodes: int, simulated: int) -> dict[str, tuple[str, bytes]]:
        dealt = digits_on_nodes(tmp_path, nodes=nodes, simulated=simulated, base=vit.folder)
        return {node.client: (node.role, node.data.read_bytes()) for node in dealt.nodes}

    few, many = deal(3, 2), deal(6, 5)
    assert len(many) == 6
    assert {client: many.get(client) for client in few} == few


def test_digits_are_not_dealt_out_without_end(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="at most 200 nodes and 900 simulated clients"):
        digits_on_nodes(tmp_path, nodes=201, simulated=24)


def test_a_pool_is_grown_once(tmp_path: Path, vit: Family) -> None:
    overrides = {"adapter.rank": 2, "training.steps": 2}
    example = digits_on_nodes(
        tmp_path, nodes=2, simulated=3, base=vit.folder, overrides=overrides
    )
    said: list[str] = []
    pool = grow_pool(tmp_path / "pool", example.settings, example.simulated, say=said.append)
    before = pool.matrix().tobytes()
    again = grow_pool(tmp_path / "pool", example.settings, example.simulated, say=said.append)
    assert len(again) == 3
    assert again.matrix().tobytes() == before
    assert said == ["grow the pool by 3 simulated clients"]


def test_one_node_is_no_federation(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="1 nodes are too few"):
        digits_on_nodes(tmp_path, nodes=1, simulated=2)


def test_the_command_explains_itself() -> None:
    command = [sys.executable, "-m", "fedcert.cli", "deploy", "local", "--nodes", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--nodes" in done.stderr
