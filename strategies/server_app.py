"""The ServerApp, for ``flwr run`` and deployments."""

from logging import INFO, WARNING
from pathlib import Path

from flwr.app import Context
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

from fedcert.errors import SettingsError
from fedcert.runs.events import LoggedObserver, logged_run
from fedcert.runs.failures import failed_line, failure_rows
from fedcert.runs.progress import Stopwatch
from fedcert.settings import RunSettings
from fedcert.strategies.pooled_prior import PooledPrior
from fedcert.strategies.serving import serve

__all__ = ["app", "make_server_app"]


def make_server_app(
    settings: RunSettings | None = None,
    output: Path | None = None,
    *,
    strategy: type[PooledPrior] = PooledPrior,
) -> ServerApp:
    """Build the ServerApp.

    Parameters
    ----------
    settings : RunSettings, optional
        The run's settings; by default they come from Flower's run config, which Flower's
        Python API for simulations leaves empty.
    output : Path, optional
        The run folder, likewise. It must be an absolute path: the working directory is that
        of the SuperLink.
    strategy : type of PooledPrior
        The class of the strategy, for one of your own.
    """
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        """Serve one run."""
        resolved, folder = _settings_of(context) if settings is None else (settings, output)
        if folder is None or not folder.is_absolute():
            raise SettingsError(
                f"output = {str(folder or '')!r} is not an absolute path; "
                "give one with flwr run ... --run-config 'output=\"/path/to/run\"'"
            )
        # Flower's id of the run, so that `flwr list` and the event log speak of the same one.
        with logged_run(folder, command="flwr run", run=str(context.run_id)) as events:
            observer = LoggedObserver(_Log(), events)
            outcome = serve(
                grid,
                resolved,
                output=folder,
                observer=observer,
                events=events,
                strategy=strategy,
            )
            observer.flush()
        if failures := outcome.strategy.failures:
            log(WARNING, "%s", failed_line(failure_rows(failures)))

    return server_app


def _settings_of(context: Context) -> tuple[RunSettings, Path]:
    config = dict(context.run_config)
    output = Path(str(config.pop("output", "")))
    return RunSettings.from_flat(config), output


class _Log(Stopwatch):
    """Tells Flower's log, which `flwr log` shows, about each phase."""

    def start(self, phase: str, total: int | None = None) -> None:
        """Name the phase."""
        super().start(phase, total)
        log(INFO, "%s ...", phase)

    def say(self, text: str) -> None:
        """Pass on what needs attention."""
        log(WARNING, text)


app = make_server_app()
