"""The methods of `fedcert.methods`, learned without messages.

What clients do in a round, what the server makes of it, and the recipe by which a new client
learns are the product's: here stand their rounds in one process, and what tuning tries of each.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Any, ClassVar, Self

from fedcert import methods
from fedcert.adapters.finetune import FinetuneSettings
from fedcert.arrays import FloatArray
from fedcert.certificates import Recipe
from fedcert.data.examples import Examples
from fedcert.errors import SettingsError
from fedcert.methods import AdapterMethod, FederatedSettings, PersonalTraining, State
from fedcert.methods.conditioned import ConditionedMethod
from fedcert.methods.federated import drawn_clients, round_seed
from fedcert.methods.traffic import Traffic, traffic_of
from fedcert.priors import PointPrior, Prior
from fedcert.simulations.benchmarks.comparison.searching import RecipeMethod
from fedcert.simulations.benchmarks.comparison.upstream import Upstream

__all__ = [
    "FedAvgLocal",
    "FedAvgLora",
    "FedProx",
    "FedProxLocal",
    "FedRep",
    "Learned",
    "LocalLora",
    "averaged",
    "federated_settings",
    "global_adapter",
]

_FRACTIONS = (0.5, 0.25)
_PROXIMAL_MUS = (0.03, 0.003)
_HEAD_STEPS = 20


# Rounds


def averaged(method: AdapterMethod, upstream: Upstream) -> FloatArray:
    """Average an adapter in the rounds that a server would ask for, and return it, ``(d,)``."""
    model, seed = upstream.model, upstream.seed
    state = method.start(model.space, seed=seed)
    own: dict[str, State] = {}
    for number in range(1, method.rounds + 1):
        most = method.federated.clients_per_round
        updates = []
        for name in drawn_clients(sorted(upstream.clients), most, seed, number):
            updates.append(
                method.local(
                    state,
                    model,
                    upstream.clients[name],
                    number=number,
                    seed=round_seed(seed, number, name),
                    own=own.get(name, {}),
                )
            )
            own[name] = updates[-1].own
        state = method.merged(state, updates, number)
    return method.published(model.space, state).center()


def global_adapter(upstream: Upstream, method: AdapterMethod) -> FloatArray:
    """Return the adapter that a method publishes, float64 of shape ``(d,)``, averaged once."""
    identity: dict[str, Any] = {
        "kind": "federated average",
        "space": upstream.model.space.digest,
        "clients": sorted(upstream.clients),
        "settings": method.federated.to_config(),
        "seed": upstream.seed,
    }
    if type(method).local is not AdapterMethod.local:  # all others average alike
        identity["method"] = method.to_config()
    return upstream.once(identity, lambda: averaged(method, upstream))


def federated_settings(
    upstream: Upstream, steps: int = 20, rate: float = 1.0, *, proximal_mu: float = 0.0
) -> FederatedSettings:
    """Return federated training with a multiple of the upstream learning rate.

    Parameters
    ----------
    upstream : Upstream
        The task, with the settings that upstream clients train by.
    steps : int (default: 20)
        Local steps in each round.
    rate : float (default: 1.0)
        Multiple of the upstream learning rate.
    proximal_mu : float (default: 0.0)
        Weight of FedProx's proximal term.

    Returns
    -------
    FederatedSettings
        Settings of a run with the usual number of rounds.
    """
    local = replace(
        upstream.training,
        steps=steps,
        batch_size=32,
        learning_rate=upstream.training.learning_rate * rate,
    )
    return FederatedSettings(local=local, proximal_mu=proximal_mu)


# Methods


@dataclass(frozen=True, kw_only=True)
class Learned(RecipeMethod):
    """One of the product's methods, with its settings.

    Parameters
    ----------
    method : fedcert.methods.Method
        One that asks upstream clients nothing, or has them average an adapter.
    """

    method: methods.Method
    recipe: Recipe = field(init=False)

    def __post_init__(self) -> None:
        if self.method.asks == "adapters" or isinstance(self.method, ConditionedMethod):
            raise SettingsError(
                f"the method {self.method.kind} publishes more than what clients average; "
                "launch it, by the setting 'method'"
            )
        self.method.check(self.upstream.model.space)
        recipe = self.method.recipe({"delta": self.upstream.delta})
        object.__setattr__(self, "recipe", recipe)

    @classmethod
    def variants(cls, upstream: Upstream) -> Sequence[Self]:
        """Try the settings of `tried`."""
        return [cls(upstream=upstream, method=method) for method in cls.tried(upstream)]

    @classmethod
    @abstractmethod
    def tried(cls, upstream: Upstream) -> Iterable[methods.Method]:
        """Yield the product's method with each of the settings to try."""

    @cached_property
    def prior(self) -> Prior:
        """What the method publishes."""
        if isinstance(self.method, AdapterMethod):
            return PointPrior(global_adapter(self.upstream, self.method))
        return self.method.published(self.upstream.model.space, {})

    def config(self) -> dict[str, Any]:
        """Return how upstream clients train, and how a new one learns, if they do."""
        rounds = {"federated": self.method.federated.to_config()}
        return {
            "method": self.name,
            **(rounds if self.method.asks == "rounds" else {}),
            **({"recipe": self.recipe.to_config()} if self.recipe.refines else {}),
        }

    def prepare(self) -> None:
        """Have the upstream clients do their rounds."""
        _ = self.prior

    def learn(self, examples: Examples) -> FloatArray:
        """Learn from all of some examples, so that none is left to certify."""
        adapter: FloatArray = self.recipe.refine(self.session(examples))[0]
        return adapter

    def traffic(self) -> Traffic:
        """Return what the product says that the method transfers."""
        return traffic_of(
            self.method, self.upstream.model.space, upstream=len(self.upstream.clients)
        )


class LocalLora(Learned):
    """Fine-tunes an adapter of the client's own from zero."""

    name: ClassVar[str] = "local LoRA"

    @classmethod
    def tried(cls, upstream: Upstream) -> Iterable[methods.Method]:
        """Train as upstream, and at a third of the rate with three weight decays.

        A new client has fewer examples than an upstream one. On tuning clients of `intents` the
        learning rate hardly mattered, and less weight decay was better.
        """
        decay = upstream.training.weight_decay
        for (rate, factor), fraction in product(
            ((1.0, 1.0), (1 / 3, 1.0), (1 / 3, 0.1), (1 / 3, 0.01)), _FRACTIONS
        ):
            personal = _personal(upstream, rate, proximal_mu=decay * factor)
            yield methods.Local(personal=personal, choose_fraction=fraction)


class FedAvgLora(Learned):
    """Hands out the global adapter as it is.

    It owes nothing to the new client's examples, so all n of them certify it.
    """

    name: ClassVar[str] = "FedAvg-LoRA"

    @classmethod
    def tried(cls, upstream: Upstream) -> Iterable[methods.Method]:
        """Try few and many local steps, and two learning rates."""
        for steps, rate in product((5, 20), (1.0, 1 / 3)):
            yield methods.FedAvg(federated=federated_settings(upstream, steps, rate))


class FedAvgLocal(Learned):
    """Fine-tunes the global adapter on the client's choosing examples."""

    name: ClassVar[str] = "FedAvg-LoRA + local"

    @classmethod
    def tried(cls, upstream: Upstream) -> Iterable[methods.Method]:
        """Try a learning rate, a third of it with three proximal weights, and two fractions."""
        for (rate, proximal_mu), fraction in product(
            ((1.0, 0.01), (1 / 3, 0.03), (1 / 3, 0.003), (1 / 3, 0.0003)), _FRACTIONS
        ):
            yield methods.FedAvgLocal(
                federated=federated_settings(upstream),
                personal=_personal(upstream, rate, proximal_mu=proximal_mu),
                choose_fraction=fraction,
            )


class FedProx(Learned):
    """Hands out the global adapter that was trained with a proximal term, as it is."""

    name: ClassVar[str] = "FedProx"

    @classmethod
    def tried(cls, upstream: Upstream) -> Iterable[methods.Method]:
        """Try two weights of the proximal term and two learning rates."""
        for proximal_mu, rate in product(_PROXIMAL_MUS, (1.0, 1 / 3)):
            yield methods.FedProx(
                federated=federated_settings(upstream, rate=rate, proximal_mu=proximal_mu)
            )


class FedProxLocal(Learned):
    """Pulls clients to the global adapter, upstream and when a new client fine-tunes."""

    name: ClassVar[str] = "FedProx + local"

    @classmethod
    def tried(cls, upstream: Upstream) -> Iterable[methods.Method]:
        """Try two proximal weights, the same everywhere, and two rates and fractions."""
        for rate, mu, fraction in product((1.0, 1 / 3), _PROXIMAL_MUS, _FRACTIONS):
            yield methods.FedProxLocal(
                federated=federated_settings(upstream, proximal_mu=mu),
                personal=_personal(upstream, rate, proximal_mu=mu),
                choose_fraction=fraction,
            )


class FedRep(Learned):
    """Trains a head on the federation's low-rank part."""

    name: ClassVar[str] = "FedRep"

    @classmethod
    def tried(cls, upstream: Upstream) -> Iterable[methods.Method]:
        """Try few and many local steps, and two fractions; the head tunes itself."""
        for steps, fraction in product((5, 20), _FRACTIONS):
            federated = replace(federated_settings(upstream, steps), head_steps=_HEAD_STEPS)
            yield methods.FedRep(federated=federated, choose_fraction=fraction)


def _personal(upstream: Upstream, rate: float, *, proximal_mu: float) -> PersonalTraining:
    """Train as upstream clients do, at a multiple of their learning rate."""
    training: FinetuneSettings = upstream.training
    settings = replace(training, learning_rate=training.learning_rate * rate)
    return PersonalTraining(settings=settings, proximal_mu=proximal_mu)
