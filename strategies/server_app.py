"""The ServerApp, for ``flwr run`` and deployments."""

from logging import INFO, WARNING
from pathlib import Path

from flwr.app import Context
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

from fedcert.runs.events import logged_run
from fedcert.runs.failures import failed_line, failure_rows
from fedcert.runs.machine import PeakMemory
from fedcert.runs.progress import Stopwatch, Viewer
from fedcert.settings import RunSettings
from fedcert.settings.run_config import check_absolute, settings_and_output
from fedcert.strategies.pooled_prior import PooledPrior
from fedcert.strategies.reporting import results_of, write_results
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

    Returns
    -------
    ServerApp
        The app, for `flwr run` or a simulation.
    """
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        """Serve one run."""
        resolved, folder = settings, output
        if resolved is None:
            resolved, folder = settings_and_output(context.run_config)
        check_absolute(folder)
        assert folder is not None  # it is absolute
        # Flower's id of the run, so that `flwr list` and the event log speak of the same one.
        watch = Stopwatch()
        with logged_run(
            folder, command="flwr run", run=str(context.run_id), listeners=[watch, _Log()]
        ) as events:
            with PeakMemory() as memory:
                outcome = serve(grid, resolved, output=folder, events=events, strategy=strategy)
                results = results_of(
                    outcome, resolved, output=folder, events=events, command="flwr run"
                )
            write_results(results, folder, watch=watch, memory=memory, events=events)
        if failures := outcome.strategy.failures:
            log(WARNING, "%s", failed_line(failure_rows(failures)))

    return server_app


class _Log(Viewer):
    """Tells Flower's log, which `flwr log` shows, about each phase."""

    def on_phase(self, name: str, total: int | None) -> None:
        """Name the phase."""
        log(INFO, "%s ...", name)

    def on_note(self, text: str) -> None:
        """Pass on what needs attention."""
        log(WARNING, text)

    def on_device(self, device: str) -> None:
        """Name the device."""
        log(INFO, "computing on %s", device)


app = make_server_app()
