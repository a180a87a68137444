"""``fedcert warm-start``: improve a base model in a simulated federation, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from fedcert.strategies.warmed import Warmed

__all__ = ["warm_start"]


def warm_start(
    scenario: ScenarioArgument = None,
    output: OutputOption = Path("runs/warm-start"),
    settings: SettingsOption = None,
    override: OverridesOption = None,
    runner: RunnerOption = "ray",
) -> None:
    """Let virtual clients improve the base model in federated rounds.

    Ends with the folder of the new base model, which an option `base` of the scenario, a node's
    `base-model`, and `--base-model` take. Without `warm_start.rounds` there are ten rounds.
    To harvest adapters with it at once, set `warm_start.rounds` for `fedcert simulate`: then
    the examples that trained the base model train no adapter.
    """
    from fedcert.runs.failures import failed_line, failure_rows
    from fedcert.runs.progress import ProgressBars

    with naming_the_extra():
        from fedcert.simulations.simulating import simulate_warm_start
    resolved = settings_of(scenario, settings, override or [], otherwise=_OTHERWISE)
    quiet()
    bars = ProgressBars(console)
    with bars.shown():
        warmed = simulate_warm_start(resolved, output=output, runner=runner, listeners=[bars])
    say(f"{len(warmed.rounds)} rounds, {len(warmed.clients)} clients: {_outcome(warmed)}")
    say(f"base model:   {warmed.folder}")
    say(f"digest:       {warmed.digest}  (before: {warmed.before})")
    if warmed.failures:
        raise RunError(failed_line(failure_rows(warmed.failures)))


# Where nobody says how many.
_OTHERWISE = {"warm_start.rounds": 10}


def _outcome(warmed: Warmed) -> str:
    if warmed.privacy is None:
        first, last = warmed.rounds[0]["loss"], warmed.rounds[-1]["loss"]
        return f"the loss after personal steps went from {first:.3f} to {last:.3f} nats"
    epsilon, delta = warmed.privacy["epsilon"], warmed.privacy["delta_p"]
    return f"epsilon {epsilon:.3g} at delta_p = {delta:g} for replacing one client's examples"
