"""Training an adapter from a given start, in whole or in part, maybe pulled to the start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from fedcert.adapters.finetune import FinetuneSettings, descend
from fedcert.adapters.forward import AdaptedModel
from fedcert.adapters.space import AdapterSpace
from fedcert.data.examples import Examples
from fedcert.errors import SettingsError

__all__ = ["PersonalTraining", "body_part", "head_part", "train_from"]


def train_from(
    start: npt.NDArray[Any],
    model: AdaptedModel,
    examples: Examples,
    *,
    seed: int,
    settings: FinetuneSettings,
    proximal_mu: float = 0.0,
    toward: npt.NDArray[Any] | None = None,
    part: slice = slice(None),
) -> npt.NDArray[np.float32]:
    """Return an adapter trained from `start`.

    The loss is cross-entropy + decay/2 ||w||^2 + mu/2 ||w - a||^2, the last being the proximal
    term of FedProx (Li et al., arXiv 1812.06127, Eq. 2), where a is the start. Both squares
    together are (decay + mu)/2 ||w - c||^2 with c = a * mu / (decay + mu), up to a constant, so
    descending on w - c with one weight decay is the same.

    Parameters
    ----------
    start : numpy.ndarray
        Shape ``(d,)``.
    proximal_mu : float (default: 0)
        mu of the proximal term.
    toward : numpy.ndarray, optional
        What it pulls to, shape ``(d,)`` (default: the start).
    part : slice
        Which coordinates are trained (default: all).
    model, examples, seed, settings
        As in `fedcert.adapters.finetune.finetune`.

    Returns
    -------
    numpy.ndarray
        Float32, shape ``(d,)``.

    Raises
    ------
    DataError
        If there are no examples, or they are all of one class.
    """
    decay = settings.weight_decay + proximal_mu
    whole = torch.from_numpy(np.array(start, dtype=np.float32))[None].to(model.device)
    pulls = whole if toward is None else torch.from_numpy(np.array(toward, dtype=np.float32))
    center = pulls.reshape(whole.shape).to(model.device) * (
        proximal_mu / decay if decay else 0.0
    )
    low, high, _ = part.indices(whole.shape[1])
    offset = (whole - center)[:, low:high].clone().requires_grad_()

    def vector() -> torch.Tensor:
        trained = center[:, low:high] + offset
        return torch.cat([whole[:, :low], trained, whole[:, high:]], dim=1)

    descend(
        model,
        examples,
        [offset],
        vector,
        seed=seed,
        settings=replace(settings, weight_decay=decay),
    )
    return vector().detach()[0].cpu().numpy()


@dataclass(frozen=True, kw_only=True)
class PersonalTraining:
    """How a new client turns the federation's adapter into its own.

    Parameters
    ----------
    settings : FinetuneSettings
        How it trains.
    proximal_mu : float (default: 0)
        Weight of half the squared distance from the federation's adapter in the loss.
    keep : float (default: 0)
        Share of the federation's adapter in the result, the rest being the trained one. It
        is fixed before any example is seen, so a certificate stays valid; more of it forgets
        less of what the federation knows.
    head_only : bool (default: False)
        Train the head alone, as in FedRep, and as upstream clients do whose settings say so.
    """

    settings: FinetuneSettings = field(default_factory=FinetuneSettings)
    proximal_mu: float = 0.0
    keep: float = 0.0
    head_only: bool = False

    def __post_init__(self) -> None:
        if self.proximal_mu < 0 or not 0 <= self.keep <= 1:
            raise SettingsError(
                "proximal_mu must not be negative, and keep must lie between 0 and 1"
            )

    def to_config(self) -> dict[str, Any]:
        """Return the settings as a JSON object."""
        return asdict(self) | {"settings": self.settings.to_config()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Rebuild settings from `to_config`.

        Raises
        ------
        SettingsError
            If a key is unknown or missing, or a value out of its range.
        """
        try:
            return cls(**{**config, "settings": FinetuneSettings(**config["settings"])})
        except (KeyError, TypeError) as error:
            raise SettingsError(
                f"these are no settings of personal training: {error}"
            ) from None

    def adapter(
        self,
        start: npt.NDArray[Any],
        model: AdaptedModel,
        examples: Examples,
        *,
        seed: int,
    ) -> npt.NDArray[np.float64]:
        """Return a new client's adapter, shape ``(d,)``; see `train_from`.

        Parameters
        ----------
        start : numpy.ndarray
            The federation's adapter, shape ``(d,)``.
        model : AdaptedModel
            The base model in the adapter's space.
        examples : Examples
            The client's training examples.
        seed : int
            Draws the batches.

        Returns
        -------
        numpy.ndarray
            Float64, shape ``(d,)``: the mean of start and trained adapter, weighted by `keep`.
        """
        alone = self.head_only or self.settings.head_only
        part = head_part(model.space) if alone else slice(None)
        trained = train_from(
            start, model, examples, seed=seed, settings=self.settings,
            proximal_mu=self.proximal_mu, part=part,
        )  # fmt: skip
        return self.mixed(start, trained)

    def mixed(
        self, start: npt.NDArray[Any], trained: npt.NDArray[Any]
    ) -> npt.NDArray[np.float64]:
        """Return the mean of start and trained adapter, weighted by `keep`, shape ``(d,)``."""
        return np.asarray(self.keep * start + (1 - self.keep) * trained.astype(np.float64))


def body_part(space: AdapterSpace) -> slice:
    """Return where the low-rank parts stand in an adapter."""
    return slice(0, space.layer_numbers)


def head_part(space: AdapterSpace) -> slice:
    """Return where the head stands in an adapter; empty if there is none."""
    return slice(space.layer_numbers, space.dimension)
