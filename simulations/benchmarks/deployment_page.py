"""The rendered sections of docs/reliability.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedcert.simulations.benchmarks.pages import machine_line
from fedcert.simulations.benchmarks.publishing import between_markers

__all__ = ["KINDS", "reliability_page"]

KINDS = {
    "server": "The server and its disk",
    "node": "Nodes, and SuperLink and SuperNodes as real processes with TLS",
    "upload": "Uploads and certificates",
    "device": "Devices without a server",
}
"""Sections of faults, by the name of the file of their tests: ``test_KIND_faults.py``."""


def reliability_page(page: str, record: dict[str, Any]) -> str:
    """Render a record into the page, section by section; a part it lacks stays as it is."""
    for key, section in _SECTIONS.items():
        if key in record:
            page = between_markers(page, f"bench-deployment {key}", section(record))
    return page


def _faults(record: dict[str, Any]) -> str:
    lines: list[str] = []
    rows = record["faults"]
    for kind, title in KINDS.items():
        if all(row["kind"] != kind for row in rows):
            continue
        lines += [
            f"### {title}",
            "",
            "| what goes wrong | what comes of it | lost |",
            "|---|---|---|",
            *(
                f"| {_cell(row['fault'])} | {_cell(_outcome(row))} | {_cell(row['lost'])} |"
                for row in rows
                if row["kind"] == kind
            ),
            "",
        ]
    good = sum(row["as_expected"] for row in rows)
    lines.append(
        f"{good} of {len(rows)} faults came out as their tests expect; bringing all of them "
        f"about took {sum(row['seconds'] for row in rows):.0f} s."
    )
    return "\n".join(lines)


def _outcome(row: dict[str, Any]) -> str:
    if row["as_expected"]:
        return str(row["outcome"])
    return f"**{row['outcome']}** (expected: {row['expected']})"


def _simulation(record: dict[str, Any]) -> str:
    run = record["simulation"]
    each = 1e3 * run["client_seconds"] / run["clients"]
    rows = {
        "upstream clients, uploads in the pool": f"{run['clients']:,}, {run['pooled']:,}",
        "training phase, as the user sees it": f"{run['train_seconds']:.1f} s",
        "clients' own work, all together": f"{run['client_seconds']:.1f} s "
        f"({each:.0f} ms each)",
        f"ideal: that work on {run['cores']} cores": f"{run['ideal_seconds']:.1f} s",
        "**wall time over ideal**": f"**{run['ratio']:.2f}**",
        "wall time over ideal, of the clients' processor time alone": (
            f"{run['ratio_of_cpu']:.2f}"
        ),
        "processor time of all processes over the clients' own": f"{run['ratio_of_work']:.2f}",
        "wall time over ideal, the start included": f"{run['ratio_with_start']:.2f}",
        "start: base model, Ray, and every client saying who it is": (
            f"{run['start_seconds']:.1f} s"
        ),
        "processor time of the server in the training phase": (
            f"{run['server_cpu_seconds']:.1f} s"
        ),
    }
    return "\n".join(
        [
            machine_line(record),
            "",
            "| | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in rows.items()),
        ]
    )


def _memory(record: dict[str, Any]) -> str:
    return "\n".join(
        [
            "| upstream clients | server process, MiB | all processes, MiB |",
            "|---|---|---|",
            *(
                f"| {row['clients']:,} | {row['server_mib']:.0f} | {row['total_mib']:.0f} |"
                for row in record["peak_rss_by_clients"]
            ),
        ]
    )


def _pool(record: dict[str, Any]) -> str:
    pool = record["pooled_uploads"]
    return (
        f"{pool['uploads']:,} uploads of {pool['dimension']} numbers, one by one through all "
        f"checks onto the disk: {pool['seconds']:.0f} s, {pool['first_tenth_ms']:.1f} ms each "
        f"at the beginning and {pool['last_tenth_ms']:.1f} ms at the end; the process grew by "
        f"{pool['mib']:.0f} MiB. Reading the whole pool takes {pool['read_seconds']:.1f} s, "
        "and looking for copies and outliers among all of them "
        f"{pool['screen_seconds']:.1f} s and {pool['screen_mib']:.0f} MiB."
    )


def _footprint(record: dict[str, Any]) -> str:
    row = record["footprint"]
    listed = ", ".join(f"`{name}`" for name in row["unwanted"]) or "none"
    return "\n".join(
        [
            "| | |",
            "|---|---|",
            f"| `fedcert personalize --help` | {row['help_seconds']:.2f} s |",
            f"| importing what the command needs | {row['import_seconds']:.2f} s |",
            f"| personalizing a tiny model after that | {row['personalize_seconds']:.2f} s |",
            f"| memory after the imports | {row['after_imports_mib']:.0f} MiB |",
            f"| memory at the peak | {row['peak_rss_mib']:.0f} MiB |",
            f"| server-side libraries imported all the same | {listed} |",
        ]
    )


def _cell(text: object) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


_SECTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "faults": _faults,
    "simulation": _simulation,
    "peak_rss_by_clients": _memory,
    "pooled_uploads": _pool,
    "footprint": _footprint,
}
