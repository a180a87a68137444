"""Starting processes that start others, and ending all of them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from fedcert.errors import RunError

__all__ = ["Service", "free_ports", "kill_marked", "marked"]

_MARK = "FEDCERT_DEPLOYED_AS"
_PAUSE = 0.1
# Flower's processes take a few seconds to say goodbye to each other.
_GRACE = 10.0


class Service:
    """A process, with all that it starts.

    Flower's commands start further processes, which may outlive them. All of them inherit
    an environment variable, by which they are found.

    Parameters
    ----------
    name : str
        In messages, and of the log.
    command : sequence of str
        What to run.
    mark : str
        Marks the process and all that it starts; no other service has it.
    folder : Path
        The working directory, empty: Python would import from it.
    log : Path
        Gets what they print, after what is there.
    environment : Mapping[str, str]
        Beside the environment of this process.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        mark: str,
        folder: Path,
        log: Path,
        environment: Mapping[str, str],
    ) -> None:
        self.name, self.mark, self.log = name, mark, log
        folder.mkdir(parents=True, exist_ok=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603
                list(command),
                cwd=folder,
                env={**os.environ, **environment, _MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A keyboard interrupt is for whoever stops the services in order.
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether the process that was started runs."""
        return self.process.poll() is None

    def wait(self, timeout: float) -> int:
        """Wait for the process itself; return its exit code.

        Raises
        ------
        RunError
            If it takes longer than `timeout` seconds.
        """
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise RunError(
                f"{self.name} did not end within {timeout:g} s; see {self.log}"
            ) from error

    def stop(self) -> None:
        """End everything orderly, and by force what has not ended after some seconds."""
        if self.running:
            self.process.terminate()
            _wait_for(self.process, _GRACE)
        for process in marked(self.mark):
            _send(process, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE
        while marked(self.mark) and time.monotonic() < deadline:
            time.sleep(_PAUSE)
        self.kill()

    def kill(self) -> None:
        """End everything at once, as a power failure does."""
        # Again and again: a process may start another one between a look and the signal.
        while self.running or marked(self.mark):
            if self.running:
                self.process.kill()
            for process in marked(self.mark):
                _send(process, signal.SIGKILL)
            _wait_for(self.process, _PAUSE)


def marked(mark: str) -> list[psutil.Process]:
    """Return the running processes whose mark begins with `mark`."""
    return [process for process in psutil.process_iter() if _has_mark(process, mark)]


def kill_marked(mark: str) -> None:
    """Kill the processes whose mark begins with `mark`, and all that they start meanwhile."""
    while left := marked(mark):
        for process in left:
            _send(process, signal.SIGKILL)
        time.sleep(_PAUSE)


def _has_mark(process: psutil.Process, mark: str) -> bool:
    try:
        found = process.environ().get(_MARK, "")
        return found.startswith(mark) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _send(process: psutil.Process, number: int) -> None:
    with suppress(psutil.Error):
        process.send_signal(number)


def _wait_for(process: subprocess.Popen[bytes], seconds: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that nobody listens on at the moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
