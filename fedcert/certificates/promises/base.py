"""What a promise is: a statement beside the bound, from the same examples, at its own price.

A recipe names its promises, so they are published with the bundle, committed to, and signed
before any example is seen. Each has a share of delta beside the bound's. Like recipes, promises
are carried by certificates, and what an existing kind means must not change.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

from fedcert.certificates.promises.evidence import Evidence
from fedcert.errors import CertificateError, UnknownKindError
from fedcert.extensions import Kinds
from fedcert.records import Record, RecordError

__all__ = [
    "PROMISES",
    "Ground",
    "Outcome",
    "Promise",
    "UnknownPromiseError",
    "register_promise",
]


class UnknownPromiseError(UnknownKindError, CertificateError):
    """No promise of this kind is registered."""


PROMISES: Kinds[Promise[Any]] = Kinds("promise", UnknownPromiseError, asked="promise kind")
"""Every promise that certificates may carry."""

register_promise = PROMISES.register
"""Lets a promise be found by its `kind`; a class decorator."""


@dataclass(frozen=True)
class Ground:
    """What a promise stands on, which follows from recipe, choice, and n.

    Parameters
    ----------
    budget : float
        Probability with which the promise may be false: its part of delta, of which the chosen
        hypothesis has its weight, as in the bound.
    trials : int
        Number of certifying examples, m.
    chosen_on : int
        Number of examples that do not certify, so that what they choose is free.
    public_budget : float
        The same for examples that anybody may have looked at before the adapter was chosen:
        an equal part for each of the M draws, and all of it if the adapter is none of them
        (default: 0, which promises nothing).
    refined : bool
        Whether the adapter is none of the draws (default: False).
    """

    budget: float
    trials: int
    chosen_on: int
    public_budget: float = 0.0
    refined: bool = False


@dataclass(frozen=True)
class Outcome(Record):
    """What became of one promise: its counts and bounds, as a certificate carries them.

    A kind of promise has its own subclass, whose fields are read strictly; the member ``kind``
    of the JSON object says which. Its bounds are the fields whose names end in ``at_most`` or
    ``at_least``; one that is None says nothing.
    """

    what = "promise"
    kind: ClassVar[str]
    figures: ClassVar[tuple[str, ...]] = ()
    """Names of the fields that a plan shows; one that is absent says no more than 1 does."""

    def to_object(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {"kind": self.kind} | super().to_object()

    @classmethod
    def from_object(cls, value: object, path: str | None = None) -> Self:
        """Read the JSON object of any registered kind strictly.

        Parameters
        ----------
        value : object
            The JSON value.
        path : str, optional
            Where it stands, for messages.

        Returns
        -------
        Outcome
            Of the class of its kind.

        Raises
        ------
        RecordError
            If a member is unknown, missing, or ill-typed.
        UnknownPromiseError
            If this version does not know the kind.
        """
        path = path or cls.what
        if not isinstance(value, Mapping):
            raise RecordError(f"{path} must be an object, not {value!r}")
        members = dict(value)
        kind = members.pop("kind", None)
        if cls is not Outcome:
            own: Self = super().from_object(members, path)
            return own
        found = PROMISES.named(kind).outcome.from_object(value, path)
        return cast(Self, found)

    def row(self) -> str:
        """Return the outcome in a few words, for a line or a table's cell."""
        raise NotImplementedError

    def planned(self) -> dict[str, float]:
        """Return what a plan shows of it, by kind and field."""
        values = {name: getattr(self, name) for name in self.figures}
        return {
            f"{self.kind}.{name}": 1.0 if value is None else value
            for name, value in values.items()
        }

    def earned_by(self, found: Outcome) -> bool:
        """Return whether another outcome of the promise says as much: no bound of it less.

        Parameters
        ----------
        found : Outcome
            What another adapter gives, or another threshold.
        """
        if type(found) is not type(self):
            return False
        for name in (field.name for field in fields(self)):
            said, other = getattr(self, name), getattr(found, name)
            if said is None or not name.endswith(("at_most", "at_least")):
                continue
            if other is None or (other > said if name.endswith("at_most") else other < said):
                return False
        return True

    def chosen(self) -> float | None:
        """Return what was chosen, if it was a threshold; None if nothing was."""
        return None

    def answers_above(self) -> float | None:
        """Return the margin below which the adapter gives no answer; None if it always does."""
        return None

    def early_exit(self) -> tuple[str, float] | None:
        """Return digest and margin of an adapter that may answer first; None if none may."""
        return None


OutcomeType = TypeVar("OutcomeType", bound=Outcome)


@dataclass(frozen=True, kw_only=True)
class Promise(ABC, Generic[OutcomeType]):
    """One statement that a recipe makes beside its bound.

    Parameters
    ----------
    share : float
        Its delta as a multiple of the recipe's own, from 0 on. Later attempts have less of
        both.
    """

    kind: ClassVar[str]
    outcome: ClassVar[type[Outcome]]
    public: ClassVar[bool] = False
    """Whether bundle and adapter alone show that it was counted right."""
    takes_server: ClassVar[bool] = False
    """Whether it means nothing where no server says who is certified."""

    share: float

    def __post_init__(self) -> None:
        share = self.share
        if (
            isinstance(share, bool)
            or not isinstance(share, int | float)
            or not 0 <= share < 2**20
        ):
            raise CertificateError(f"share must be a number from 0 on, not {share!r}")

    @classmethod
    def asked(cls, argument: str | None, *, share: float) -> Self:
        """Make the promise as a setting asks for it.

        Parameters
        ----------
        argument : str or None
            What follows the kind and "="; None if nothing does.
        share : float
            Its share.

        Raises
        ------
        CertificateError
            If the argument says nothing here.
        ValueError
            If it is no number where there must be one.
        """
        if argument is not None:
            raise CertificateError(f"{cls.kind!r} takes no argument, such as {argument!r}")
        return cls(share=share)

    def choose(self, evidence: Evidence, ground: Ground) -> Any:
        """Return what is chosen by the examples that do not certify; by default nothing is.

        Parameters
        ----------
        evidence : Evidence
            Its `Evidence.choosing` answers, and no others, unless `count` pays for the choice.
        ground : Ground
            What it stands on.
        """
        return None

    @abstractmethod
    def count(self, evidence: Evidence, chosen: Any, ground: Ground) -> OutcomeType:
        """Count on the certifying examples.

        Parameters
        ----------
        evidence : Evidence
            What the certified adapter answers.
        chosen : Any
            Of `choose`.
        ground : Ground
            What it stands on.

        Returns
        -------
        Outcome
            The counts, with the bounds that follow.
        """

    @abstractmethod
    def bound(self, outcome: OutcomeType, ground: Ground) -> OutcomeType:
        """Return an outcome with its bounds computed again from its counts.

        Parameters
        ----------
        outcome : Outcome
            With its counts.
        ground : Ground
            What it stands on.

        Raises
        ------
        CertificateError
            If the counts are impossible.
        """

    def asked_for(self) -> str:
        """Say in a few words what is asked of it, for a table; by default its kind."""
        return self.kind

    def gives(self, outcome: OutcomeType) -> bool:
        """Return whether an outcome gives what is asked; by default each does."""
        return True

    @abstractmethod
    def purpose(self) -> str:
        """Say what its share of delta buys, for the ledger."""

    @abstractmethod
    def words(self, outcome: OutcomeType, ground: Ground) -> str:
        """Say in a sentence or two what the certificate promises.

        Parameters
        ----------
        outcome : Outcome
            What was counted.
        ground : Ground
            What it stands on.
        """

    def fulfil(self, evidence: Evidence, ground: Ground) -> OutcomeType:
        """Choose, count, and bound.

        Parameters
        ----------
        evidence : Evidence
            What the certified adapter answers.
        ground : Ground
            What it stands on.
        """
        return self.count(evidence, self.choose(evidence, ground), ground)

    def recount(self, outcome: OutcomeType, evidence: Evidence, ground: Ground) -> str | None:
        """Check an outcome against the examples.

        Parameters
        ----------
        outcome : Outcome
            What a certificate says.
        evidence : Evidence
            What the certified adapter answers.
        ground : Ground
            What it stands on.

        Returns
        -------
        str or None
            What the examples leave open; None if nothing.

        Raises
        ------
        CertificateError
            If the examples give another one.
        """
        found = self.fulfil(evidence, ground)
        if found != outcome:
            raise CertificateError(
                f"the examples give {found.row()}; the certificate says {outcome.row()}"
            )
        return None

    def again(self, outcome: OutcomeType, evidence: Evidence, ground: Ground) -> OutcomeType:
        """Return what another adapter gives, by what its own answers choose.

        Where the certifying examples choose, among what is all paid for, they may choose what
        they chose for the certified one.

        Parameters
        ----------
        outcome : Outcome
            What a certificate says.
        evidence : Evidence
            What the other adapter answers.
        ground : Ground
            What it stands on.

        Returns
        -------
        Outcome
            To hold a certificate's against (`Outcome.earned_by`).
        """
        chosen = self.choose(evidence, ground)
        return self.count(evidence, outcome.chosen() if chosen is None else chosen, ground)

    def check_task(self, labels: int, *, own_labels: bool) -> None:
        """Raise `CertificateError` if a task leaves the promise without a meaning.

        Parameters
        ----------
        labels : int
            K, the number of labels; 0 if each client brings its own.
        own_labels : bool
            Whether clients bring their own.
        """

    def check_delta(self, total: float) -> None:
        """Raise `CertificateError` if a certificate's whole delta is too much."""

    def check_beside(self, outcome: OutcomeType, *, errors: int, trials: int) -> None:
        """Raise `CertificateError` if counts contradict those of the bound.

        Parameters
        ----------
        outcome : Outcome
            What was counted.
        errors : int
            Wrong labels among the certifying examples.
        trials : int
            Number of certifying examples, m.
        """

    @property
    def holders(self) -> int | None:
        """How many clients it lets hold certificates of one bundle; None for any number."""
        return None

    def to_config(self) -> dict[str, Any]:
        """Return the JSON object from which `promises_from` makes an equal promise."""
        return {"kind": self.kind, **asdict(self)}
