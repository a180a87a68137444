"""The ServerApp, for ``flwr run`` and deployments."""

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedcert.errors import SettingsError
from fedcert.settings import RunSettings
from fedcert.strategies.serving import serve

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
    serve(grid, RunSettings.from_flat(config), output=output)
