"""Tables of tickets as companies have them: who handles which request, by a policy of its own.

The texts are the requests of CLINC150. A company sends each to one of its queues. There are a
few ways to do so, the archetypes: a queue for each of the ten domains. A company follows one of
them, but for some intents that it sends elsewhere; and it gets more of some domains than of
others. So companies share something, and none is like another.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedcert.randomness import keyed_generator
from fedcert.simulations.clinc import FILE, Request, read_requests
from fedcert.simulations.sources import data_file

__all__ = ["COLUMNS", "TABLES", "TicketTable", "write_table"]

COLUMNS = ("ticket", "queue", "company")


@dataclass(frozen=True)
class TicketTable:
    """What a table is drawn from.

    Attributes
    ----------
    name : str
        Part of the seed.
    companies, tickets : int
        How many there are, and how many rows each has.
    queues : tuple of str
        The labels.
    archetypes : int
        Ways to deal out domains to queues.
    deviations : float
        Share of intents that a company sends elsewhere than its archetype does.
    evenness : float
        Concentration of the Dirichlet distribution that a company's domains are drawn from.
    """

    name: str
    companies: int
    tickets: int
    queues: tuple[str, ...]
    archetypes: int
    deviations: float
    evenness: float = 3.0

    def rows(self, requests: Sequence[Request], *, seed: int) -> Iterator[tuple[str, str, str]]:
        """Yield ticket, queue, and company of every row."""
        intents = {request.intent: request.domain for request in requests}
        domains = sorted(set(intents.values()))
        policies = [
            self._deal(domains, f"{self.name}/archetype {kind}", seed)
            for kind in range(self.archetypes)
        ]
        for number in range(self.companies):
            company = f"{self.name}-{number:03d}"
            generator = keyed_generator("ticket table", seed, company)
            policy = policies[int(generator.integers(self.archetypes))]
            queue = {intent: policy[domain] for intent, domain in sorted(intents.items())}
            for intent in sorted(intents):
                if generator.random() < self.deviations:
                    others = [name for name in self.queues if name != queue[intent]]
                    queue[intent] = others[int(generator.integers(len(others)))]
            shares = dict(
                zip(
                    domains,
                    generator.dirichlet([self.evenness] * len(domains)).tolist(),
                    strict=True,
                )
            )
            weights = np.array([shares[request.domain] for request in requests])
            drawn = generator.choice(
                len(requests), self.tickets, replace=False, p=weights / weights.sum()
            )
            for row in drawn:
                yield requests[row].text, queue[requests[row].intent], company

    def _deal(self, domains: Sequence[str], key: str, seed: int) -> dict[str, str]:
        """Give every domain a queue, and every queue about as many domains."""
        order = keyed_generator("ticket table", seed, key).permutation(len(domains))
        return {
            domains[place]: self.queues[index % len(self.queues)]
            for index, place in enumerate(order)
        }


TABLES = {
    table.name: table
    for table in (
        TicketTable("companies", 40, 200, ("billing", "technical", "sales"), 3, 0.1),
        TicketTable("sites", 8, 600, ("desk", "field", "partner"), 2, 0.1),
    )
}


def write_table(table: TicketTable, path: Path, *, seed: int, data: str = "") -> Path:
    """Write a table as CSV.

    Parameters
    ----------
    table : TicketTable
        What to draw from.
    path : Path
        The file.
    seed : int
        Draws policies and rows.
    data : str (default: "")
        Folder of ``clinc150.csv.gz``; by default ``$FEDCERT_DATA``.

    Returns
    -------
    Path
        The file.
    """
    requests = read_requests(data_file("tables", data, FILE))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(table.rows(requests, seed=seed))
    return path
