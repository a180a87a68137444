"""``fedcert simulate``: a federation of virtual clients on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from fedcert.cli.console import console, say
from fedcert.cli.running import (
    OutputOption,
    OverridesOption,
    RunnerOption,
    ScenarioArgument,
    SettingsOption,
    naming_the_extra,
    quiet,
    settings_of,
)
from fedcert.errors import RunError
from fedcert.reports.formats import decimal_up
from fedcert.runs.failures import failed_line

__all__ = ["simulate"]


def simulate(
    scenario: ScenarioArgument = None,
    output: OutputOption = Path("runs/latest"),
    settings: SettingsOption = None,
    override: OverridesOption = None,
    runner: RunnerOption = "ray",
    device: Annotated[
        str | None,
        typer.Option(
            help="Where to compute: auto (a GPU, if there is one), cpu, cuda, or mps; short "
            "for `--set device=...`."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON, and nothing else.")
    ] = False,
) -> None:
    """Train, pool, fit a prior, and certify new clients, all on this machine.

    Ends with a table of the new clients and the paths of the HTML report, the bundle, and
    each client's adapter and certificate. The resolved settings are written beside the
    results. Exits with 1 if the run could not do its job or a client failed.
    """
    from fedcert.runs.progress import ProgressBars

    with naming_the_extra():
        from fedcert.simulations.simulating import simulate as run
    placed = [] if device is None else [f"device={json.dumps(device)}"]
    resolved = settings_of(scenario, settings, [*(override or []), *placed])
    quiet()
    if as_json:
        simulation = run(resolved, output=output, runner=runner)
        typer.echo(json.dumps(simulation.summary))
    else:
        bars = ProgressBars(console)
        with bars.shown():
            simulation = run(resolved, output=output, runner=runner, listeners=[bars])
        _print_results(simulation.output, simulation.results, simulation.summary)
    if failures := simulation.results["failures"]:
        raise RunError(failed_line(failures))


def _print_results(output: Path, results: dict[str, Any], summary: dict[str, Any]) -> None:
    from fedcert.reports.results import read_results
    from fedcert.reports.summary import headline
    from fedcert.reports.verdict import verdict

    table = Table(title="New clients", show_footer=True)
    table.add_column("client", footer="mean", overflow="fold")
    table.add_column("n", justify="right")
    table.add_column("recipe")
    table.add_column("errors", justify="right")
    error = summary["mean_test_error"]
    table.add_column(
        "test error", justify="right", footer="-" if error is None else f"{error:.3f}"
    )
    table.add_column(
        "certified", justify="right", footer=decimal_up(summary["mean_certificate"])
    )
    table.add_column("verified")
    for row in results["clients"]:
        table.add_row(
            row["client"],
            str(row["n"]),
            row["recipe"],
            f"{row['errors']} of {row['certified_on']}",
            "-" if row["test_error"] is None else f"{row['test_error']:.3f}",
            decimal_up(row["bound"]),
            "yes" if row["verified"] else "NO",
        )
    console.print(table)
    checked = read_results(results)
    for sentence in verdict(checked, headline(checked)):
        say(sentence)
    named = "prior" if results["method"] == "prior" else "method"
    say(f"{named}: {results['prior']['choice']}")
    if (elsewhere := summary["mean_error_elsewhere"]) is not None:
        say(f"on other new clients' tests the same adapters are wrong for {elsewhere:.1%}")
    for kind, risk in summary["best_of_1000"].items():
        say(f"  best of 1000 candidates, {kind:<10} risk {risk:.3f}")
    say(f"{summary['seconds']:g} s, peak memory {summary['peak_rss_mib']} MiB")
    say(f"report:       {output / 'report.html'}")
    say(f"bundle:       {output / 'bundle'}  (base model: {output / 'base-model'})")
    say(f"certificates: {output / 'clients'}/<client>/certificate.json, adapter/ beside")
