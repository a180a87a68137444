"""``make bench-all``: run every benchmark, and render what rests on several of them.

With ``--resume`` those are skipped whose figures are all of the code that is here. Each
benchmark also goes on by itself where it stopped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from fedcert.simulations.benchmarks.choosing_page import CHOSEN_FROM, choosing_page
from fedcert.simulations.benchmarks.provenance import landed_with, sources_of, unchanged_since
from fedcert.simulations.benchmarks.publishing import (
    has_page,
    record_of,
    results_file,
    say,
    write_page,
)
from fedcert.simulations.benchmarks.task_coverage import COVERED, task_coverage

__all__ = ["BENCHMARKS", "Benchmark", "documents_of_all", "evidence_page", "main"]


@dataclass(frozen=True)
class Benchmark:
    """One of the benchmarks.

    Attributes
    ----------
    name : str
        The target of the Makefile is ``bench-NAME``.
    page : str
        What it renders, below ``docs/``.
    question : str
        What it answers.
    record : str
        Its file among the results; the name by default.
    module : str
        What the Makefile runs; the name by default.
    """

    name: str
    page: str
    question: str
    record: str = ""
    module: str = ""

    @property
    def file(self) -> str:
        """Name of its record."""
        return self.record or self.name

    @property
    def documents(self) -> dict[str, str]:
        """What is rendered from its record, by path below ``docs/``; empty without one."""
        record = record_of(self.file)
        if not record:
            return {}
        module = self.module or self.name.replace("-", "_")
        found: dict[str, str] = import_module(f"{__package__}.{module}").documents(record)
        return found

    @property
    def measured(self) -> dict[str, Any]:
        """Where its figures come from; empty if no record says so."""
        found: dict[str, Any] = record_of(self.file).get("measured", {})
        return found

    @property
    def sources(self) -> list[str]:
        """What Git is asked about its code."""
        return sources_of(self.module or self.name.replace("-", "_"))

    @property
    def is_current(self) -> bool:
        """Whether all figures are of the code that is here."""
        codes, sources = self.measured.get("code", ()), self.sources
        return bool(codes) and all(unchanged_since(code, sources) for code in codes)


BENCHMARKS = (
    Benchmark("demo", "demo.md", "what `make demo` takes and gives"),
    Benchmark("scenarios", "scenarios.md", "what every scenario gives by default"),
    Benchmark("tables", "tables.md", "a table of one's own, beside no federation"),
    Benchmark("named", "named.md", "labels of clients' own, beside what needs no federation"),
    Benchmark("methods", "benchmarks.md", "fedcert beside every other method"),
    Benchmark("launched", "launched.md", "every method, launched as a run would be"),
    Benchmark("structure", "structure.md", "which parts of an adapter to train"),
    Benchmark("promises", "promises.md", "what is promised beside the bound"),
    Benchmark("points", "points.md", "which depth and precision, with a bound for each"),
    Benchmark(
        "living", "theory.md", "bounds that spot checks tighten", module="promises_living"
    ),
    Benchmark(
        "sampling", "theory.md", "what dropped and copied rows do", module="sampling_page"
    ),
    Benchmark("certificates", "certificates.md", "which recipe, and coverage"),
    Benchmark("prior", "prior.md", "which prior, poisoned pools, and the audit"),
    Benchmark("domains", "domains.md", "from which pool on a prior pays"),
    Benchmark("sweeps", "sweeps.md", "candidates, rank, pool, and shift, one at a time"),
    Benchmark("warm-start", "warm-start.md", "rounds on the base model", "warm_start"),
    Benchmark("privacy", "private-default.md", "what central differential privacy costs"),
    Benchmark("search", "searching.md", "how fast candidates are scored"),
    Benchmark("scale", "scale.md", "larger base models, and memory against its formula"),
    Benchmark("deployment", "reliability.md", "faults, and a thousand clients"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run them; exit with 1 if one failed, after the others have run."""
    parser = argparse.ArgumentParser(prog="bench-all", description=__doc__)
    parser.add_argument("--resume", action="store_true", help="skip what is up to date")
    parser.add_argument("--only", nargs="+", choices=[one.name for one in BENCHMARKS])
    parser.add_argument("--page", action="store_true", help="render all pages, measure nothing")
    options = parser.parse_args(arguments)
    failed = [] if options.page else list(_run(options.only, resume=options.resume))
    for one in BENCHMARKS if options.page else ():
        for path, text in one.documents.items():
            say(f"wrote {write_page(path, text)}")
    for path, text in documents_of_all().items():
        say(f"wrote {write_page(path, text)}")
    if failed:
        sys.exit(f"error: these failed: {', '.join(failed)}; --resume goes on with them")


def documents_of_all() -> dict[str, str]:
    """Return what is rendered from several records, by path below ``docs/``."""
    records = {name: record_of(name) for name in CHOSEN_FROM}
    return {"evidence.md": evidence_page(), "which-recipe.md": choosing_page(records)}


def _run(only: Sequence[str] | None, *, resume: bool) -> list[str]:
    failed = []
    chosen = [one for one in BENCHMARKS if not only or one.name in only]
    for number, one in enumerate(chosen, 1):
        say(f"[{number}/{len(chosen)}] {one.name}: ", end="")
        if resume and one.is_current:
            say("up to date")
            continue
        say("running")
        started = time.monotonic()
        # The words are those of the table above.
        done = subprocess.run(["make", f"bench-{one.name}"], check=False)  # noqa: S603, S607
        say(f"{one.name}: {(time.monotonic() - started) / 60:.0f} minutes")
        if done.returncode:
            failed.append(one.name)
    return failed


def evidence_page() -> str:
    """Return the list of benchmarks as Markdown."""
    lines = [
        "<!-- Rendered by `make bench-all`; do not edit. -->",
        "# Where the figures come from",
        "",
        "Every figure of these pages is rendered from a file in "
        "`simulations/benchmarks/results/`, which a command writes. `make bench-all` runs all "
        "of them, and `make bench-all RESUME=--resume` skips those whose figures are of the "
        "code that is there; the code of other benchmarks does not count. A benchmark that was "
        "stopped goes on where it stopped.",
        "",
        "*Measured by* names the commits. A plus stands for files that differed from the "
        "commit, *landed with* for a record from before records named commits, and *unknown* "
        "for figures that were kept from then, of which no time is known either. *Hours* are "
        "what the figures of known time took from scratch, on the machine that the page names "
        "and beside whatever else ran there.",
        "",
        "| command | what it answers | page | date | measured by | hours |",
        "|---|---|---|---|---|---|",
    ]
    for one in BENCHMARKS:
        measured = one.measured
        if measured:
            hours = f"{measured['seconds'] / 3600:.1f}"
            cells = (measured["date"], ", ".join(measured["code"]), hours)
        elif landed := landed_with(results_file(one.file)):
            cells = (landed[1], f"landed with {landed[0]}", "")
        else:
            cells = ("", "not measured yet", "")
        page = f"[{one.page}]({one.page})" if has_page(one.page) else f"`{one.page}`"
        words = (f"`make bench-{one.name}`", one.question, page, *cells)
        lines.append(f"| {' | '.join(words)} |")
    pages = {one.file: one.page for one in BENCHMARKS}
    coverage = task_coverage({name: record_of(name) for name in COVERED}, pages)
    return "\n".join([*lines, "", *coverage])


if __name__ == "__main__":
    main()
