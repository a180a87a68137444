"""Small nets as named arrays: how their weights are drawn, and how a client trains them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch

from fedcert.methods.base import State

__all__ = ["drawn_weights", "tensors_of", "trained"]


def drawn_weights(
    generator: np.random.Generator, rows: int, columns: int, *, gain: float
) -> npt.NDArray[np.float32]:
    """Draw a layer's weights by Xavier's normal rule, times a gain.

    Parameters
    ----------
    generator : numpy.random.Generator
        Draws them.
    rows, columns : int
        Outputs and inputs of the layer.
    gain : float
        Factor of the standard deviation.

    Returns
    -------
    numpy.ndarray
        Shape ``(rows, columns)``.
    """
    scale = gain * np.sqrt(2 / max(1, rows + columns))
    return np.asarray(scale * generator.standard_normal((rows, columns)), dtype=np.float32)


def tensors_of(net: State) -> dict[str, torch.Tensor]:
    """Return a net's weights as tensors of their own, ready to be trained."""
    return {
        name: torch.from_numpy(np.array(array, dtype=np.float32)).requires_grad_()
        for name, array in net.items()
    }


def trained(
    net: State,
    loss_of: Callable[[Mapping[str, torch.Tensor], bool], torch.Tensor],
    *,
    steps: int,
    rate: float,
    steepest: float | None = None,
) -> tuple[State, float, float]:
    """Return a net after steps of Adam, and its loss before and after them.

    Parameters
    ----------
    net : State
        Its weights.
    loss_of : callable
        Returns the loss of weights; its second argument says whether a gradient will be asked
        for. A step whose loss is not finite is left out.
    steps : int
        How many.
    rate : float
        Learning rate.
    steepest : float, optional
        Clamp each number of the gradient to this size, and take 0 for one that is none.

    Returns
    -------
    tuple
        The weights, and the two losses, which need not be finite.
    """
    weights = tensors_of(net)
    optimizer = torch.optim.Adam(list(weights.values()), lr=rate)
    losses = []
    for step in range(steps + 1):
        goes_on = step < steps
        loss = loss_of(weights, goes_on)
        losses.append(float(loss.detach()))
        if not goes_on or not np.isfinite(losses[-1]):
            continue
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for tensor in weights.values():
            if steepest is not None and tensor.grad is not None:
                tensor.grad.nan_to_num_(0.0).clamp_(-steepest, steepest)
        optimizer.step()
    made = {name: tensor.detach().numpy() for name, tensor in weights.items()}
    return made, losses[0], losses[-1]
