"""What a run leaves, for whoever started it."""

from __future__ import annotations

from dataclasses import dataclass, field

from flwr.serverapp.strategy import Result

from fedcert.bundles import Bundle
from fedcert.certificates import Certificate
from fedcert.errors import RunError
from fedcert.protocol.witness import Countersignature
from fedcert.runs.failures import Failure, causes_of
from fedcert.strategies.correspondence import Traffic

__all__ = ["PriorResult"]


@dataclass(repr=False)
class PriorResult(Result):
    """What Flower's `Result` holds, and what came of the run.

    Attributes
    ----------
    bundle : Bundle or None
        What new clients got; None if no prior could be fitted.
    certificates, witnesses : dict
        Verified certificates and their countersignatures by client id.
    failures : list of Failure
        Who failed, when and why.
    measurements : dict
        Numbers that clients reported about their work, by client id.
    traffic : Traffic
        Bytes up and down.
    no_prior : str
        Why no prior was fitted although adapters came in; empty if one was, or too few came.
    """

    bundle: Bundle | None = None
    certificates: dict[str, Certificate] = field(default_factory=dict)
    witnesses: dict[str, Countersignature] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    measurements: dict[str, dict[str, float]] = field(default_factory=dict)
    traffic: Traffic = field(default_factory=Traffic)
    no_prior: str = ""

    def check_done(self, *, new_clients: int, min_pool: int) -> None:
        """Raise `RunError` with all causes if the run could not do its job.

        Parameters
        ----------
        new_clients : int
            How many were to be certified.
        min_pool : int
            Fewest clients with which a prior is fitted.
        """
        if self.bundle is None:
            few = f"fewer than {min_pool} adapters came in, too few for a prior"
            what = self.no_prior or few
        elif new_clients and not self.certificates:
            what = "no new client was certified"
        else:
            return
        listed = causes_of(self.failures)
        raise RunError(f"{what}{': ' + listed if listed else ''}")
