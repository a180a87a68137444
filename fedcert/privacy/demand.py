"""What a client demands for its uploads, whatever the server's settings say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from fedcert.errors import RefusalError, SettingsError
from fedcert.privacy.mechanism import UploadPrivacy

__all__ = ["PrivacyDemand"]

_DELTA = 1e-5


@dataclass(frozen=True)
class PrivacyDemand:
    """The weakest promise under which a client uploads anything.

    Parameters
    ----------
    epsilon : float
        The largest of one upload.
    delta : float (default: 1e-5)
        At which that holds. It is the client's own, too: a server could choose one with
        which every epsilon is cheap.
    clip : float, optional
        The largest clipping norm; by default the run's.
    budget : float, optional
        Largest epsilon of all uploads together, at `delta`; by default `epsilon`, which is
        enough for one upload.

    Raises
    ------
    SettingsError
        If one of them is out of range.
    """

    epsilon: float
    delta: float = _DELTA
    clip: float | None = None
    budget: float | None = None

    def __post_init__(self) -> None:
        UploadPrivacy(1.0 if self.clip is None else self.clip, self.epsilon, self.delta)
        if not self.epsilon <= self.limit < math.inf:
            raise SettingsError(
                f"the privacy budget must be at least the epsilon of one upload, and finite "
                f"(got {self.budget!r} with epsilon = {self.epsilon!r})"
            )

    @classmethod
    def of_node(cls, config: Mapping[str, Any]) -> Self | None:
        """Read the keys ``privacy-...`` of a node's configuration; None if it has none.

        Raises
        ------
        SettingsError
            If a value is out of range or no number, or ``privacy-epsilon`` is missing.
        """
        names = ("epsilon", "delta", "clip", "budget")
        given = {n: config[f"privacy-{n}"] for n in names if f"privacy-{n}" in config}
        if not given:
            return None
        if "epsilon" not in given:
            raise SettingsError(
                f"privacy-{next(iter(given))} in the node's configuration promises nothing "
                "without privacy-epsilon: add it"
            )
        try:
            return cls(**{name: float(value) for name, value in given.items()})
        except (TypeError, ValueError, SettingsError) as error:
            raise SettingsError(
                f"privacy-{', privacy-'.join(given)} in the node's configuration: {error}"
            ) from error

    @property
    def limit(self) -> float:
        """The epsilon of all uploads together."""
        return self.epsilon if self.budget is None else self.budget

    def met_by(self, offered: UploadPrivacy | None) -> UploadPrivacy:
        """Return the stricter of what is demanded and what a run offers.

        Parameters
        ----------
        offered : UploadPrivacy or None
            The run's promise; None if uploads are to be plain.

        Raises
        ------
        RefusalError
            If the run offers none: its server does not count on noise, and may not say so.
        """
        if offered is None:
            raise RefusalError(
                f"this node uploads with epsilon = {self.epsilon:g} or less, and the run's "
                "privacy.epsilon is 0, which stands for plain uploads; it sends nothing"
            )
        clip = offered.clip if self.clip is None else min(self.clip, offered.clip)
        own = UploadPrivacy(clip, self.epsilon, self.delta)
        return own if own.mu < offered.mu else replace(offered, clip=clip)
