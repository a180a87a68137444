"""The account of the noised means that a run folder has published, or was about to."""

from __future__ import annotations

from pathlib import Path

from fedcert.privacy import ReleaseLedger
from fedcert.privacy.gaussian import composed
from fedcert.privacy.ledger import Release
from fedcert.randomness import fresh_seed

__all__ = ["MeanReleases"]


class MeanReleases:
    """Keeps a mean before anybody sees it, so that whoever loses a version publishes no other.

    Parameters
    ----------
    path : Path
        A JSON file; there need not be one yet.

    Raises
    ------
    RefusalError
        If the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._ledger = ReleaseLedger(path)

    def of(self, purpose: str, mu: float) -> Release:
        """Return the release of a mean: the one that is kept, if there is one.

        With the same adapters, promise, and version it is made again with the same noise, and
        so costs nothing.

        Parameters
        ----------
        purpose : str
            Digest of all that the mean follows from, but for its noise.
        mu : float
            Its Gaussian privacy.

        Returns
        -------
        Release
            With the secret that its noise is drawn with.
        """
        known = (each for each in self._ledger.releases if each.purpose == purpose)
        return next(known, Release(purpose, mu, seed=fresh_seed()))

    def before(self, release: Release, listed: tuple[float, ...]) -> tuple[float, ...]:
        """Return mu of all others that others may have seen.

        Parameters
        ----------
        release : Release
            The one that is about to be made.
        listed : tuple of float
            mu of those that the latest version lists: a folder of before has no account.

        Returns
        -------
        tuple of float
            Those of the account, or of the list if that promises less.
        """
        noted = [r.mu for r in self._ledger.releases if r.purpose != release.purpose]
        return max(tuple(noted), listed, key=lambda mus: composed(*mus))

    def note(self, release: Release) -> None:
        """Keep a release before the mean is written anywhere."""
        if release not in self._ledger.releases:
            self._ledger.spend(release, budgets=())
