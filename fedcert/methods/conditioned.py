"""Methods that learn how to personalize: a net reads off a client's inputs what to train.

First the clients average an adapter. Then they say once how their inputs look to the frozen
base model, as sums that standardize a net's input. From then on only the net's weights go up:
each client finds out what would have served it, and the net learns to say so from its inputs.
Of a new client its choosing examples go through the net, and inputs without labels if it has
some, but nothing that certifies, so its certificate stays valid.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fedcert.adapters.forward import AdaptedModel
from fedcert.adapters.space import AdapterSpace
from fedcert.adapters.statistics import count_linears, layer_statistics
from fedcert.arrays import FloatArray
from fedcert.certificates import Recipe
from fedcert.data.examples import Examples
from fedcert.errors import AdapterError, MethodRefusedError, SettingsError
from fedcert.methods.adapters import AdapterMethod
from fedcert.methods.base import State, Update
from fedcert.methods.learning import learned_recipe
from fedcert.models import BaseModel
from fedcert.named_arrays import prefixed, under
from fedcert.priors import PointPrior

__all__ = ["ConditionedMethod"]

_ADAPTER, _NET, _POOLED = "adapter.", "net.", "pooled."
_OWN = "statistics"
# A statistic that hardly differs between clients says nothing, rather than anything.
_SMALLEST_DEVIATION = 1e-3


@dataclass(frozen=True, kw_only=True)
class ConditionedMethod(AdapterMethod):
    """Averages an adapter, then a net from statistics of a client's inputs to what it trains.

    Parameters
    ----------
    net_rounds : int (default: 40)
        Rounds of the net, after those of the adapter and one of statistics.
    net_steps : int (default: 10)
        A client's steps on the net in a round.
    net_rate : float (default: 0.003)
        Their learning rate.
    plain : bool (default: False)
        Let plain fine-tuning compete on the certifying examples, at its share of delta.
    linears : int
        How many modules the statistics are of; the base model says it.
    """

    net_rounds: int = 40
    net_steps: int = 10
    net_rate: float = 0.003
    plain: bool = False
    linears: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.net_rounds, self.net_steps) < 1 or self.net_rate <= 0:
            raise SettingsError(
                f"setting 'averaging.options': {self.kind} needs net_rounds and net_steps of "
                "at least 1, and a positive net_rate"
            )

    def fitted_to(self, base: BaseModel) -> Self:
        """Return the method for the modules of a base model."""
        try:
            return replace(self, linears=count_linears(base))
        except AdapterError as error:
            raise MethodRefusedError(
                f"setting 'method': {self.kind} does not fit: {error}"
            ) from None

    @property
    def rounds(self) -> int:
        """Rounds of the adapter, one of statistics, and those of the net."""
        return self._statistics_round + self.net_rounds

    @property
    def _statistics_round(self) -> int:
        return self.federated.rounds + 1

    def recipe(self, terms: Mapping[str, Any]) -> Recipe:
        """Learn by the net from some examples, and certify on the others."""
        return learned_recipe(
            self.personal, self.choose_fraction, terms, count=self.made, plain=self.plain
        )

    @property
    def made(self) -> int:
        """How many adapters a new client learns."""
        return 1

    def start(self, space: AdapterSpace, *, seed: int) -> State:
        """Return the adapter that changes nothing, and a net that says the same to all."""
        zeros = np.zeros(2 * self.linears, dtype=np.float32)
        return {
            **prefixed(_ADAPTER, super().start(space, seed=seed)),
            **prefixed(_NET, self.first_net(space, seed=seed)),
            **prefixed(_POOLED, {"mean": zeros, "deviation": zeros + 1}),
        }

    def expects(
        self, space: AdapterSpace, state: State, number: int
    ) -> Mapping[str, tuple[int, ...]]:
        """Return the shapes of an adapter, of sums of statistics, or of a net."""
        if number == self._statistics_round:
            return {"sums": (2 * self.linears,), "squares": (2 * self.linears,)}
        part = _ADAPTER if number < self._statistics_round else _NET
        return {name: array.shape for name, array in under(part, state).items()}

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
        """Train the adapter, say how the inputs look, or train the net."""
        if number < self._statistics_round:
            adapter = under(_ADAPTER, state)
            return super().local(adapter, model, examples, number=number, seed=seed, own={})
        # The base model is frozen, so what it makes of the examples stays as it is.
        found = own.get(_OWN)
        known = statistics_of(model, examples) if found is None else found
        if number == self._statistics_round:
            sums = {"sums": known, "squares": np.square(known)}
            return Update(tensors=sums, weight=1, own={_OWN: known})
        net, measured = self.trained_net(
            under(_NET, state),
            _standardized(known, under(_POOLED, state)),
            self.whole(model.space, under(_ADAPTER, state)),
            model,
            examples,
            seed=seed,
        )
        return Update(tensors=net, weight=len(examples), own={_OWN: known}, measured=measured)

    def merged(self, state: State, updates: Sequence[Update], number: int) -> State:
        """Replace what the round was about."""
        mean = super().merged(state, updates, number)
        if number == self._statistics_round:
            spread = np.sqrt(np.maximum(mean["squares"] - np.square(mean["sums"]), 0.0))
            pooled = {
                "mean": mean["sums"],
                "deviation": np.maximum(spread, _SMALLEST_DEVIATION),
            }
            return {**state, **prefixed(_POOLED, pooled)}
        part = _ADAPTER if number < self._statistics_round else _NET
        return {**state, **prefixed(part, mean)}

    def published(self, space: AdapterSpace, state: State) -> PointPrior:
        """Return the adapter, with the net beside it."""
        center = self.whole(space, under(_ADAPTER, state)).astype(np.float64)
        beside = {k: v for k, v in state.items() if not k.startswith(_ADAPTER)}
        return PointPrior(center, method=self.to_config(), shared=beside)

    def learned(self, prior: PointPrior, model: AdaptedModel, examples: Examples) -> FloatArray:
        """Let the net read the choosing inputs, and train what it says.

        The result is float64 of shape ``(d,)``, or ``(P, d)`` of a method that makes several.
        Where fewer than two labels are seen the shared adapter stays as it is.
        """
        return self._learned(prior, model, examples, None)

    @property
    def reads_inputs(self) -> bool:
        """Its net reads a client's inputs, whoever labeled them."""
        return True

    def learned_beside(
        self, prior: PointPrior, model: AdaptedModel, examples: Examples, unlabeled: Examples
    ) -> FloatArray:
        """Let the net read choosing inputs and those without labels, as one sample.

        Both are draws from what the client meets, so together they say more than either.
        """
        return self._learned(prior, model, examples, unlabeled)

    def _learned(
        self,
        prior: PointPrior,
        model: AdaptedModel,
        examples: Examples,
        unlabeled: Examples | None,
    ) -> FloatArray:
        if len(np.unique(examples.labels)) < 2:
            return np.repeat(prior.center()[None], self.made, axis=0)
        condition, net = self.read_off(prior, model, examples, unlabeled)
        return self.personalized(net, condition, prior.center(), model, examples)

    def read_off(
        self,
        prior: PointPrior,
        model: AdaptedModel,
        examples: Examples,
        unlabeled: Examples | None = None,
    ) -> tuple[npt.NDArray[np.float32], State]:
        """Return the standardized statistics of choosing inputs, and the net that takes them.

        Parameters
        ----------
        prior : PointPrior
            As in `learned`.
        model : AdaptedModel
            The client's.
        examples : Examples
            The choosing examples, whose labels play no part.
        unlabeled : Examples, optional
            Inputs without labels that count like these.

        Returns
        -------
        tuple
            The condition, shape ``(2 L,)``, and the net's weights.
        """
        found = statistics_of(model, examples, unlabeled)
        condition = _standardized(found, under(_POOLED, prior.shared))
        return condition, under(_NET, prior.shared)

    @abstractmethod
    def first_net(self, space: AdapterSpace, *, seed: int) -> State:
        """Return the weights of a net that nobody trained yet."""

    @abstractmethod
    def trained_net(
        self,
        net: State,
        condition: npt.NDArray[np.float32],
        center: npt.NDArray[Any],
        model: AdaptedModel,
        examples: Examples,
        *,
        seed: int,
    ) -> tuple[State, Mapping[str, float]]:
        """Return the net after a client's steps, and numbers about them.

        Parameters
        ----------
        net : State
            The server's.
        condition : numpy.ndarray
            The client's standardized statistics, shape ``(2 L,)``.
        center : numpy.ndarray
            The shared adapter, shape ``(d,)``.
        model : AdaptedModel
            The client's.
        examples : Examples
            Its training examples.
        seed : int
            Of its draws.

        Returns
        -------
        tuple
            The net's weights, and finite numbers by name.
        """

    @abstractmethod
    def personalized(
        self,
        net: State,
        condition: npt.NDArray[np.float32],
        center: npt.NDArray[Any],
        model: AdaptedModel,
        examples: Examples,
    ) -> FloatArray:
        """Return a new client's adapter; without a random number.

        Parameters
        ----------
        net : State
            The published one.
        condition : numpy.ndarray
            The client's standardized statistics, shape ``(2 L,)``.
        center : numpy.ndarray
            The shared adapter, shape ``(d,)``.
        model : AdaptedModel
            The client's.
        examples : Examples
            Its choosing examples.

        Returns
        -------
        numpy.ndarray
            Float64, shape ``(d,)``, or ``(P, d)``.
        """


def statistics_of(
    model: AdaptedModel, examples: Examples, unlabeled: Examples | None = None
) -> npt.NDArray[np.float32]:
    """Return `layer_statistics` as they travel, shape ``(2 L,)``.

    Parameters
    ----------
    model : AdaptedModel
        The client's.
    examples : Examples
        Of which those count that are usable.
    unlabeled : Examples, optional
        Inputs without labels, of which those count like these that can be read.

    Returns
    -------
    numpy.ndarray
        Float32.
    """
    inputs = examples.usable.inputs
    if unlabeled is not None:
        inputs = np.concatenate([inputs, unlabeled.inputs[unlabeled.readable]])
    return layer_statistics(model, inputs).astype(np.float32)


def _standardized(
    statistics: npt.NDArray[np.float32], pooled: State
) -> npt.NDArray[np.float32]:
    return np.asarray((statistics - pooled["mean"]) / pooled["deviation"], dtype=np.float32)
