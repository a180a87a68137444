"""Bringing up a federation on one machine, running the app on it, and shutting it down."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from fedcert.atomic import write_atomically
from fedcert.deployment.credentials import make_node_key, make_tls
from fedcert.deployment.nodes import NodeSetup
from fedcert.deployment.processes import Service, free_ports, kill_marked, marked
from fedcert.deployment.runs import FinishedRun, Submission
from fedcert.errors import RunError, SettingsError
from fedcert.settings.toml import flat_toml

__all__ = ["CONNECTION", "Deployment", "fedcert_app"]

CONNECTION = "deployed"
"""Name of the connection to the SuperLink in Flower's configuration."""

_HOST = "127.0.0.1"
_START_TIMEOUT, _COMMAND_TIMEOUT = 120.0, 120.0
_PAUSE, _RESTART_PAUSE = 0.2, 5.0
# What a SuperNode says once the SuperLink has taken it.
_ACCEPTED = b"SuperNode ID:"
_ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "PYTHONUNBUFFERED": "1",
}


class Deployment:
    """A SuperLink and its SuperNodes on the loopback interface, with TLS and node keys.

    As a context manager it starts everything and leaves no process behind. Whatever is in the
    folder stays: entered again, it is the same federation with the same keys.

    Parameters
    ----------
    folder : Path
        Gets keys, configurations, logs, the SuperLink's database, and the nodes' folders.
    nodes : sequence of NodeSetup
        The nodes.
    app : Path, optional
        The Flower app; by default the one that comes with fedcert.
    say : callable
        Called with a line of progress.

    Attributes
    ----------
    services : dict
        What runs, by name: ``"superlink"``, and the nodes by their client ids.
    """

    def __init__(
        self,
        folder: Path,
        nodes: Sequence[NodeSetup] = (),
        *,
        app: Path | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        app = fedcert_app() if app is None else app
        if not (app / "pyproject.toml").is_file():
            raise SettingsError(f"{app} holds no Flower app; name the folder of the app")
        self.folder, self.nodes = folder.resolve(), {node.client: node for node in nodes}
        self._app, self.say = app.resolve(), say
        self.services: dict[str, Service] = {}
        [self.port] = free_ports(1)
        self.tls = make_tls(self.folder / "tls")

    def __enter__(self) -> Self:
        """Start the SuperLink, register the nodes' keys, and start the nodes."""
        if others := marked(self._mark()):
            raise RunError(
                f"{self.folder}: a deployment runs there already (processes "
                f"{', '.join(str(process.pid) for process in others)}); stop it, or take "
                "another folder"
            )
        try:
            self._write_connection()
            self.start_superlink()
            for client in self.nodes:
                self.register(client)
                self.start_node(client)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the nodes and then the SuperLink, with everything that they started."""
        try:
            for name in reversed(list(self.services)):
                self.services.pop(name).stop()
        finally:
            # An interrupt may have come while one of them was being started or stopped.
            kill_marked(self._mark())

    def stop(self, name: str) -> None:
        """Stop one service in order."""
        for service in self._take(name):
            service.stop()

    def kill(self, name: str) -> None:
        """Kill one service and all that it started, as a power failure does."""
        for service in self._take(name):
            service.kill()

    def _take(self, name: str) -> list[Service]:
        """Forget a service and what runs beside it; return them."""
        names = [known for known in (name, _apps(name)) if known in self.services]
        return [self.services.pop(known) for known in names]

    def start_superlink(self) -> None:
        """Start the SuperLink, on the port and with the database that it had before."""
        self.say(
            f"start the SuperLink on {_HOST}:{self.port}, with TLS and node authentication"
        )
        service = self._start(
            "superlink",
            *("flower-superlink", "--host", _HOST, "--port", str(self.port)),
            *("--ssl-ca-certfile", str(self.tls.ca)),
            *("--ssl-certfile", str(self.tls.certificate)),
            *("--ssl-keyfile", str(self.tls.key)),
            "--enable-supernode-auth",
            *("--database", str(self.folder / "superlink.db")),
            "--disable-runtime-dependency-installation",
        )
        deadline = time.monotonic() + _START_TIMEOUT
        while not _listens(self.port):
            if not service.running or time.monotonic() > deadline:
                raise RunError(f"the SuperLink did not start; see {service.log}")
            time.sleep(_PAUSE)

    def register(self, client: str) -> None:
        """Make a node's key, if it has none, and register it with the SuperLink."""
        public = make_node_key(self.key_of(client))
        done = public.with_suffix(".registered")
        if not done.is_file():
            self.say(f"register the key of {client}")
            self.flwr("supernode", "register", str(public), CONNECTION)
            done.touch()

    def start_node(self, client: str, *, secure: bool = True) -> Service:
        """Start a node's SuperNode.

        Parameters
        ----------
        client : str
            Client id of one of the nodes.
        secure : bool (default: True)
            With TLS and its key; otherwise it is one that should be turned away.
        """
        node = self.nodes[client]
        [port] = free_ports(1)
        config = node.write_config(self.folder / "nodes" / client)
        self.say(f"start the SuperNode of {client} ({node.role})")
        identity = ["--insecure"]
        if secure:
            identity = ["--root-certificates", str(self.tls.ca)]
            identity += ["--auth-supernode-private-key", str(self.key_of(client))]
        secret: tuple[str, ...] = ()
        if node.isolated:
            secret = ("--superexec-auth-secret-file", str(self._secret_of(client)))
        apart = ("--isolation", "process", *secret) if node.isolated else ()
        service = self._start(
            client,
            *("flower-supernode", *identity, "--superlink", f"{_HOST}:{self.port}"),
            *("--host", _HOST, "--port", str(port), "--node-config", str(config), *apart),
        )
        if node.isolated:
            # Without TLS: both are on one machine, and the secret keeps others out.
            address = f"{_HOST}:{port}"
            executor = ("flower-superexec", "--insecure", "--runtime-api-address", address)
            self._start(_apps(client), *executor, *secret)
        return service

    def revive(self, client: str) -> None:
        """Start a node that was killed, again and again, as a supervisor of services does.

        The SuperLink turns it away until it has missed its heartbeats, for up to a minute.
        """
        deadline = time.monotonic() + _START_TIMEOUT
        while True:
            seen = (self.folder / "logs" / f"{client}.log").stat().st_size
            service = self.start_node(client)
            while service.running and _ACCEPTED not in service.log.read_bytes()[seen:]:
                time.sleep(_PAUSE)
            if service.running:
                return
            self.stop(client)
            if time.monotonic() > deadline:
                raise RunError(f"the SuperLink does not take {client} back; see {service.log}")
            time.sleep(_RESTART_PAUSE)

    def key_of(self, client: str) -> Path:
        """Return where a node's private key for Flower is."""
        return self.folder / "keys" / client

    def _secret_of(self, client: str) -> Path:
        """Return the file by which a SuperNode knows its SuperExec; make it if need be."""
        path = self.folder / "keys" / f"{client}.secret"
        if not path.is_file():
            write_atomically(path, secrets.token_bytes(32), mode=0o600)
        return path

    def run(
        self, config: Mapping[str, str | bool | int | float], *, timeout: float
    ) -> FinishedRun:
        """Run the app to its end.

        Parameters
        ----------
        config : Mapping
            What the app's configuration is to say otherwise, by dotted key.
        timeout : float
            Seconds.

        Raises
        ------
        RunError
            If the run fails, or takes longer.
        """
        finished = self.submit(config).wait(timeout)
        if not finished.completed:
            cause = f": {finished.cause}" if finished.cause else ""
            raise RunError(f"the run ended as {finished.status}{cause}; see {finished.log}")
        return finished

    def submit(self, config: Mapping[str, str | bool | int | float]) -> Submission:
        """Start a run of the app and return at once."""
        number = sum(1 for _ in (self.folder / "logs").glob("run-*.log")) + 1
        settings = self.folder / "runs" / f"run-{number}.toml"
        dashed = {key.replace("_", "-"): value for key, value in config.items()}
        write_atomically(settings, flat_toml(dashed).encode())
        service = self._start(
            f"run-{number}",
            *("flwr", "run", str(self._app), CONNECTION, "--stream"),
            *("--run-config", str(settings)),
        )
        return Submission(
            service,
            status_of=self.status_of,
            say=self.say,
            ended=lambda: self.services.pop(service.name, None),
        )

    def flwr(self, *arguments: str) -> str:
        """Run Flower's command line and return what it prints.

        Raises
        ------
        RunError
            If it fails.
        """
        try:
            done = subprocess.run(  # noqa: S603
                [_command("flwr"), *arguments],
                capture_output=True,
                text=True,
                cwd=self._empty(),
                env={**os.environ, **self._environment("flwr")},
                timeout=_COMMAND_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RunError(
                f"flwr {' '.join(arguments)} did not end in {_COMMAND_TIMEOUT:g} s"
            ) from error
        if done.returncode:
            said = " ".join((done.stdout + done.stderr).split())
            raise RunError(f"flwr {' '.join(arguments)} failed: {said[-500:]}")
        return done.stdout

    def status_of(self, run_id: str) -> str:
        """Return what ``flwr list`` says about a run; "" if it does not know it."""
        listed: dict[str, Any] = json.loads(self.flwr("list", CONNECTION, "--format", "json"))
        found = [run["status"] for run in listed["runs"] if str(run["run-id"]) == run_id]
        return str(found[0]) if found else ""

    def _start(self, name: str, command: str, *arguments: str) -> Service:
        service = Service(
            name,
            [_command(command), *arguments],
            mark=self._mark(name),
            folder=self._empty(),
            log=self.folder / "logs" / f"{name}.log",
            environment=self._environment("flwr" if command == "flwr" else name),
        )
        self.services[name] = service
        return service

    def _environment(self, name: str) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        home = self.folder / "flower" / name
        home.mkdir(parents=True, exist_ok=True)
        return {**_ENVIRONMENT, "PATH": path, "FLWR_HOME": str(home)}

    def _empty(self) -> Path:
        folder = self.folder / "empty"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _mark(self, name: str | None = None) -> str:
        return f"{self.folder}|" if name is None else f"{self.folder}|{name}|"

    def _write_connection(self) -> None:
        """Write Flower's configuration for whoever submits runs: where, and whom to trust."""
        lines = [
            f"[superlink]\ndefault = {json.dumps(CONNECTION)}\n\n[superlink.{CONNECTION}]\n",
            flat_toml(
                {
                    "address": f"{_HOST}:{self.port}",
                    # Flower takes an absolute path only.
                    "root-certificates": str(self.tls.ca),
                }
            ),
        ]
        home = Path(self._environment("flwr")["FLWR_HOME"])
        write_atomically(home / "config.toml", "".join(lines).encode())


def fedcert_app() -> Path:
    """Return the folder of the Flower app that comes with fedcert."""
    spec = find_spec("fedcert.simulations")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "app"


def _apps(client: str) -> str:
    """Return the name of the service that runs a node's apps apart from it."""
    return f"{client}-apps"


def _command(name: str) -> str:
    """Return a console command of this Python's environment."""
    return str(Path(sys.executable).parent / name)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((_HOST, port)) == 0
