"""What a client has released so far, and what all of it together promises."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedcert.atomic import write_atomically
from fedcert.canonical import canonical_json
from fedcert.errors import RefusalError
from fedcert.pool.locking import only_one_at_a_time
from fedcert.privacy.gaussian import composed, epsilon_of

__all__ = ["Release", "ReleaseLedger"]


@dataclass(frozen=True)
class Release:
    """One noisy upload.

    Attributes
    ----------
    purpose : str
        What it was for; the same purpose gets the same upload again, at no cost.
    mu : float
        Its Gaussian privacy.
    rounds : int (default: 0)
        How many of its rounds have been published so far, if it has several.
    seed : str (default: "")
        Secret that its noise was drawn with, if the same release can be made again.
    """

    purpose: str
    mu: float
    rounds: int = 0
    seed: str = ""

    def to_object(self) -> dict[str, Any]:
        """Return the JSON object that a ledger keeps."""
        rounds = {"rounds": self.rounds} if self.rounds else {}
        seed = {"seed": self.seed} if self.seed else {}
        return {"purpose": self.purpose, "mu": self.mu, **rounds, **seed}


class ReleaseLedger:
    """A client's own record of its releases, on its own disk.

    Parameters
    ----------
    path : Path
        A JSON file; there need not be one yet.

    Raises
    ------
    RefusalError
        If the file is damaged: a client that does not know what it has released must not
        release more.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._releases = _read(path)

    @property
    def releases(self) -> tuple[Release, ...]:
        """All releases, oldest first."""
        return tuple(self._releases)

    def spent(self, delta: float) -> float:
        """Return the epsilon of all releases together at a delta."""
        return epsilon_of(self.mu, delta)

    @property
    def mu(self) -> float:
        """The Gaussian privacy of all releases together."""
        return composed(*(r.mu for r in self._releases))

    def check(self, mu: float, *, budgets: Iterable[tuple[float, float]]) -> None:
        """Raise `RefusalError` if a release of this mu would exceed a budget; record nothing.

        Parameters
        ----------
        mu : float
            Its Gaussian privacy.
        budgets : iterable of (float, float)
            As `spend` takes them.
        """
        for budget, delta in budgets:
            self._check(mu, budget, delta)

    def spend(self, release: Release, *, budgets: Iterable[tuple[float, float]]) -> None:
        """Record a release before it is made.

        Parameters
        ----------
        release : Release
            The one that is about to be made.
        budgets : iterable of (float, float)
            Largest epsilon of all releases together, and the delta at which it is reckoned.
            Each of them must be kept.

        Raises
        ------
        RefusalError
            If it would exceed a budget; nothing is recorded then.
        """
        with self._writing():
            self.check(release.mu, budgets=budgets)
            self._releases.append(release)

    def note_rounds(self, purpose: str, rounds: int) -> None:
        """Record how many rounds of a release are published, before the last of them is.

        Parameters
        ----------
        purpose : str
            Of a release that is recorded.
        rounds : int
            How many; fewer than before change nothing.
        """
        with self._writing():
            self._releases = [
                replace(r, rounds=max(r.rounds, rounds)) if r.purpose == purpose else r
                for r in self._releases
            ]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Let a block change the list of releases as it is on the disk."""
        # Nodes that share a state folder may be asked at the same moment.
        with only_one_at_a_time(self._path.with_suffix(".lock"), what=f"{self._path}"):
            self._releases = _read(self._path)
            yield
            listed = [release.to_object() for release in self._releases]
            write_atomically(self._path, canonical_json(listed))

    def _check(self, mu: float, budget: float, delta: float) -> None:
        together = epsilon_of(composed(self.mu, mu), delta)
        if together > budget * (1 + 1e-6):
            raise RefusalError(
                f"{len(self._releases)} adapters have been released from this client's state "
                f"folder; with one more its epsilon would be {together:.3g}, above its budget "
                f"of {budget:g}"
            )


def _read(path: Path) -> list[Release]:
    try:
        listed = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        return [
            Release(
                str(r["purpose"]),
                float(r["mu"]),
                int(r.get("rounds", 0)),
                str(r.get("seed", "")),
            )
            for r in listed
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RefusalError(
            f"{path}: the record of this client's releases is damaged ({error}); restore it "
            "from a backup, since nothing may be released without it"
        ) from error
