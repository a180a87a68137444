"""A run on its way through a deployment, and how it ended."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedcert.deployment.processes import Service
from fedcert.errors import RunError

__all__ = ["FinishedRun", "Submission"]

_PAUSE = 0.2
_RUN_ID = re.compile(r"started run (\d+)", re.IGNORECASE)
# The last line of a traceback.
_ERROR = re.compile(r"^((?:\w+\.)*\w*(?:Error|Exception)\b.*)$", re.MULTILINE)
# The phases that the server names, and its warnings.
_SAID = re.compile(r"(?:INFO *: +(?=.*\.\.\.$)|WARNING *: +(?! |preparing))(.*)$")
_COLOR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class FinishedRun:
    """How a run ended.

    Attributes
    ----------
    run_id : str
        Flower's.
    status : str
        As ``flwr list`` says: ``"finished:completed"``, ``"finished:failed"``, or
        ``"finished:stopped"``.
    log : Path
        What the server said.
    """

    run_id: str
    status: str
    log: Path

    @property
    def completed(self) -> bool:
        """Whether the server did its job."""
        return self.status == "finished:completed"

    @property
    def cause(self) -> str:
        """The error that the server ended with, in a line; "" if it told none."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return next((found.group(1) for found in reversed([*_ERROR.finditer(text)])), "")


class Submission:
    """A run on its way.

    Parameters
    ----------
    service : Service
        ``flwr run --stream``: its log is that of the server.
    status_of : callable
        Returns the status of a run by its id.
    say : callable
        Called with each line of note that the server says.
    ended : callable
        Called once ``flwr run`` has ended.
    """

    def __init__(
        self,
        service: Service,
        *,
        status_of: Callable[[str], str],
        say: Callable[[str], None],
        ended: Callable[[], object] = lambda: None,
    ) -> None:
        self.service, self._status_of = service, status_of
        self._say, self._ended, self._seen = say, ended, 0

    def wait(self, timeout: float) -> FinishedRun:
        """Wait until the run has ended, and pass on what the server says.

        Raises
        ------
        RunError
            If it takes longer, or was never accepted.
        """
        deadline = time.monotonic() + timeout
        while self.service.running:
            if time.monotonic() > deadline:
                raise RunError(
                    f"the run did not end within {timeout:g} s; see {self.service.log}"
                )
            self._pass_on()
            time.sleep(_PAUSE)
        self._pass_on()
        self._ended()
        return self.finished()

    def finished(self) -> FinishedRun:
        """Ask how the run ended: the exit code of ``flwr run`` does not say."""
        found = _RUN_ID.search(self.log_text())
        if found is None:
            raise RunError(f"the run was not accepted; see {self.service.log}")
        run_id = found.group(1)
        return FinishedRun(run_id, self._status_of(run_id), self.service.log)

    def log_text(self) -> str:
        """Return what the server has said so far."""
        text = self.service.log.read_text(encoding="utf-8", errors="replace")
        return _COLOR.sub("", text)

    def _pass_on(self) -> None:
        text = self.log_text()
        end = text.rfind("\n") + 1
        for line in text[self._seen : end].splitlines():
            if found := _SAID.search(line.strip()):
                self._say(f"server: {found.group(1).removesuffix(' ...')}")
        self._seen = max(self._seen, end)
