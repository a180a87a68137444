"""Federated averaging of adapters: rounds of several local steps each.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data"
(AISTATS 2017), in the adapter space, where equal vectors mean equal adapters and an average
makes sense. With `proximal_mu` it is FedProx (Li et al., arXiv 1812.06127), with `head_steps`
FedRep (Collins et al., "Exploiting Shared Representations for Personalized Federated
Learning", ICML 2021).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fedcert.adapters.finetune import FinetuneSettings
from fedcert.adapters.forward import AdaptedModel
from fedcert.data.examples import Examples
from fedcert.errors import SettingsError
from fedcert.methods.local_training import body_part, head_part, train_from
from fedcert.randomness import keyed_generator, small_seed

__all__ = [
    "FederatedSettings",
    "drawn_clients",
    "local_round",
    "round_seed",
    "weighted_mean",
]

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class FederatedSettings:
    """How federated averaging goes.

    Parameters
    ----------
    rounds : int (default: 30)
        Times that clients train and the server averages.
    clients_per_round : int (default: 16)
        Clients drawn for each round; 0 takes all.
    local : FinetuneSettings
        What a client does in a round (default: 10 steps of 32 examples).
    proximal_mu : float (default: 0)
        mu of FedProx's proximal term.
    head_steps : int (default: 0)
        If positive, FedRep: each client trains a head of its own for so many steps, then
        the low-rank part for `local.steps`, and only the latter is averaged.
    """

    rounds: int = 30
    clients_per_round: int = 16
    local: FinetuneSettings = field(
        default_factory=lambda: FinetuneSettings(steps=10, batch_size=32)
    )
    proximal_mu: float = 0.0
    head_steps: int = 0

    def __post_init__(self) -> None:
        if min(self.rounds, self.local.steps, self.local.batch_size) < 1:
            raise SettingsError(
                "federated averaging needs rounds, local steps and a batch size of at least 1"
            )
        if min(self.clients_per_round, self.head_steps, self.proximal_mu) < 0:
            raise SettingsError(
                "clients_per_round, head_steps and proximal_mu must not be negative"
            )

    @property
    def averages_head(self) -> bool:
        """Whether the head is shared as well."""
        return not self.head_steps

    def to_config(self) -> dict[str, Any]:
        """Return the settings as a JSON object."""
        config = asdict(self)
        config["pull"] = config.pop("proximal_mu")  # its name since the first records
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Rebuild settings from `to_config`.

        Raises
        ------
        SettingsError
            If a key is unknown or missing, or a value out of its range.
        """
        try:
            values = dict(config)
            values["proximal_mu"] = values.pop("pull")
            return cls(**values | {"local": FinetuneSettings(**values["local"])})
        except (KeyError, TypeError) as error:
            raise SettingsError(
                f"these are no settings of federated training: {error}"
            ) from None


def local_round(
    model: AdaptedModel,
    received: Float32Array,
    examples: Examples,
    *,
    settings: FederatedSettings,
    seed: int,
    own_head: Float32Array | None = None,
) -> Float32Array:
    """Do one client's part of a round, and return its adapter.

    Parameters
    ----------
    model : AdaptedModel
        The client's.
    received : numpy.ndarray
        The server's adapter, shape ``(d,)``.
    examples : Examples
        The client's; their number is its weight in the mean.
    settings : FederatedSettings
        Local training.
    seed : int
        That of `round_seed`.
    own_head : numpy.ndarray, optional
        FedRep: the head that this client ended its last round with.

    Returns
    -------
    numpy.ndarray
        The client's adapter after the round, shape ``(d,)``.
    """
    if settings.averages_head:
        return train_from(
            received, model, examples, seed=seed, settings=settings.local,
            proximal_mu=settings.proximal_mu,
            part=head_part(model.space) if settings.local.head_only else slice(None),
        )  # fmt: skip
    head = head_part(model.space)
    start = received.copy()
    if own_head is not None:
        start[head] = own_head
    for part, steps in (
        (head, settings.head_steps),
        (body_part(model.space), settings.local.steps),
    ):
        start = train_from(
            start, model, examples, seed=seed,
            settings=replace(settings.local, steps=steps), part=part,
        )  # fmt: skip
    return start


def round_seed(seed: int, number: int, client: str) -> int:
    """Return the seed of a client's batches in a round.

    Parameters
    ----------
    seed : int
        The run's.
    number : int
        The round.
    client : str
        The client's id.

    Returns
    -------
    int
        A small seed that depends on all three.
    """
    return small_seed("federated averaging", seed, number, client)


def weighted_mean(vectors: Sequence[Float32Array], weights: Sequence[int]) -> Float32Array:
    """Return the mean with weights, added up in float32 as Flower's FedAvg does.

    Adam divides a gradient by its own size, so where gradients vanish a last bit of the
    average can become a visible step in the next round.
    """
    mean = np.zeros_like(vectors[0])
    for vector, weight in zip(vectors, weights, strict=True):
        mean += vector * (weight / sum(weights))
    return mean


def drawn_clients(names: Sequence[str], count: int, seed: int, number: int) -> list[str]:
    """Return the clients of a round, in order; 0 takes all.

    Parameters
    ----------
    names : sequence of str
        All clients.
    count : int
        Clients to draw; 0 takes all.
    seed : int
        The run's.
    number : int
        The round.

    Returns
    -------
    list of str
        The drawn clients, in the order of their names.
    """
    if not count or count >= len(names):
        return sorted(names)
    generator = keyed_generator("federated clients", seed, number)
    drawn = generator.choice(len(names), count, replace=False)
    return sorted(sorted(names)[index] for index in drawn)
