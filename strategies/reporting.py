"""What a run leaves to read: results.json, summary.json, the report, and certificates' pages.

A simulation, ``flwr run``, and a deployment end with the same files. What only somebody who has
the clients' data can measure is there where the scenario has them: in simulations.
"""

from __future__ import annotations

import shutil
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fedcert.adapters import PrefixCache
from fedcert.atomic import write_json
from fedcert.canonical import sha256_hex
from fedcert.certificates import Certificate
from fedcert.certificates.by_label import read_by_label
from fedcert.data.examples import Examples
from fedcert.errors import FedcertError
from fedcert.evaluation.alone import alone, bounds_alone
from fedcert.evaluation.by_size import bounds_by_size, sizes_up_to
from fedcert.evaluation.elsewhere import errors_elsewhere
from fedcert.evaluation.profiles import fit_baselines, risk_curves
from fedcert.fitting import FittedPrior
from fedcert.planning import Plan, recipe_name
from fedcert.priors import PRIORS
from fedcert.reports.certificate_page import write_certificate_page
from fedcert.reports.results import RESULTS_FORMAT, read_results
from fedcert.reports.summary import headline
from fedcert.runs.events import Events
from fedcert.runs.failures import Failure, failure_rows
from fedcert.runs.machine import PeakMemory, describe_machine, versions
from fedcert.runs.progress import Stopwatch
from fedcert.scenarios import Scenario
from fedcert.settings import RunSettings
from fedcert.strategies.evidence import evidence_of, prior_section
from fedcert.strategies.serving import ServedRun
from fedcert.verification import verify

__all__ = ["promised_rows", "results_of", "write_results"]


def results_of(
    outcome: ServedRun, settings: RunSettings, *, output: Path, events: Events, command: str
) -> dict[str, Any]:
    """Gather everything that a run's report shows, and copy the base model into its folder.

    Parameters
    ----------
    outcome : ServedRun
        What `serve` returned.
    settings : RunSettings
        What was asked for.
    output : Path
        The run folder.
    events : Events
        Told what is being done.
    command : str
        What somebody typed.

    Returns
    -------
    dict
        In the format ``fedcert.results/1``.
    """
    strategy, scenario, bundle = outcome.strategy, outcome.scenario, outcome.bundle
    events.phase("copy the base model")
    shutil.copytree(outcome.base.name, output / "base-model", dirs_exist_ok=True)
    evidence = evidence_of(outcome, settings, output)
    measured = _measured_on_data(outcome, evidence, settings, events)
    certificates, own = strategy.certificates, measured.pop("alone", {})
    elsewhere = measured.pop("elsewhere", {})
    example = next(iter(certificates.values()), None)
    return {
        "format": RESULTS_FORMAT,
        "scenario": scenario.name,
        "description": scenario.description,
        "finished": datetime.now(UTC).isoformat(timespec="minutes"),
        "seed": settings.seed,
        "method": settings.method,
        "command": command,
        "machine": describe_machine(),
        "versions": versions(),
        "labels": list(scenario.labels),
        # Where labels are the clients' own, they may differ in number: the mean.
        "chance": float(np.mean([made.chance for made in certificates.values()]))
        if certificates
        else None,
        "delta": settings.certificate.delta,
        "clients": [
            _client_row(outcome, client, output)
            | own.get(client, {})
            | {"elsewhere_error": elsewhere.get(client)}
            for client in sorted(certificates)
        ],
        "plan": _plan_rows(bundle.plan),
        "prior": prior_section(outcome, evidence, settings),
        "communication": _communication(outcome),
        "failures": failure_rows(_failures(outcome)),
        "statement": None if example is None else example.statement,
        "assumptions": [] if example is None else list(example.assumptions),
        "bundle_version": bundle.version,
        "digests": {
            "bundle": bundle.digest,
            "base model": bundle.base_digest,
            "adapter space": bundle.space.digest,
            "prior": bundle.prior.digest,
        },
        "warm_start": None if outcome.warmed is None else outcome.warmed.to_config(),
        "bound_by_n": [],
        "profiles": [],
        **measured,
    }


def write_results(
    results: dict[str, Any],
    output: Path,
    *,
    watch: Stopwatch,
    memory: PeakMemory,
    events: Events,
) -> dict[str, Any]:
    """Write results, summary, report, and a page for each certificate into the run folder.

    Parameters
    ----------
    results : dict
        Of `results_of`; gets timings and memory.
    output : Path
        The run folder.
    watch : Stopwatch
        Timed the phases.
    memory : PeakMemory
        Watched the memory.
    events : Events
        Told if there is no report, since the plotting library is not installed.

    Returns
    -------
    dict
        The summary: the few figures that are compared over time.
    """
    watch.stop()
    results["timings"] = [{"phase": p, "seconds": s} for p, s in watch.seconds.items()]
    results["peak_rss_mib"] = round(memory.peak_mib)
    summary = _summary(results)
    write_json(output / "results.json", results)
    write_json(output / "summary.json", summary)
    try:
        from fedcert.reports import write_report
    except ModuleNotFoundError as error:
        events.note(
            f"NOTE: no report.html, which takes the package {error.name!r}: with "
            f"fedcert[report] installed, fedcert report {output} makes it from results.json"
        )
    else:
        write_report(results, output / "report.html")
    return summary


def _failures(outcome: ServedRun) -> list[Failure]:
    before = [] if outcome.warmed is None else outcome.warmed.failures
    return [*before, *outcome.strategy.failures]


def _client_row(outcome: ServedRun, client: str, output: Path) -> dict[str, Any]:
    certificate = outcome.strategy.certificates[client]
    measured = outcome.strategy.measurements.get(client, {})
    # A simulated client's own folder; a node's is on another machine.
    kept = output / "clients" / client
    record = kept / "certificate.json"
    if not record.is_file():
        record = output / "certificates" / f"{client}.json"
    adapter = kept / "adapter"
    report = verify(
        certificate, bundle=outcome.bundle, adapter=adapter if adapter.is_dir() else None
    )
    page = record.with_suffix(".html")
    write_certificate_page(certificate, page)
    by_label = read_by_label(record.parent, certificate)
    return {
        "client": client,
        "n": certificate.support_size,
        "recipe": certificate.recipe.kind,
        "candidates": certificate.recipe.candidates,
        "errors": certificate.errors,
        "certified_on": certificate.certified_on,
        "bound": certificate.bound,
        "delta": certificate.delta,
        "test_error": measured.get("test-error"),
        "test_examples": int(measured.get("num-test-examples", 0)),
        "seconds": measured.get("seconds"),
        "certificate": record.relative_to(output).as_posix(),
        "page": page.relative_to(output).as_posix(),
        "verified": report.passed,
        "errors_by_label": by_label and {name: list(pair) for name, pair in by_label.items()},
        "promises": promised_rows(certificate),
    }


def promised_rows(certificate: Certificate) -> list[dict[str, Any]]:
    """Return what a certificate was asked to promise beside its bound, and what it gives."""
    kept = zip(certificate.recipe.promises, certificate.promises or (), strict=False)
    return [
        {
            "asked": promise.asked_for(),
            "given": promise.gives(outcome),
            "figures": {
                name.partition(".")[2].replace("_", " "): value
                for name, value in outcome.planned().items()
            },
        }
        for promise, outcome in kept
    ]


def _measured_on_data(
    outcome: ServedRun, evidence: FittedPrior | None, settings: RunSettings, events: Events
) -> dict[str, Any]:
    """Measure on the clients' own examples, where this process has them."""
    served = set(outcome.strategy.certificates)
    # Nodes with data of their own are none of the scenario's clients.
    if not served or not served <= {*outcome.scenario.new_clients}:
        return {}
    try:
        return _measured(outcome, evidence, settings, events)
    except (FedcertError, OSError) as error:
        events.note(f"NOTE: nothing was measured beyond the certificates: {error}")
        return {}


def _measured(
    outcome: ServedRun, evidence: FittedPrior | None, settings: RunSettings, events: Events
) -> dict[str, Any]:
    scenario, bundle = outcome.scenario, outcome.bundle
    certificate, evaluation = settings.certificate, settings.evaluation
    size, most = certificate.support_size, evaluation.clients
    # That of the certificates' bounds, without the parts of promises and of other clients:
    # whoever trains alone pays for these neither more nor less.
    delta = certificate.shares()["delta"]
    budgets = settings.client
    cache = PrefixCache(budgets.cache_mib, disk_mib=budgets.cache_disk_mib)
    model = bundle.task(outcome.base).model(prefix_cache=cache)
    found: dict[str, Any] = {"data": _describe_data(outcome, size)}
    # A client that got no certificate may have no examples either: the run has told it.
    certified = [c for c in scenario.new_clients if c in outcome.strategy.certificates]
    events.phase("certify without the federation", len(certified))
    by_n = alone(
        model,
        scenario,
        clients=certified,
        sizes=sizes_up_to(size),
        delta=delta,
        most=most,
        on_step=events.advance,
    )
    found["alone"] = by_n[size]
    exported = {name: c.adapter_vector for name, c in outcome.strategy.certificates.items()}
    found["elsewhere"] = errors_elsewhere(exported, model, scenario)
    # Of the same clients at every n, as recipes are replayed.
    found["local"] = {"by_n": bounds_alone(by_n, among=certified[:most])}
    events.phase("replay the recipes", min(most, len(certified)))
    found["bound_by_n"] = bounds_by_size(
        bundle.prior,
        model,
        scenario,
        bundle_digest=bundle.digest,
        candidates=certificate.candidates,
        delta=delta,
        largest=size,
        clients=certified[:most],
        served=bundle.recipes,
        on_step=events.advance,
    )
    if evaluation.baselines and evidence is not None:
        events.phase("compare the priors", len(PRIORS))
        found["profiles"] = risk_curves(
            fit_baselines(evidence.prior, evidence.fitted_on, seed=settings.seed),
            model,
            scenario,
            candidates=evaluation.candidates,
            seed=settings.seed,
            clients=certified[:most],
            on_step=events.advance,
        )
    return found


def _describe_data(outcome: ServedRun, size: int) -> dict[str, Any]:
    """Return a digest of the clients' examples, and how often each label occurs."""
    scenario, failed = outcome.scenario, {f.client for f in outcome.strategy.failures}
    upstream = [client for client in scenario.upstream_clients if client not in failed]
    parts: dict[str, dict[str, Examples]] = {
        "upstream clients": {c: scenario.training_examples(c) for c in upstream},
        "new clients": {
            c: scenario.support_examples(c, size) for c in outcome.strategy.certificates
        },
    }
    digests = [
        f"{role}/{client}/{examples.multiset_digest(client)}"
        for role, clients in parts.items()
        for client, examples in sorted(clients.items())
    ]
    return {
        "digest": sha256_hex(*(line.encode() for line in digests)),
        "examples": {role: sum(map(len, clients.values())) for role, clients in parts.items()},
        "labels": {role: _label_counts(scenario, clients) for role, clients in parts.items()}
        if scenario.labels
        else {},
    }


def _label_counts(scenario: Scenario, clients: dict[str, Examples]) -> dict[str, int]:
    counts: Counter[int] = Counter()
    for examples in clients.values():
        counts.update(examples.usable.labels.tolist())
    return {label: counts[index] for index, label in enumerate(scenario.labels)}


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
            "tail": row.tail,
        }
        for row in rows
    ]


def _communication(outcome: ServedRun) -> dict[str, Any]:
    traffic = outcome.strategy.traffic
    new = tuple(outcome.strategy.certificates)
    upstream = tuple(traffic.up.keys() - {*new})
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
        "mean_error_elsewhere": figures.elsewhere,
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
