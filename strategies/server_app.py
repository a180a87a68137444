"""The ServerApp, for ``flwr run`` and deployments."""

from logging import INFO, WARNING
from pathlib import Path

from flwr.app import Context
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

from fedcert.errors import SettingsError
from fedcert.progress import Stopwatch
from fedcert.settings import RunSettings
from fedcert.strategies.serving import causes_of, serve

__all__ = ["app"]

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Serve one run with the settings of Flower's run config.

    The run config's ``output`` must be an absolute path: the working directory is that of
    the SuperLink.
    """
    config = dict(context.run_config)
    output = Path(str(config.pop("output", "")))
    if not output.is_absolute():
        raise SettingsError(
            f"output = {str(output)!r} is not an absolute path; "
            "give one with flwr run ... --run-config 'output=\"/path/to/run\"'"
        )
    outcome = serve(grid, RunSettings.from_flat(config), output=output, observer=_Log())
    if failures := outcome.strategy.failures:
        log(WARNING, "%s clients failed: %s", len(failures), causes_of(failures))


class _Log(Stopwatch):
    """Tells Flower's log, which `flwr log` shows, about each phase."""

    def start(self, phase: str, total: int | None = None) -> None:
        """Name the phase."""
        super().start(phase, total)
        log(INFO, "%s ...", phase)

    def say(self, text: str) -> None:
        """Pass on what needs attention."""
        log(WARNING, text)
