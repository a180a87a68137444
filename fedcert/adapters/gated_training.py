"""Training with gates: finding a client's own, and fine-tuning under gates that are given."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedcert.adapters.finetune import Beside, FinetuneSettings, descend
from fedcert.adapters.forward import AdaptedModel
from fedcert.adapters.gates import Gates, clamp_passing
from fedcert.data.examples import Examples
from fedcert.errors import SettingsError

__all__ = ["SparseSettings", "finetune_gated", "sparse_gates"]


@dataclass(frozen=True)
class SparseSettings:
    """How strongly gates are pulled, and how fast they move.

    Parameters
    ----------
    gate_rate : float (default: 0.1)
        Learning rate of the gates, by plain gradient descent.
    size_penalty : float (default: 0.01)
        Factor of what a gate multiplies, divided by the gate: a Laplace prior of its scale.
    gate_penalty : float (default: 0.001)
        Factor of 100 g + log g, a Gamma prior of the gates.
    """

    gate_rate: float = 0.1
    size_penalty: float = 0.01
    gate_penalty: float = 0.001

    def __post_init__(self) -> None:
        if self.gate_rate <= 0 or min(self.size_penalty, self.gate_penalty) < 0:
            raise SettingsError(
                "gate_rate must be positive, and size_penalty and gate_penalty not negative"
            )

    def to_config(self) -> dict[str, Any]:
        """Return the settings as a JSON object."""
        return asdict(self)


def sparse_gates(
    model: AdaptedModel,
    examples: Examples,
    center: npt.NDArray[Any],
    gates: Gates,
    *,
    start: npt.NDArray[np.float64],
    seed: int,
    settings: FinetuneSettings,
    sparse: SparseSettings,
) -> npt.NDArray[np.float64]:
    """Train a client's change together with its gates, and return the gates.

    The loss is that of BayesTune (Kim and Hospedales, NeurIPS 2023) as FedP2EFT has it: for n
    examples the cross-entropy, plus ``size_penalty / n`` times the sum over gates g of the
    absolute values of what each multiplies, over g, plus ``gate_penalty / n`` times the sum of
    100 g + log g. There gates are clamped, and gradients pass through the clamp. In the model
    a gate below 0 is 0: it would turn a direction round. Gates move by plain gradient descent,
    so that how far one opens says how much it lowers the loss; by Adam's steps, which all have
    one size, they would stay tied, and their order would be noise.

    Parameters
    ----------
    model : AdaptedModel
        The base model in the adapter's space.
    examples : Examples
        The client's training examples.
    center : numpy.ndarray
        The shared adapter, shape ``(d,)``.
    gates : Gates
        Which gates there are, G of them.
    start : numpy.ndarray
        The gates at first, shape ``(G,)``.
    seed : int
        Draws the batches.
    settings : FinetuneSettings
        Steps, batch size, and learning rate of the change; the weight decay plays no part.
    sparse : SparseSettings
        Of the gates.

    Returns
    -------
    numpy.ndarray
        Float64, shape ``(G,)``, of any sign.
    """
    place: dict[str, Any] = {"device": model.device, "dtype": torch.float32}
    shared = torch.as_tensor(np.asarray(center), **place)[None]
    trained = gates.start(model.device)
    current = torch.as_tensor(start, **place).clone().requires_grad_()

    def penalty() -> torch.Tensor:
        clamped = clamp_passing(current)
        sizes = (gates.sizes(trained) / clamped).sum()
        scales = (100 * clamped + clamped.log()).sum()
        return (sparse.size_penalty * sizes + sparse.gate_penalty * scales) / len(examples)

    descend(
        model,
        examples,
        trained,
        lambda: shared + gates.change(trained, current.relu()),
        seed=seed,
        settings=FinetuneSettings(
            steps=settings.steps,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            weight_decay=0.0,
        ),
        penalty=penalty,
        beside=Beside(current, sparse.gate_rate),
    )
    return current.detach().cpu().double().numpy()


def finetune_gated(
    model: AdaptedModel,
    examples: Examples,
    center: npt.NDArray[Any],
    gates: Gates,
    *,
    switched: npt.NDArray[np.float64],
    settings: FinetuneSettings,
    pull: float = 0.0,
) -> npt.NDArray[np.float64]:
    """Fine-tune from a shared adapter under fixed gates; no random number plays a part.

    Parameters
    ----------
    model : AdaptedModel
        The base model in the adapter's space.
    examples : Examples
        The client's training examples; each step takes all.
    center : numpy.ndarray
        The shared adapter, shape ``(d,)``.
    gates : Gates
        Which gates there are, G of them.
    switched : numpy.ndarray
        The gates, shape ``(G,)``, none below 0.
    settings : FinetuneSettings
        Steps and learning rate; the batch size and the weight decay play no part.
    pull : float (default: 0)
        Factor of half the squared size of what is trained in the loss.

    Returns
    -------
    numpy.ndarray
        Float64, shape ``(d,)``: an adapter with its gates folded in.
    """
    shared = torch.from_numpy(np.array(center, dtype=np.float32))[None].to(model.device)
    fixed = torch.from_numpy(switched.astype(np.float32)).to(model.device)
    trained = gates.start(model.device)
    descend(
        model,
        examples,
        trained,
        lambda: shared + gates.change(trained, fixed),
        seed=0,
        settings=FinetuneSettings(
            steps=settings.steps,
            batch_size=max(len(examples), 1),
            learning_rate=settings.learning_rate,
            weight_decay=pull,
        ),
    )
    with torch.no_grad():
        change = gates.change(trained, fixed)[0].cpu().double().numpy()
    return np.asarray(np.asarray(center, dtype=np.float64) + change)
