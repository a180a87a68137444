"""The settings of certificates: how labels are spent, and what is promised for them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from fedcert.certificates.attempts import FIRST_SHARE
from fedcert.certificates.promises import (
    ExitPromise,
    PointsPromise,
    SimultaneousPromise,
    points_of,
    promises_asked,
    rounded_down,
)
from fedcert.errors import CertificateError
from fedcert.settings.sections import Section

__all__ = ["CertificateSettings"]


class CertificateSettings(Section):
    """How new clients spend their labels. Fixed before any new client is served."""

    support_size: int = Field(default=64, ge=1)
    """Labeled examples of each new client, in simulation."""
    candidates: int = Field(default=1000, ge=1)
    delta: float = Field(default=0.05, gt=0, lt=1)
    recipe: str = "union"
    """Recipe for support sets below `split_from`; or ``"planned"``: upstream clients that train
    no adapter measure which recipe suits which size."""
    split_from: int = Field(default=64, ge=1)
    """From this size on, one half chooses and the other certifies; without effect on a plan."""
    randomized: bool = False
    """Bounds take a random number from the server's seed: lower on average, and true just as
    often. Certificates without a server are not randomized."""
    first_share: float = Field(default=FIRST_SHARE, gt=0, lt=1)
    """Share of delta that a client's first certificate has; all later ones, on fresh examples
    too, divide the rest. Lower it where certificates are to be renewed."""
    promises: str = ""
    """What certificates say beside the bound, separated by commas: ``abstention=0.1``,
    ``gain=default`` or ``gain=base``, ``sets=3``."""
    promised: float = Field(default=0.5, gt=0, lt=1)
    """Share of delta that the promises have together, in equal parts."""
    simultaneous: int = Field(default=0, ge=0)
    """Clients of a bundle whose certificates are to hold all at once: each has an equal part of
    delta, and no more are served. 0 and 1: each certificate stands for itself."""
    points: str = ""
    """Names of a client's operating points, in their order, separated by commas, such as
    ``depth-2, depth-4, full``. Each is a run with the same points, and its certificates have an
    equal part of delta, so that all of a client's hold at once. Empty: there is only one."""
    point: str = ""
    """Which of `points` this run is."""

    @field_validator("promises")
    @classmethod
    def _known_promises(cls, promises: str) -> str:
        try:
            promises_asked(promises, share=0.0)
        except CertificateError as error:
            raise ValueError(str(error)) from error
        return promises

    @model_validator(mode="after")
    def _known_points(self) -> Self:
        try:
            self._check_points()
        except CertificateError as error:
            raise ValueError(str(error)) from error
        return self

    def _check_points(self) -> None:
        """Raise `CertificateError` where points are not named, or an exit is at none before."""
        promises = self.shares()["promises"]
        exits = [each for each in promises if isinstance(each, ExitPromise)]
        this = points_of(promises)
        if this is None and (self.point or exits):
            what = f"point = {self.point!r}" if self.point else "the promise 'exit'"
            raise CertificateError(
                f"{what} needs certificate.points, the names of all operating points"
            )
        before = () if this is None else this.points[: this.points.index(this.point)]
        for each in exits:
            if each.early not in before:
                raise CertificateError(
                    f"an early exit must be at a point that stands before {self.point!r} in "
                    f"certificate.points, and {each.early!r} does not"
                )

    def shares(self) -> dict[str, Any]:
        """Return what recipes make of delta: ``delta`` of the bound alone, and ``promises``."""
        points = tuple(name.strip() for name in self.points.split(",") if name.strip())
        client = Fraction(str(self.delta)) / max(1, self.simultaneous)
        alone = self.simultaneous < 2 and not points
        # In digits that the parts of a certificate's promises add up to again.
        each = client if alone else Fraction(str(rounded_down(client / max(1, len(points)))))
        promises = promises_asked(self.promises, share=0.0)
        if not promises:
            delta = self.delta if alone else rounded_down(each)
        else:
            delta = rounded_down(each * (1 - Fraction(str(self.promised))))
            share = rounded_down((each / Fraction(str(delta)) - 1) / len(promises))
            promises = promises_asked(self.promises, share=share)
        if self.simultaneous > 1:
            promises += (SimultaneousPromise(clients=self.simultaneous, delta=self.delta),)
        if points:
            promises += (PointsPromise(points=points, point=self.point, delta=float(client)),)
        return {"delta": delta, "promises": promises}
