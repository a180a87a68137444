"""Renders docs/which-recipe.md from what other benchmarks measured: which recipe suits when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fedcert.reports.formats import decimal_up, plural
from fedcert.simulations.benchmarks.choosing_advice import advice
from fedcert.simulations.benchmarks.choosing_figures import (
    BEST_OF,
    FIRM,
    KINDS,
    PLAN,
    Difference,
    Mean,
    Task,
    compared,
    mean_of,
)
from fedcert.simulations.benchmarks.choosing_others import (
    from_which_pool,
    pool_in_words,
    warm_start_in_words,
    with_a_warm_start,
)
from fedcert.simulations.benchmarks.choosing_records import tasks_of
from fedcert.simulations.benchmarks.pages import TARGETS, labels_between, labels_needed

__all__ = ["CHOSEN_FROM", "choosing_page"]

CHOSEN_FROM = ("named", "certificates", "methods", "launched", "sweeps", "warm_start")
"""The records that the page is rendered from."""

_PAGES = {"named": "named.md", "methods": "benchmarks.md", "launched": "launched.md"}
_LIMITS = {
    "named": "the best of the default adapter, the logistic regression and the head from "
    "names, each learned from all n, if it came for free; no search of the prior is among "
    "them, so a plan may be lower",
    "methods": "the best of {methods}, each learned from all n, if it came for free; one "
    "figure for all seeds",
    "launched": "what the best method exports at the largest n, if it came for free: at a "
    "smaller n nobody has learned it yet",
}
_LOWER, _HIGHER, _OPEN, _SAME, _ABSENT = "▼", "▲", "~", "=", "-"
_THEORY = "theory.md#"
_WORDS = (
    "*certificate*: a bound on a client's error that holds but for delta = 0.05; the lower the "
    "better. *n*: the labeled examples of a new client, all that a recipe may spend.",
    "*planned*, *the plan*: the recipe that some upstream clients, which train nothing, "
    "measured to be best at that n ([planning.md](planning.md)), and at an n below the "
    "smallest of theirs that for the smallest: n = 8, launched. It is fixed before a new "
    "client comes, so nobody chose it by the figures below.",
    f"*default*: the prior's center, one adapter for all; nothing is chosen, and all n certify "
    f"([theory.md]({_THEORY}default-nothing-is-chosen)).",
    "*union*: the best of M adapters drawn from the prior; the same n choose and certify. "
    f"*union of 100*: M = 100 ([theory.md]({_THEORY}"
    "2-union-the-same-examples-choose-and-certify)). *prior*, launched: a union, and from 64 "
    "labels on one half chooses and the other certifies.",
    "*hybrid 0.25*: a quarter weights the draws, the others choose again and certify "
    f"([theory.md]({_THEORY}5-hybrid-one-part-weights-the-other-chooses-again-and-certifies)). "
    "*swap 0.5*: each half chooses for the other "
    f"([theory.md]({_THEORY}swap-each-part-chooses-for-the-other)).",
    "*posterior_split 0.375*: three eighths of the examples make one adapter from the prior's "
    "draws, their posterior mean; the others certify it "
    f"([theory.md]({_THEORY}4-posterior-split-one-part-refines-the-other-certifies)). "
    "*fedcert posterior split* takes the share that tuning clients found.",
    "*tuned_head 0.5*, where labels have names *head from names of the default 0.5*: half of "
    "the examples train the default adapter's head, the others certify. *local_head 0.5*, "
    "*head from names 0.5*: the same on the base model, with nothing of the federation. "
    "*fine-tuned from the default*: half of the examples train the whole adapter.",
    "*alone*: what takes nothing from a federation. *local LoRA*, *local*: an adapter (with "
    "names a head) from zero, on half of the examples; tuned, the share was tuned as well. "
    "*embeddings + logistic regression*: on half of them. *zero-shot*: the base model with the "
    "labels' names. *majority*: the most frequent label.",
    "*federated*: other methods, whose upstream clients send something "
    "([baselines.md](baselines.md), [methods.md](methods.md)). *tuned*: "
    "[benchmarks.md](benchmarks.md) tunes each method on clients of its own; *launched*: "
    "[launched.md](launched.md) runs it untuned, with fewer rounds than by default.",
)


def choosing_page(records: Mapping[str, dict[str, Any]]) -> str:
    """Return the page as Markdown.

    Parameters
    ----------
    records : Mapping[str, dict]
        Those of `CHOSEN_FROM`, by name. What is missing is left out.
    """
    tasks = tasks_of(records)
    sweeps, warmed = records.get("sweeps", {}), records.get("warm_start", {})
    also = [*pool_in_words(sweeps), *warm_start_in_words(warmed)]
    parts = [
        "<!-- Rendered by `make bench-all`; do not edit. -->",
        "# Which recipe when",
        "",
        "How is a new client to spend its labels, and what does it have from a federation at "
        "all? Sentences and figures of this page are made from the records of "
        "[named.md](named.md), [benchmarks.md](benchmarks.md), [launched.md](launched.md), "
        "[sweeps.md](sweeps.md), and [warm-start.md](warm-start.md), and compare mean "
        "certificates of the same new clients: lower is better. The words are "
        "[below](#words); [evidence.md](evidence.md#what-is-measured-of-each-task) says what "
        "is measured of each task, and by which code.",
        "",
        *advice(tasks, records.get("certificates", {}), also),
        "",
        *_at_a_glance(tasks),
        *_labels(tasks),
        *_beside_the_plan(tasks),
        *from_which_pool(sweeps),
        *with_a_warm_start(warmed),
        "## Words",
        "",
        *(f"* {words}" for words in _WORDS),
        *_limits(tasks, records.get("methods", {})),
        "",
    ]
    return "\n".join(parts)


def _limits(tasks: Sequence[Task], methods: Mapping[str, Any]) -> Iterator[str]:
    """Say what the limit of each record is."""
    names = ", ".join(methods.get("limit_methods", ()))
    said = [
        f"on [{_PAGES[name]}]({_PAGES[name]}) {_LIMITS[name].format(methods=names)}"
        for name in dict.fromkeys(task.record for task in tasks)
    ]
    if said:
        yield f"* *limit*: {'; '.join(said)}."


# --- who is ahead, and where ---


def _at_a_glance(tasks: Sequence[Task]) -> Iterator[str]:
    if not tasks:
        return
    kinds = [kind for kind in KINDS if any(compared(task, kind) for task in tasks)]
    yield "## At a glance"
    yield ""
    yield (
        f"Each choice beside the plan, a sign for each n: `{_LOWER}` the plan is lower, "
        f"`{_HIGHER}` the plan is higher, `{_OPEN}` no difference shows, `{_SAME}` the very "
        f"same, `{_ABSENT}` not measured. *Best* is that at each n by hindsight; \\* stands "
        f"for some of the clients alone, and fewer than {FIRM} seeds are in brackets. "
        "[How much](#each-choice-beside-the-plan) it is stands below."
    )
    yield ""
    heads = [f"{kind}, best" if kind in BEST_OF else kind for kind in kinds]
    yield f"| task | n | {' | '.join(heads)} |"
    yield "|---" * (2 + len(kinds)) + "|"
    for task in tasks:
        cells = [_signs(task, compared(task, kind)) for kind in kinds]
        yield _row(task.name, [", ".join(map(str, task.sizes)), *cells])
    yield ""


def _signs(task: Task, found: Sequence[Difference]) -> str:
    if not found:
        return ""
    by_n = {each.n: each.gap for each in found}
    said = " ".join(_sign(by_n[n]) if n in by_n else _ABSENT for n in task.sizes)
    if max(gap.seeds for gap in by_n.values()) < FIRM:
        said = f"({said})"
    some = max(gap.clients for gap in by_n.values()) < task.clients
    return f"`{said}` \\*" if some else f"`{said}`"


def _sign(gap: Mean) -> str:
    return _SAME if gap.is_nothing else {1: _LOWER, 0: _OPEN, -1: _HIGHER}[gap.sign]


# --- how many labels ---


def _labels(tasks: Sequence[Task]) -> Iterator[str]:
    if not tasks:
        return
    yield "## How many labels for a certificate"
    yield ""
    yield (
        "The first measured n whose mean certificate is at most the target. *64 to 128*: two "
        "standard errors leave open whether 64 are enough. In brackets the means that decide, "
        "± their standard error; without one a figure has no known error, and a crossing "
        "between two of them may be luck. *Best* needs the fewest labels by these very "
        "figures, a hindsight that the plan does not have. The *limit* is nobody's certificate "
        "([words](#words))."
    )
    yield ""
    yield (
        "| task | seeds, clients | target | plan | best federated baseline | best alone "
        "| limit |"
    )
    yield "|---|---|---|---|---|---|---|"
    for task in tasks:
        for target in TARGETS:
            cells = (
                task.name,
                f"{task.seeds}, {task.clients}",
                f"{target:.0%}",
                _needed(_plan_of(task), target),
                _best_needed(task, "federated", target),
                _best_needed(task, "alone", target),
                _needed(_limit_of(task), target),
            )
            yield f"| {' | '.join(cells)} |"
    yield ""


def _plan_of(task: Task) -> dict[int, Mean]:
    (method,) = task.methods(PLAN)
    return task.certificates(method)


def _limit_of(task: Task) -> dict[int, Mean]:
    return {
        n: mean_of([(limit, None, 0) for limit in by_seed.values()])
        for n, by_seed in sorted(task.limits.items())
    }


def _best_needed(task: Task, kind: str, target: float) -> str:
    """Say how many labels the best of a kind needs, of those on the most clients."""
    found = {method: task.certificates(method) for method in task.methods(kind)}
    found = {method: means for method, means in found.items() if means}
    if not found:
        return "not in this record"
    counts = {
        name: sum(mean.clients for mean in means.values()) for name, means in found.items()
    }
    most = max(counts.values())

    def labels(name: str) -> tuple[float, float]:
        means = found[name]
        n = labels_needed({size: mean.value for size, mean in means.items()}, target)
        return (max(means) + 1 if n is None else n, means[n or max(means)].value)

    best = min((name for name in found if counts[name] == most), key=labels)
    return f"{best}: {_needed(found[best], target)}"


def _needed(means: Mapping[int, Mean], target: float) -> str:
    """Say which n a target takes, as far as the figures tell, and show these."""
    if not means:
        return ""
    first, last = labels_between(
        {n: (mean.value, 2 * (mean.se or 0.0)) for n, mean in means.items()}, target
    )
    largest = max(means)
    if first is None:
        return f"> {largest} ({_shown(means, [largest])})"
    before = [n for n in means if n < first][-1:]
    if first == last:
        return f"{first} ({_shown(means, [*before, first])})"
    shown = [n for n in means if first <= n <= (last or largest)]
    return f"{first} to {last or f'> {largest}'} ({_shown(means, shown)})"


def _shown(means: Mapping[int, Mean], sizes: Sequence[int]) -> str:
    return "; ".join(f"{n}: {_figure(means[n])}" for n in sizes)


def _figure(mean: Mean, form: str = "") -> str:
    """Show a mean certificate, rounded up as bounds are, or a difference in a format."""
    said = f"{mean.value:{form}}" if form else decimal_up(mean.value)
    return said + ("" if mean.se is None else f" ± {mean.se:.3f}")


# --- everything beside the plan ---


def _beside_the_plan(tasks: Sequence[Task]) -> Iterator[str]:
    if not tasks:
        return
    yield "## Each choice beside the plan"
    yield ""
    yield (
        "How much higher its mean certificate is than the plan's on the same clients: above 0 "
        "the plan is better. ± is the larger of the standard errors over seeds, which share a "
        "prior and a plan each, and over clients, as far as the record has both; bold is more "
        "than two of them from 0. Everything else is no difference. A single seed is one prior "
        "and one plan: its standard error, over clients, says nothing about other federations. "
        "*Best of* is chosen at each n with hindsight."
    )
    yield ""
    for task in tasks:
        page = _PAGES[task.record]
        yield f"### {task.name}"
        yield ""
        seeds = plural(task.seeds, "seed")
        yield f"{seeds}, {task.clients} new clients in all ([{page}]({page}))."
        yield ""
        yield f"| | {' | '.join(f'n = {n}' for n in task.sizes)} |"
        yield "|---" * (1 + len(task.sizes)) + "|"
        yield from _rows(task)
        yield ""


def _rows(task: Task) -> Iterator[str]:
    plan, limit = _plan_of(task), _limit_of(task)
    if task.planned:
        yield _row("*planned recipes*", [", ".join(task.recipes(n)) for n in task.sizes])
    yield _row("*certificate of the plan*", [_figure(plan[n]) for n in task.sizes])
    yield _row("*limit*", [_figure(limit[n]) for n in task.sizes])
    for kind in KINDS:
        if kind in BEST_OF and (found := compared(task, kind)):
            count = len({name for n in task.sizes for name in task.rivals(kind, n)})
            if count > 1:
                yield _best_row(task, f"{kind}, best of {count}", found)
        # Too many to show: their pages have them all.
        for method in task.methods(kind) if kind != "federated" else ():
            gaps = [task.gaps(method, n) for n in task.sizes]
            some = max((gap.clients for gap in gaps if gap), default=0)
            note = f" ({some} of {task.clients} clients)" if some < task.clients else ""
            yield _row(f"{method}{note}", ["" if gap is None else _gap(gap) for gap in gaps])


def _best_row(task: Task, label: str, found: Sequence[Difference]) -> str:
    cells = {each.n: f"{_gap(each.gap)}, {each.method}" for each in found}
    some = max(each.gap.clients for each in found)
    note = f" ({some} of {task.clients} clients)" if some < task.clients else ""
    return _row(f"{label}{note}", [cells.get(n, "") for n in task.sizes])


def _gap(gap: Mean) -> str:
    if gap.is_nothing:
        return "the same"
    said = _figure(gap, "+.3f")
    return f"**{said}**" if gap.sign else said


def _row(label: str, cells: Sequence[str]) -> str:
    return f"| {label} | {' | '.join(cells)} |"
