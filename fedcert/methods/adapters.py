"""Methods whose state is an adapter, or the part of one that is shared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fedcert.adapters.codec import decode, encode
from fedcert.adapters.forward import AdaptedModel
from fedcert.adapters.space import AdapterSpace
from fedcert.certificates import Recipe
from fedcert.data.examples import Examples
from fedcert.methods.base import AveragingMethod, State, Update
from fedcert.methods.federated import local_round
from fedcert.methods.learning import default_recipe, finetune_recipe
from fedcert.methods.local_training import head_part
from fedcert.priors import PointPrior
from fedcert.priors.base import Prior

__all__ = ["AdapterMethod", "FedAvg", "FedAvgLocal"]

_HEAD = "head"


@dataclass(frozen=True, kw_only=True)
class AdapterMethod(AveragingMethod):
    """Averages adapters from zero; without their heads where clients train these alone."""

    def start(self, space: AdapterSpace, *, seed: int) -> State:
        """Return the adapter that changes nothing."""
        return self.shared(space, np.zeros(space.dimension))

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
        """Train from the server's adapter, and from this client's head if it has its own."""
        vector = local_round(
            model,
            self.whole(model.space, state),
            examples,
            settings=self.federated,
            seed=seed,
            own_head=own.get(_HEAD),
        )
        kept = {} if self.federated.averages_head else {_HEAD: vector[head_part(model.space)]}
        return Update(tensors=self.shared(model.space, vector), weight=len(examples), own=kept)

    def published(self, space: AdapterSpace, state: State) -> Prior:
        """Return the adapter; its head is zero if heads are not shared."""
        return PointPrior(self.whole(space, state).astype(np.float64))

    def shared(self, space: AdapterSpace, vector: npt.NDArray[Any]) -> State:
        """Return the named tensors of an adapter that travel.

        Parameters
        ----------
        space : AdapterSpace
            The adapter's coordinates.
        vector : numpy.ndarray
            The adapter, shape ``(d,)``.
        """
        home = self._home(space)
        return {name: t for name, t in encode(space, vector).items() if name not in home}

    def whole(self, space: AdapterSpace, state: State) -> npt.NDArray[np.float32]:
        """Return an adapter of what travels, with zeros for what does not.

        Raises
        ------
        AdapterError
            If the tensors are not those of `shared`.
        """
        zeros = {
            tensor.name: np.zeros(tensor.shape, dtype=np.float32)
            for tensor in space.head
            if tensor.name in self._home(space)
        }
        vector = decode(space, {**state, **zeros}, space_digest=space.digest)
        return vector.astype(np.float32)

    def trained(self, space: AdapterSpace) -> slice:
        """Return which coordinates a client trains: the head's, where the layers stay put."""
        return head_part(space) if self.federated.local.head_only else slice(None)

    def _home(self, space: AdapterSpace) -> set[str]:
        if self.federated.averages_head:
            return set()
        return {tensor.name for tensor in space.head}


@dataclass(frozen=True, kw_only=True)
class FedAvg(AdapterMethod):
    """One adapter for everybody (McMahan et al., AISTATS 2017), certified as it is."""

    kind: ClassVar[str] = "fedavg"
    title: ClassVar[str] = "FedAvg"
    shares: ClassVar[str] = "the adapter"
    keeps: ClassVar[str] = "nothing"
    learns: ClassVar[str] = "nothing: the shared adapter is certified on all examples"

    def recipe(self, terms: Mapping[str, Any]) -> Recipe:
        """Certify the shared adapter on all examples."""
        return default_recipe(terms)


@dataclass(frozen=True, kw_only=True)
class FedAvgLocal(AdapterMethod):
    """FedAvg, then fine-tuning from the shared adapter."""

    kind: ClassVar[str] = "fedavg-local"
    title: ClassVar[str] = "FedAvg + local"
    shares: ClassVar[str] = "the adapter"
    keeps: ClassVar[str] = "a new client's fine-tuned adapter"
    learns: ClassVar[str] = "fine-tunes the shared adapter"

    def recipe(self, terms: Mapping[str, Any]) -> Recipe:
        """Fine-tune on some examples, and certify on the others."""
        return finetune_recipe(self.personal, self.choose_fraction, terms)
