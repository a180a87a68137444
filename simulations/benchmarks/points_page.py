"""The page of ``make bench-points``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["points_page"]

_HEAD = """# Operating points

At what depth and precision may a device run, and what does a certificate promise of each? An
*operating point* is a base model that is cut after some of its layers, or whose weights are
kept in eight bits, with a federation, a bundle, and adapters of its own. One support set
certifies at all points of a client, and delta is divided among them beforehand, so that all
bounds hold at once and the device may pick when it has seen them
([theory.md](theory.md#promises-beside-the-bound)).

## How to

Run one federation for each point, all with the same list of points. The last one may promise
an early exit at one before it:

```sh
fedcert simulate named-intents --output runs/shallow --set scenario.options.depth=2 \\
  --set certificate.points=shallow,full --set certificate.point=shallow
fedcert simulate named-intents --output runs/full \\
  --set certificate.points=shallow,full --set certificate.point=full \\
  --set certificate.promises=exit=shallow@1.5
```

A device takes all bundles and its examples once:

```sh
fedcert points examples.csv --bundle runs/shallow/bundle --bundle runs/full/bundle \\
  --client me --output mine
```

It gets a folder for each point, with adapter and certificate, and a table of bounds,
milliseconds, and MiB. `fedcert verify mine/full/certificate.json` checks a certificate as
ever; with `--early mine/shallow --early-bundle runs/shallow/bundle` and the data it counts
the early exit again. A policy of two points predicts with `fedcert predict mine/full/adapter
texts.csv --early mine/shallow/adapter`.

The certificates are unwitnessed: a server's seed would put the examples into an order of its
own for each bundle, and then they certify at one point alone. So do the clients of a run
itself, whose certificates say nothing of an early exit. Depths are those of `depth` in a
scenario's options, precisions those of `quantization`
([scenarios.md](scenarios.md#fewer-layers)).

"""
_MEASURED = """## Measured

By `{command}` ({scenario}, seed {seeds}; {machine}, one thread): {clients} new clients with n
= {n}, the recipe `{recipe}`, delta = {delta:g}. *Bound* is the mean at delta/{points}, where
the bounds of all {points} points hold at once; *chosen beforehand* what the same counts give
at all of delta, for a device that names its point before it sees an example. *Error* is the
mean on test examples that nothing else used, *false* the clients whose bound it is above.
Milliseconds are the median processor time for one text alone, and MiB all weights, of which
the embedding of words is the same everywhere.

| point | layers | milliseconds | MiB | error | bound | false | chosen beforehand |
|---|---|---|---|---|---|---|---|
"""
_EXITS = """
## An early exit

Answer at `{early}` where the margin is above {threshold:g}, a threshold that planning clients
chose, and else go on to `{late}`. The promise has half of what `{late}` has of delta. Means
over the clients; *late alone*: the bound that `{late}` has beside the promise, at the other
half; *milliseconds*: what follows from the times above and the share that goes on, where it
runs both one after the other.

| | certified at most | true |
|---|---|---|
"""


def points_page(record: Mapping[str, Any]) -> str:
    """Return the page.

    Parameters
    ----------
    record : Mapping
        The benchmark's record; an empty one leaves the tables out.
    """
    if not record:
        return _HEAD
    rows, costs = record["table"], record["costs"]
    clients = {row["client"] for row in rows}
    head = _MEASURED.format(
        command=record["command"],
        scenario=record["scenario"],
        seeds=", ".join(map(str, record["seeds"])),
        machine=record["machine"].get("cpu", "one machine"),
        clients=len(clients),
        n=record["n"],
        recipe=record["recipe"],
        delta=record["delta"],
        points=len(costs),
    )
    lines = [_point(name, cost, rows) for name, cost in costs.items()]
    best = [
        min((row for row in rows if row["client"] == client), key=lambda row: row["bound"])
        for client in sorted(clients)
    ]
    alone = _mean(row["bound_alone"] for row in best)
    lines.append(
        f"| best of {len(costs)} by its bound | | | | {_mean(row['error'] for row in best)} | "
        f"{_mean(row['bound'] for row in best)} | {_false(best, 'bound')} | "
        f"{alone} is not valid ({_false(best, 'bound_alone')} false) |"
    )
    return _HEAD + head + "\n".join(lines) + "\n" + _exits(record)


def _point(name: str, cost: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    own = [row for row in rows if row["point"] == name]
    return (
        f"| {name} | {cost['layers']:g} | {cost['milliseconds']:.1f} | {cost['mib']:.0f} | "
        f"{_mean(row['error'] for row in own)} | {_mean(row['bound'] for row in own)} | "
        f"{_false(own, 'bound')} | {_mean(row['bound_alone'] for row in own)} |"
    )


def _exits(record: Mapping[str, Any]) -> str:
    rows, early, late = record["exits"], record["early"], record["late"]
    said = [row["said"] for row in rows]
    spent = {name: record["costs"][name]["milliseconds"] for name in (early, late)}
    issued = [row for row in record["table"] if row["point"] == late]
    on, really = (
        float(np.mean([part["goes_on_at_most"] for part in said])),
        float(np.mean([row["true_goes_on"] for row in rows])),
    )
    times = [spent[early] + share * spent[late] for share in (on, really)]
    head = _EXITS.format(early=early, late=late, threshold=record["threshold"])
    lines = (
        f"| error of the policy | {_mean(part['wrong_at_most'] for part in said)} | "
        f"{_mean(row['true_wrong'] for row in rows)} |",
        f"| share that goes on | {on:.3f} | {really:.3f} |",
        f"| error of late alone | {_mean(row['issued'] for row in issued)} | "
        f"{_mean(row['error'] for row in issued)} |",
        f"| milliseconds, of {spent[late]:.1f} for late alone | {times[0]:.1f} | "
        f"{times[1]:.1f} |",
    )
    return head + "\n".join(lines) + "\n"


def _mean(values: Any) -> str:
    return f"{float(np.mean(list(values))):.3f}"


def _false(rows: Sequence[Mapping[str, Any]], key: str) -> int:
    return sum(row["error"] > row[key] for row in rows)
