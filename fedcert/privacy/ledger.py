"""What a client has released so far, and what all of it together promises."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from fedcert.atomic import write_atomically
from fedcert.canonical import canonical_json
from fedcert.errors import RefusalError
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
    """

    purpose: str
    mu: float


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
        try:
            listed = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
            self._releases = [Release(str(r["purpose"]), float(r["mu"])) for r in listed]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RefusalError(
                f"{path}: the record of this client's releases is damaged ({error}); restore "
                "it from a backup, since nothing may be released without it"
            ) from error

    @property
    def releases(self) -> tuple[Release, ...]:
        """All releases, oldest first."""
        return tuple(self._releases)

    def spent(self, delta: float) -> float:
        """Return the epsilon of all releases together at a delta."""
        return epsilon_of(composed(*(r.mu for r in self._releases)), delta)

    def spend(self, release: Release, *, budget: float, delta: float) -> None:
        """Record a release before it is made.

        Parameters
        ----------
        release : Release
            The one that is about to be made.
        budget : float
            Largest epsilon of all releases together; 0 means no limit.
        delta : float
            At which epsilon is reckoned.

        Raises
        ------
        RefusalError
            If it would exceed the budget; nothing is recorded then.
        """
        together = epsilon_of(composed(*(r.mu for r in self._releases), release.mu), delta)
        if budget and together > budget * (1 + 1e-6):
            raise RefusalError(
                f"this client has released {len(self._releases)} adapters; with one more its "
                f"epsilon would be {together:.3g}, above its budget of {budget:g}"
            )
        self._releases.append(release)
        listed = [{"purpose": r.purpose, "mu": r.mu} for r in self._releases]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path, canonical_json(listed))
