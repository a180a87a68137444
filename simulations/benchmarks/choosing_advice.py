"""The sentences of the page on recipes: they follow from differences, and change with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from scipy.stats import t

from fedcert.reports.formats import plural
from fedcert.simulations.benchmarks.choosing_figures import (
    BEST_OF,
    FIRM,
    KINDS,
    Difference,
    Task,
    compared,
)

__all__ = ["advice", "sizes_in_words"]

_CENTER = ("default", "finetune", "tuned_head")
_ALONE = ("local_head",)
_CHOICES = {
    "a search of the prior": "search",
    "the default adapter, or what is trained from it": "center",
    "what needs no federation": "alone",
}


def advice(
    tasks: Sequence[Task], older: Mapping[str, Any], also: Iterable[str] = ()
) -> Iterator[str]:
    """Yield a list of sentences as Markdown.

    Parameters
    ----------
    tasks : sequence of Task
        What was measured.
    older : Mapping[str, Any]
        The record of the certificates benchmark, whose menu is an older one.
    also : iterable of str
        Sentences on other questions.

    Yields
    ------
    str
        A line each.
    """
    every = [each for task in tasks for kind in KINDS for each in compared(task, kind)]
    firm = [each for each in every if each.gap.seeds >= FIRM]
    yield _overall([each for each in firm if each.kind not in BEST_OF])
    yield from _planned(tasks)
    for kind in (*BEST_OF, *(kind for kind in KINDS if kind not in BEST_OF)):
        if own := [each for each in firm if each.kind == kind]:
            yield f"* **{_title(kind)}** {_counts(own)}."
            if kind in BEST_OF:
                yield f"  * each by itself is worse than the plan in: {_each(tasks, kind)}"
    yield from also
    yield from _open(tasks, firm, older)
    yield ""
    chance = 2 * t.sf(2, FIRM - 1)
    yield (
        f"A sentence on a recipe takes {FIRM} seeds or more. A difference within two standard "
        "errors is no difference here: so few seeds show none, which does not say that there "
        f"is none. Where there is none, {FIRM} seeds show one up to {chance:.0%} of the time "
        "for a single method: one case by itself is a hint, several n and tasks are more. Of "
        "several methods that are as good as the plan, the best by hindsight looks better "
        "more often, and worse less often: hindsight favors it."
    )


def _title(kind: str) -> str:
    title = KINDS[kind][0].upper() + KINDS[kind][1:]
    return f"{title}, the best at each n by hindsight" if kind in BEST_OF else title


def _overall(firm: Sequence[Difference]) -> str:
    """Say whether planning pays, by how often it is ahead of one recipe for all and behind."""
    if not firm:
        return f"* Nothing was measured on {FIRM} seeds yet: there is no advice on recipes."
    ahead, behind = ([each for each in firm if each.gap.sign == sign] for sign in (1, -1))
    if len(ahead) == len(behind):
        what = "Whether to plan makes no difference that shows"
    elif len(ahead) > len(behind):
        what = "Let clients plan (`certificate.recipe = planned`)"
    else:
        what = "Set a recipe by hand"
    same = sum(each.gap.is_nothing for each in firm)
    rest = len(firm) - len(ahead) - len(behind) - same
    higher = f"{len(behind)} ({_named(behind)})" if behind else "none"
    return (
        f"* **{what}**: of {len(firm)} comparisons with a recipe that is set by hand, on the "
        f"same clients, the plan is lower in {len(ahead)}, higher in {higher}, the very same "
        f"in {same}, and {rest} show no difference."
    )


def _named(found: Sequence[Difference]) -> str:
    return "; ".join(
        f"than {each.method} on {each.task.name} at n = {each.n}, by {-each.gap.value:.3f}"
        for each in found
    )


def _counts(own: Sequence[Difference]) -> str:
    """Say how often a kind is worse than the plan, and better, and by how much."""
    worse, better = ([each for each in own if each.gap.sign == sign] for sign in (1, -1))
    best_of = own[0].kind in BEST_OF
    said = (
        f"is worse than the plan in {len(worse)} of {len(own)} cases"
        f"{_range(worse, places=best_of)}, and better in {len(better)}"
        f"{_range(better, places=best_of)}"
    )
    methods = list(dict.fromkeys(each.method for each in own))
    return said if best_of else f"(*{'*, *'.join(methods)}*) {said}"


def _range(here: Sequence[Difference], *, places: bool) -> str:
    """Say where something was found, if asked to, and by how much."""
    if not here:
        return ""
    ends = [f"{value:.3f}" for value in sorted(abs(each.gap.value) for each in here)]
    counts = Counter(each.task.name for each in here)
    where = ", ".join(
        name if count == len(here) else f"{count} on {name}" for name, count in counts.items()
    )
    said = f"by {' to '.join(dict.fromkeys((ends[0], ends[-1])))}"
    return f" ({where}; {said})" if places else f" ({said})"


def _each(tasks: Sequence[Task], kind: str) -> str:
    """Say of each method of a kind how often it is worse than the plan: without hindsight."""
    signs: dict[str, list[int]] = {}
    for task in tasks:
        for n in task.sizes:
            for method, gap in task.rivals(kind, n).items():
                if gap.seeds >= FIRM:
                    signs.setdefault(method, []).append(gap.sign)
    return ", ".join(
        f"{own.count(1)} of {len(own)} (*{method}*)" for method, own in signs.items()
    )


def sizes_in_words(sizes: Sequence[int], every: Sequence[int]) -> str:
    """Say at which of the measured n something holds.

    Examples
    --------
    >>> sizes_in_words([16, 32], [16, 32, 64]), sizes_in_words([32, 64], [16, 32, 64])
    ('up to n = 32', 'from n = 32 on')
    """
    own, known = sorted(sizes), sorted(every)
    if len(own) > 1:
        if own == known:
            return "at every n"
        if own == known[: len(own)]:
            return f"up to n = {own[-1]}"
        if own == known[-len(own) :]:
            return f"from n = {own[0]} on"
    return f"at n = {', '.join(map(str, own))}"


def _planned(tasks: Sequence[Task]) -> Iterator[str]:
    """Say of what sort the planned recipes are: where the prior is searched at all."""
    parts = []
    for words, sort in _CHOICES.items():
        places = []
        for task in tasks:
            every = [n for n in task.sizes if task.recipes(n)]
            sizes = [n for n in every if sort in map(_sort, task.recipes(n))]
            if sizes:
                places.append(f"{task.name} {sizes_in_words(sizes, every)}")
        if places:
            parts.append(f"  * {words}: {'; '.join(places)}")
    if parts:
        yield "* **What plans choose**, in one seed or more:"
        yield from parts


def _sort(recipe: str) -> str:
    first = {part.partition(" ")[0] for part in recipe.split("+")}
    if first <= {*_ALONE}:
        return "alone"
    return "center" if first <= {*_CENTER, *_ALONE} else "search"


def _open(
    tasks: Sequence[Task], firm: Sequence[Difference], older: Mapping[str, Any]
) -> Iterator[str]:
    """Say what no sentence rests on, and why."""
    few = [task for task in tasks if task.name not in {each.task.name for each in firm}]
    said = []
    if few:
        counts = [f"{task.name}, {plural(task.seeds, 'seed')}" for task in few]
        said.append(f"Too few seeds, and so in the tables alone: {'; '.join(counts)}.")
    said += _not_counted(older.get("table", []))
    if said:
        yield f"* **Open**: {' '.join(said)}"


def _not_counted(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Say how the plan stands in the tables that have no differences by client."""
    means: dict[tuple[str, int], dict[str, float]] = {}
    for row in rows:
        of = means.setdefault((row["scenario"], row["n"]), {})
        of[row["recipe"]] = row["mean_certificate"]
    means = {key: of for key, of in means.items() if "planned" in of}
    if not means:
        return
    above = {
        (*key, min(of, key=lambda name: of[name])): of["planned"] - min(of.values())
        for key, of in means.items()
    }
    lowest = sum(not by for by in above.values())
    yield (
        "The tables of [certificates.md](certificates.md), of an older menu and without "
        f"differences by client, are not counted: there the plan's mean is the lowest in "
        f"{lowest} of {len(above)} cases" + _most(above) + "."
    )


def _most(above: Mapping[tuple[str, int, str], float]) -> str:
    (scenario, n, recipe), by = max(above.items(), key=lambda each: each[1])
    if not by:
        return ""
    return (
        f", and above that of the best by up to {by:.3f} (`{recipe}` on `{scenario}`, n = {n})"
    )
