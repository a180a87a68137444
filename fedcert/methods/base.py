"""The interface of methods: how a federation learns, and how a new client goes on from there.

A method says in words what is shared, what is personal, and how a new client learns, and it
has a recipe, which says how that client's examples are spent. One that asks upstream clients
in rounds is an `AveragingMethod`: the server has a *state*, named arrays, that starts
somewhere; in each round some clients make an update of it, and the server merges the updates.
After the last round the state is published as a prior, nearly always a point, so that new
clients commit, learn, certify, and are verified as with any other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from fedcert.adapters.forward import AdaptedModel
from fedcert.adapters.space import AdapterSpace
from fedcert.arrays import FloatArray
from fedcert.certificates import Recipe
from fedcert.data.examples import Examples
from fedcert.errors import SettingsError
from fedcert.methods.federated import FederatedSettings, weighted_mean
from fedcert.methods.local_training import PersonalTraining
from fedcert.models import BaseModel
from fedcert.priors import PointPrior
from fedcert.priors.base import Prior

__all__ = ["AveragingMethod", "Method", "State", "Update"]

State = Mapping[str, npt.NDArray[np.float32]]
"""Named float32 arrays: what travels, or what a client keeps."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Update:
    """What a client made of the server's state in a round.

    Attributes
    ----------
    tensors : State
        What goes up, of the shapes that `AveragingMethod.expects` says.
    weight : int
        How much it counts in the mean: the number of examples.
    own : State
        What stays with the client until its next round (default: nothing).
    measured : Mapping[str, float]
        Finite numbers about the work, for the report (default: none).
    """

    tensors: State
    weight: int
    own: State = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """How a federation learns, and how a new client is personalized; its fields are settings.

    A method of your own is a frozen dataclass with a `kind`; `register_method` lets the setting
    `method` name it.

    Parameters
    ----------
    federated : FederatedSettings
        What upstream clients do, of a method that has rounds.
    personal : PersonalTraining
        How a new client learns from its choosing examples.
    choose_fraction : float (default: 0.5)
        Share of a new client's examples that it learns from; the others certify.

    Attributes
    ----------
    kind : str
        What settings and bundles call it.
    title : str
        What people call it.
    shares, keeps, learns : str
        What is shared, what is personal, and how a new client learns, in a few words.
    asks : str
        What upstream clients are asked: ``"rounds"``, ``"adapters"`` once, or ``"nothing"``.
    own_heads : bool
        Whether every client has a head of its own, which never travels.
    pulls_upstream, pulls_new : bool
        Whether the loss pulls clients to the server's adapter as they train, and new clients as
        they learn; by how much is a setting.
    """

    kind: ClassVar[str]
    title: ClassVar[str]
    shares: ClassVar[str]
    keeps: ClassVar[str]
    learns: ClassVar[str]
    asks: ClassVar[str] = "nothing"
    own_heads: ClassVar[bool] = False
    pulls_upstream: ClassVar[bool] = False
    pulls_new: ClassVar[bool] = False

    federated: FederatedSettings = field(default_factory=FederatedSettings)
    personal: PersonalTraining = field(default_factory=PersonalTraining)
    choose_fraction: float = 0.5

    def __post_init__(self) -> None:  # noqa: B027 - settings of most need no other check
        """Raise `SettingsError` if a setting is out of its range."""

    def fitted_to(self, base: BaseModel) -> Self:
        """Return the method with what it has to know of a base model; most know nothing.

        Raises
        ------
        SettingsError
            If it is none for this base model.
        """
        return self

    def check(self, space: AdapterSpace) -> None:  # noqa: B027 - most fit every space
        """Raise `SettingsError` if it is none for models of this space."""

    @abstractmethod
    def recipe(self, terms: Mapping[str, Any]) -> Recipe | None:
        """Return how a new client's examples are spent; None if the settings or a plan say it.

        Parameters
        ----------
        terms : Mapping
            What every recipe takes: ``delta``, ``first_share``, and ``randomized``.
        """

    def published(self, space: AdapterSpace, state: State) -> Prior:
        """Return what new clients get: by default the adapter that changes nothing."""
        return PointPrior(np.zeros(space.dimension))

    def learned(self, prior: PointPrior, model: AdaptedModel, examples: Examples) -> FloatArray:
        """Return a new client's adapter, for recipes with the refinement ``"learned"``.

        It must repeat itself: the same arguments, the same adapter up to rounding. The default
        refuses, since most methods learn by a refinement that recipes have in any case.

        Parameters
        ----------
        prior : PointPrior
            What was published, with its center and the arrays beside it.
        model : AdaptedModel
            The client's model, with its own labels.
        examples : Examples
            The choosing examples; none that certifies is among them.

        Returns
        -------
        numpy.ndarray
            Float64, shape ``(d,)``; ``(P, d)`` if the recipe pays for P finalists of it.
        """
        raise SettingsError(f"the method {self.kind} has no rule of its own for new clients")

    @property
    def reads_inputs(self) -> bool:
        """Whether its rule for new clients can use inputs without labels; most cannot."""
        return False

    def learned_beside(
        self, prior: PointPrior, model: AdaptedModel, examples: Examples, unlabeled: Examples
    ) -> FloatArray:
        """Return a new client's adapter as `learned` does, from inputs without labels as well.

        Parameters
        ----------
        prior, model, examples
            As in `learned`.
        unlabeled : Examples
            Inputs of the same client, one or more, in an order that follows from what they
            are. None of them certifies, and their labels say nothing.

        Returns
        -------
        numpy.ndarray
            As `learned`.

        Raises
        ------
        SettingsError
            Unless the method says that it `reads_inputs`.
        """
        raise SettingsError(f"the method {self.kind} has no use for inputs without labels")

    def to_config(self) -> dict[str, Any]:
        """Return kind and settings as a JSON object."""
        special = {
            "federated": self.federated.to_config(),
            "personal": self.personal.to_config(),
        }
        plain = {
            entry.name: getattr(self, entry.name)
            for entry in fields(self)
            if entry.name not in special
        }
        return {"kind": self.kind, **special, **plain}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Rebuild a method from the settings of `to_config`.

        Raises
        ------
        SettingsError
            If a key is unknown or missing, or a value out of its range.
        """
        values = {name: value for name, value in config.items() if name != "kind"}
        try:
            return cls(
                **values
                | {
                    "federated": FederatedSettings.from_config(values["federated"]),
                    "personal": PersonalTraining.from_config(values["personal"]),
                }
            )
        except (KeyError, TypeError) as error:
            raise SettingsError(f"these are no settings of {cls.kind}: {error}") from None


@dataclass(frozen=True, kw_only=True)
class AveragingMethod(Method):
    """A method with rounds, after each of which the server merges the clients' updates."""

    asks: ClassVar[str] = "rounds"

    @property
    def rounds(self) -> int:
        """How many rounds there are; the first has the number 1."""
        return self.federated.rounds

    @abstractmethod
    def start(self, space: AdapterSpace, *, seed: int) -> State:
        """Return what the server has before the first round."""

    def expects(
        self, space: AdapterSpace, state: State, number: int
    ) -> Mapping[str, tuple[int, ...]]:
        """Return names and shapes of an update's arrays: by default those of the state.

        Parameters
        ----------
        space : AdapterSpace
            The coordinates of adapters.
        state : State
            The server's before the round.
        number : int
            The round.

        Returns
        -------
        Mapping
            Shapes by name.
        """
        return {name: array.shape for name, array in state.items()}

    @abstractmethod
    def local(
        self,
        state: State,
        model: AdaptedModel,
        examples: Examples,
        *,
        number: int,
        seed: int,
        own: State,
    ) -> Update:
        """Do one client's part of a round.

        Parameters
        ----------
        state : State
            The server's.
        model : AdaptedModel
            The client's model, with its own labels.
        examples : Examples
            Its training examples.
        number : int
            The round, from 1 on.
        seed : int
            Of the client's draws in this round.
        own : State
            What the client kept of its last round; empty before.

        Returns
        -------
        Update
            What goes up, and what stays.
        """

    def merged(self, state: State, updates: Sequence[Update], number: int) -> State:
        """Return the state after a round: by default the mean, by weight, of each array.

        Parameters
        ----------
        state : State
            The server's before the round.
        updates : sequence of Update
            In the order of their clients' names: a sum's last bits depend on it.
        number : int
            The round.

        Returns
        -------
        State
            What the next round begins with, or what is published.
        """
        weights = [update.weight for update in updates]
        return {
            name: weighted_mean([update.tensors[name] for update in updates], weights)
            for name in updates[0].tensors
        }
