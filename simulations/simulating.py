"""One simulated federation from start to report: ``fedcert simulate``."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedcert.adapters import PrefixCache
from fedcert.atomic import write_atomically, write_json
from fedcert.clients.client_app import make_client_app
from fedcert.devices import resolve_device
from fedcert.errors import RunError, SettingsError, did_you_mean
from fedcert.planning import Plan, recipe_name
from fedcert.priors import PRIORS
from fedcert.reports import RESULTS_FORMAT, write_report
from fedcert.reports.results import read_results
from fedcert.reports.summary import headline
from fedcert.runs.events import Events, Listener, logged_run
from fedcert.runs.failures import failure_rows
from fedcert.runs.machine import PeakMemory, describe_machine, versions
from fedcert.runs.progress import Stopwatch
from fedcert.runs.status import holds_work
from fedcert.scenarios import Scenario, load_scenario
from fedcert.settings import RunSettings
from fedcert.settings.sections import SMALLEST_FIT
from fedcert.simulations.evidence import evidence_of, prior_section
from fedcert.simulations.local_learner import alone
from fedcert.simulations.measuring import bounds_by_size, fit_baselines, risk_curves
from fedcert.simulations.runners import RUNNERS
from fedcert.simulations.runners.gpu_shares import gpu_share, weights_mib
from fedcert.strategies.serving import Outcome, serve
from fedcert.verification import verify

__all__ = ["Simulation", "simulate"]


@dataclass(frozen=True)
class Simulation:
    """What a simulation leaves behind.

    Attributes
    ----------
    output : Path
        The run folder.
    results : dict
        All that the report shows; also ``results.json``.
    summary : dict
        The few figures that are compared over time; also ``summary.json``.
    """

    output: Path
    results: dict[str, Any]
    summary: dict[str, Any]


def simulate(
    settings: RunSettings,
    *,
    output: Path,
    runner: str = "ray",
    listeners: Iterable[Listener] = (),
) -> Simulation:
    """Run a federation of virtual clients, measure it, and write the report.

    Parameters
    ----------
    settings : RunSettings
        What to run.
    output : Path
        The run folder. A pool that is there goes on if the settings are the same.
    runner : str (default: "ray")
        ``"ray"`` or ``"inprocess"``; both give the same results.
    listeners : iterable of callable
        Told every event of the run when it happens.

    Returns
    -------
    Simulation
        The run's results, which stand in the run folder as well.

    Raises
    ------
    SettingsError
        If there is no such scenario or runner, or fewer clients than the prior needs; nothing
        is written then.
    RunError
        If the run could not do its job.
    """
    output = output.resolve()
    if runner not in RUNNERS:
        raise SettingsError(
            f"there is no runner {runner!r}; choose {' or '.join(RUNNERS)}"
            f"{did_you_mean(runner, RUNNERS)}"
        )
    # Once, here: workers have other working directories.
    settings = settings.with_absolute_paths()
    scenario = load_scenario(settings.scenario.name, settings.scenario.options)
    _check_clients(scenario, settings)
    resolve_device(settings.device)  # what is not here is refused before anything is written
    _claim_folder(output, settings)
    watch = Stopwatch()
    told: list[Listener] = [watch, *listeners]
    with logged_run(output, command="fedcert simulate", listeners=told) as events:
        with PeakMemory() as memory:
            outcome = _federate(scenario, settings, output, runner, events)
            events.phase("copy the base model")
            shutil.copytree(outcome.base.name, output / "base-model", dirs_exist_ok=True)
            results = _measure(outcome, settings, events, output)
            watch.stop()
        return _written(results, watch, memory, output)


def _written(
    results: dict[str, Any], watch: Stopwatch, memory: PeakMemory, output: Path
) -> Simulation:
    """Write results, summary, and report into the run folder."""
    results["timings"] = [{"phase": p, "seconds": s} for p, s in watch.seconds.items()]
    results["peak_rss_mib"] = round(memory.peak_mib)
    summary = _summary(results)
    write_json(output / "results.json", results)
    write_json(output / "summary.json", summary)
    write_report(results, output / "report.html")
    return Simulation(output, results, summary)


def _claim_folder(output: Path, settings: RunSettings) -> None:
    """Write the settings into the run folder, or refuse one with work under others.

    A run that failed before any client did its part holds no work: whoever corrects the
    command can give the same folder again.
    """
    path = output / "settings.toml"
    if path.is_file() and not _are_in(path, settings):
        if holds_work(output):
            raise RunError(
                f"{output} holds a run with other settings (see {path}); "
                "choose another folder, or remove this one to start anew"
            )
        # An empty pool is of an adapter space, and an empty log of a seed.
        for name in ("pool", "protocol"):
            shutil.rmtree(output / name, ignore_errors=True)
    write_atomically(path, settings.to_toml().encode())


def _are_in(path: Path, settings: RunSettings) -> bool:
    """Whether a file has these settings; what an earlier version did not write is as it was."""
    try:
        before = RunSettings.read(path)
        # A run may go on elsewhere: where it computes changes nothing that it means.
        client = before.client.model_copy(update={"gpus": settings.client.gpus})
        own = {"device": settings.device, "client": client}
        return before.model_copy(update=own) == settings
    except SettingsError:
        return False


def _check_clients(scenario: Scenario, settings: RunSettings) -> None:
    """Refuse a federation that is too small for its prior, before anybody trains."""
    training = len(scenario.upstream_clients)
    needed = settings.fewest_adapters(training)
    if training >= needed:
        return
    advice = "let more clients train"
    if needed == settings.server.min_pool and training >= SMALLEST_FIT:
        advice = f"lower it, or {advice}"
    elif not settings.server.min_pool:
        advice += (
            ", or do without them: fedcert certify bounds the errors of a model of your own"
        )
    raise SettingsError(
        f"setting 'server.min_pool': {training} upstream clients of the scenario "
        f"{scenario.name} would train, and a prior takes {needed} adapters; {advice}"
        f"{''.join(f'; {note}' for note in scenario.notes)}"
    )


def _check_support(scenario: Scenario, settings: RunSettings, events: Events) -> None:
    """Read each new client's support set; raise if none has one, before anybody trains."""
    failed: dict[str, Exception] = {}
    for client in scenario.new_clients:
        try:
            scenario.support_examples(client, settings.certificate.support_size)
        except Exception as error:  # a scenario is anybody's code
            failed[client] = error
    if not failed:
        return
    if len(failed) == len(scenario.new_clients):
        raise next(iter(failed.values()))
    for client, cause in failed.items():
        events.note(f"NOTE: the new client {client} will get no certificate: {cause}")


def _federate(
    scenario: Scenario,
    settings: RunSettings,
    output: Path,
    runner: str,
    events: Events,
) -> Outcome:
    events.phase("prepare the base model")
    scenario.base_model(on_step=events.note)
    _check_support(scenario, settings, events)
    events.phase(f"start the {runner} runner")
    settings, gpus = _placed(settings, scenario, runner)
    outcomes: list[Outcome] = []
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        outcome = serve(grid, settings, output=output, events=events)
        outcomes.append(outcome)

    RUNNERS[runner](
        server_app,
        make_client_app(settings, output),
        nodes=len(scenario.upstream_clients) + len(scenario.new_clients),
        gpus=gpus,
    )
    if not outcomes:
        raise RunError("the server stopped before its work was done")
    return outcomes[0]


def _placed(
    settings: RunSettings, scenario: Scenario, runner: str
) -> tuple[RunSettings, float]:
    """Return the settings with the device that there is, and a process's share of a GPU."""
    device, gpus = resolve_device(settings.device), 0.0
    if runner == "ray":
        weights = weights_mib(Path(scenario.base_model()))
        gpus = gpu_share(settings.device, device, settings.client.gpus, weights=weights)
    # Ray numbers the GPUs of each process from 0 on.
    name = device.type if runner == "ray" else str(device)
    return settings.model_copy(update={"device": name}), gpus


def _measure(
    outcome: Outcome, settings: RunSettings, events: Events, output: Path
) -> dict[str, Any]:
    """Gather everything that the report shows."""
    strategy, scenario = outcome.strategy, outcome.scenario
    bundle = strategy.bundle
    assert bundle is not None  # serve() raises otherwise
    if not strategy.certificates:
        raise RunError(
            f"the scenario has no new client to certify or measure; the bundle is in "
            f"{output / 'bundle'}"
        )
    cache = PrefixCache(settings.client.cache_mib)
    model = bundle.task(outcome.base).model(prefix_cache=cache)
    evidence = evidence_of(outcome, settings, output)
    clients = [_client_row(outcome, client, output) for client in sorted(strategy.certificates)]
    certificate, most = settings.certificate, settings.evaluation.clients
    events.phase("certify without the federation", len(scenario.new_clients))
    local = alone(
        model,
        scenario,
        size=certificate.support_size,
        delta=certificate.delta,
        on_step=events.advance,
    )
    clients = [row | local.get(row["client"], {}) for row in clients]
    events.phase("replay the recipes", min(most, len(scenario.new_clients)))
    by_size = bounds_by_size(
        evidence.prior,
        model,
        scenario,
        bundle_digest=bundle.digest,
        candidates=certificate.candidates,
        delta=certificate.delta,
        largest=certificate.support_size,
        most=most,
        on_step=events.advance,
    )
    curves: list[dict[str, Any]] = []
    if settings.evaluation.baselines:
        events.phase("compare the priors", len(PRIORS))
        priors = fit_baselines(evidence.prior, evidence.fitted_on, seed=settings.seed)
        curves = risk_curves(
            priors,
            model,
            scenario,
            candidates=settings.evaluation.candidates,
            seed=settings.seed,
            most=most,
            on_step=events.advance,
        )
    example = next(iter(strategy.certificates.values()))
    return {
        "format": RESULTS_FORMAT,
        "scenario": scenario.name,
        "description": scenario.description,
        "seed": settings.seed,
        "command": shlex.join(["fedcert", *sys.argv[1:]]),
        "machine": describe_machine(),
        "versions": versions(),
        "labels": list(scenario.labels),
        # Where labels are the clients' own, they may differ in number: the mean.
        "chance": float(np.mean([made.chance for made in strategy.certificates.values()])),
        "delta": settings.certificate.delta,
        "clients": clients,
        "bound_by_n": by_size,
        "plan": _plan_rows(bundle.plan),
        "prior": prior_section(outcome, evidence, settings),
        "profiles": curves,
        "communication": _communication(outcome),
        "failures": failure_rows(strategy.failures),
        "statement": example.statement,
        "assumptions": list(example.assumptions),
        "bundle_version": bundle.version,
        "digests": {
            "bundle": bundle.digest,
            "base model": bundle.base_digest,
            "adapter space": bundle.space.digest,
            "prior": bundle.prior.digest,
        },
    }


def _client_row(outcome: Outcome, client: str, output: Path) -> dict[str, Any]:
    certificate = outcome.strategy.certificates[client]
    measured = outcome.strategy.measurements.get(client, {})
    bundle = outcome.strategy.bundle
    assert bundle is not None
    folder = output / "clients" / client
    report = verify(certificate, bundle=bundle, adapter=folder / "adapter")
    return {
        "client": client,
        "n": certificate.support_size,
        "recipe": certificate.recipe.kind,
        "candidates": certificate.recipe.candidates,
        "errors": certificate.errors,
        "certified_on": certificate.certified_on,
        "bound": certificate.bound,
        "test_error": measured.get("test-error"),
        "test_examples": int(measured.get("num-test-examples", 0)),
        "seconds": measured.get("seconds"),
        "certificate": f"clients/{client}/certificate.json",
        "verified": report.passed,
    }


def _plan_rows(plan: Plan | None) -> list[dict[str, Any]]:
    rows = [] if plan is None else plan.rows
    return [
        {
            "n": row.n,
            "recipe": recipe_name(row.recipe),
            "mean": row.mean,
            "low": row.low,
            "high": row.high,
            "clients": row.clients,
        }
        for row in rows
    ]


def _communication(outcome: Outcome) -> dict[str, Any]:
    traffic = outcome.strategy.traffic
    upstream = outcome.scenario.upstream_clients
    new = outcome.scenario.new_clients
    return {
        "upload_bytes_per_client": _mean_of(traffic.up, upstream),
        "download_bytes_per_new_client": _mean_of(traffic.down, new),
        "upload_bytes": sum(traffic.up.values()),
        "download_bytes": sum(traffic.down.values()),
    }


def _mean_of(counts: Counter[str], clients: tuple[str, ...]) -> int:
    seen = [counts[client] for client in clients if client in counts]
    return round(float(np.mean(seen))) if seen else 0


def _summary(results: dict[str, Any]) -> dict[str, Any]:
    figures = headline(read_results(results))
    return {
        "new_clients": figures.clients,
        "mean_certificate": figures.mean_bound,
        "mean_test_error": figures.mean_error,
        "local_certificate": figures.local_bound,
        "local_test_error": figures.local_error,
        "best_of_1000": {
            curve["prior"]: point["risk"]
            for curve in results["profiles"]
            for point in curve["best_of"]
            if point["m"] == 1000
        },
        "seconds": round(sum(t["seconds"] for t in results["timings"]), 1),
        "peak_rss_mib": results["peak_rss_mib"],
    }
