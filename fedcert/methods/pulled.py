"""Methods whose clients are pulled to what they share: FedProx, Ditto, and MR-MTL."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from fedcert.adapters.forward import AdaptedModel
from fedcert.data.examples import Examples
from fedcert.methods.adapters import FedAvg, FedAvgLocal
from fedcert.methods.base import State, Update
from fedcert.methods.local_training import train_from

__all__ = ["Ditto", "FedProx", "FedProxLocal", "MrMtl"]

_ADAPTER = "adapter"


@dataclass(frozen=True, kw_only=True)
class FedProx(FedAvg):
    """FedAvg whose clients are pulled to the server's adapter (Li et al., arXiv 1812.06127)."""

    kind: ClassVar[str] = "fedprox"
    title: ClassVar[str] = "FedProx"
    pulls_upstream: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class FedProxLocal(FedAvgLocal):
    """FedProx, then fine-tuning that is pulled to the shared adapter in the same way."""

    kind: ClassVar[str] = "fedprox-local"
    title: ClassVar[str] = "FedProx + local"
    learns: ClassVar[str] = "fine-tunes the shared adapter, pulled to it"
    pulls_upstream: ClassVar[bool] = True
    pulls_new: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class _OwnAdapters(FedAvgLocal):
    """Every client has an adapter of its own that it goes on with, pulled to what is shared."""

    keeps: ClassVar[str] = "an adapter of each client, upstream ones included"
    pulls_new: ClassVar[bool] = True

    def _gone_on(
        self,
        state: State,
        model: AdaptedModel,
        examples: Examples,
        *,
        seed: int,
        own: State,
        pull: float,
    ) -> npt.NDArray[np.float32]:
        """Train this client's adapter further; the first time from the server's."""
        received = self.whole(model.space, state)
        return train_from(
            own.get(_ADAPTER, received),
            model,
            examples,
            seed=seed,
            settings=self.federated.local,
            proximal_mu=pull,
            toward=received,
            part=self.trained(model.space),
        )


@dataclass(frozen=True, kw_only=True)
class Ditto(_OwnAdapters):
    """FedAvg, and a personal adapter of every client that is pulled to the shared one.

    Li, Hu, Beirami and Smith, "Ditto: Fair and Robust Federated Learning Through
    Personalization" (ICML 2021), Algorithm 1: personal adapters change nothing that is shared.
    An upstream client goes on with its own in each round in which it is drawn, and ends with
    one in its folder; a new client has none yet, and starts at the shared one.
    """

    kind: ClassVar[str] = "ditto"
    title: ClassVar[str] = "Ditto"
    shares: ClassVar[str] = "the adapter"
    learns: ClassVar[str] = "fine-tunes the shared adapter, pulled to it"

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
        """Do FedAvg's part, then train this client's adapter, pulled to the server's."""
        update = super().local(state, model, examples, number=number, seed=seed, own={})
        personal = self._gone_on(
            state, model, examples, seed=seed, own=own, pull=self.personal.proximal_mu
        )
        return replace(update, own={_ADAPTER: personal})


@dataclass(frozen=True, kw_only=True)
class MrMtl(_OwnAdapters):
    """The mean of personal adapters, each of which is pulled to that mean.

    Mean-regularized multi-task learning (Evgeniou and Pontil, KDD 2004) in rounds, as in Liu,
    Hu, Wu and Smith, "On Privacy and Personalization in Cross-Silo Federated Learning"
    (NeurIPS 2022): there is no global model that anybody trains. A client goes on with its own
    adapter, and uploads it; a new client starts at the mean.
    """

    kind: ClassVar[str] = "mr-mtl"
    title: ClassVar[str] = "MR-MTL"
    shares: ClassVar[str] = "the mean of the clients' adapters"
    learns: ClassVar[str] = "fine-tunes the mean, pulled to it"
    pulls_upstream: ClassVar[bool] = True

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
        """Go on with this client's adapter, pulled to the mean."""
        personal = self._gone_on(
            state, model, examples, seed=seed, own=own, pull=self.federated.proximal_mu
        )
        return Update(
            tensors=self.shared(model.space, personal),
            weight=len(examples),
            own={_ADAPTER: personal},
        )
