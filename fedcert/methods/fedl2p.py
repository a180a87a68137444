"""FedL2P: a federated net says at what rate a client trains each part of an adapter.

Lee et al., "FedL2P: Federated Learning to Personalize" (NeurIPS 2023). Its gradient of what
comes after training is exact here, through a short loop of gradient descent that is unrolled;
the paper approximates it by the implicit function theorem. As in the paper each step of the net
follows a training from few examples that are drawn anew: here from about as many as new clients
have. Rates are relative to one that is a setting, in place of a free rate for each part, and
models without batch normalization have no second net.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy, linear

from fedcert.adapters.forward import AdaptedModel
from fedcert.adapters.gates import clamp_passing
from fedcert.adapters.prepared import PreparedInputs
from fedcert.adapters.space import AdapterSpace
from fedcert.arrays import FloatArray
from fedcert.data.examples import Examples
from fedcert.errors import SettingsError
from fedcert.methods.base import State
from fedcert.methods.conditioned import ConditionedMethod
from fedcert.methods.nets import drawn_weights, tensors_of, trained
from fedcert.randomness import keyed_generator

__all__ = ["FedL2P", "descended"]

_HIDDEN, _GAIN = 100, 0.1
_HIGHEST_RATE = 1000.0
# Each number of the gradient is clamped: descent at a high rate may blow up on the way.
_STEEPEST = 1.0
_HELD_OUT = 0.2


@dataclass(frozen=True, kw_only=True)
class FedL2P(ConditionedMethod):
    """A net reads learning rates off a client's inputs; upstream, held-out examples teach it.

    Parameters
    ----------
    descent_steps : int (default: 10)
        Steps of gradient descent, upstream and of a new client.
    descent_rate : float (default: 0.3)
        Their learning rate, which the net multiplies for each part.
    descent_examples : int (default: 16)
        How many examples an upstream client draws for each step of the net, to descend on.
    """

    kind: ClassVar[str] = "fedl2p"
    title: ClassVar[str] = "FedL2P"
    shares: ClassVar[str] = "the adapter, and a net from a client's inputs to learning rates"
    keeps: ClassVar[str] = "a new client's fine-tuned adapter"
    learns: ClassVar[str] = "fine-tunes the shared adapter at the rates that the net says"

    descent_steps: int = 10
    descent_rate: float = 0.3
    descent_examples: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.descent_steps, self.descent_examples) < 1 or self.descent_rate <= 0:
            raise SettingsError(
                "setting 'averaging.options': fedl2p needs descent_steps and descent_examples "
                "of at least 1, and a positive descent_rate"
            )

    def first_net(self, space: AdapterSpace, *, seed: int) -> State:
        """Return a net that multiplies each rate by about 1."""
        widths = [2 * self.linears, _HIDDEN, _HIDDEN, len(space.shapes())]
        draw, net = keyed_generator("rate net", seed), {}
        for layer in range(3):
            columns, rows = widths[layer : layer + 2]
            net[f"{layer}.weight"] = drawn_weights(draw, rows, columns, gain=_GAIN)
            net[f"{layer}.bias"] = np.full(rows, float(layer == 2), dtype=np.float32)
        return net

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
        """Lower the loss on held-out examples after training on some of the others."""
        examples, draw = examples.usable, keyed_generator("held out", seed)
        order = draw.permutation(len(examples))
        held = max(1, round(_HELD_OUT * len(examples)))
        unknown, known = (_rows(model, examples, part) for part in (order[:held], order[held:]))
        # The losses before and after are those of one draw: others would differ by themselves.
        draws = [draw.permutation(len(order) - held) for _ in range(self.net_steps)]
        drawn = iter([*draws, draws[0]])

        def loss_of(weights: Mapping[str, torch.Tensor], unrolled: bool) -> torch.Tensor:
            rates = self._rates(model.space, weights, condition).to(model.device)
            rows = torch.from_numpy(next(drawn)[: self.descent_examples])
            few = known[0].take(rows), known[1][rows.to(model.device)]
            vector = descended(
                model, *few, center, rates, steps=self.descent_steps, unrolled=unrolled
            )
            return cross_entropy(model.logits(unknown[0], vector)[0], unknown[1])

        with sdpa_kernel(SDPBackend.MATH):  # which alone has second derivatives
            made, before, after = trained(
                net, loss_of, steps=self.net_steps, rate=self.net_rate, steepest=_STEEPEST
            )
        measured = {"loss-before": before, "loss-after": after}
        return made, {k: v for k, v in measured.items() if np.isfinite(v)}

    def personalized(
        self,
        net: State,
        condition: npt.NDArray[np.float32],
        center: npt.NDArray[Any],
        model: AdaptedModel,
        examples: Examples,
    ) -> FloatArray:
        """Train from the shared adapter at the rates that the net says.

        Should training blow up, the shared adapter stays as it is.
        """
        with torch.no_grad():
            rates = self._rates(model.space, tensors_of(net), condition).to(model.device)
        rows = _rows(model, examples.usable, np.arange(len(examples.usable)))
        vector = descended(model, *rows, center, rates, steps=self.descent_steps)
        found = vector.detach()[0].cpu().double().numpy()
        if not np.isfinite(found).all():
            return np.asarray(center, dtype=np.float64)
        return self.personal.mixed(center, found)

    def _rates(
        self,
        space: AdapterSpace,
        weights: Mapping[str, torch.Tensor],
        condition: npt.NDArray[np.float32],
    ) -> torch.Tensor:
        """Return the learning rate of every coordinate, shape ``(d,)``."""
        value = torch.from_numpy(condition)[None]
        for layer in range(3):
            value = linear(value, weights[f"{layer}.weight"], weights[f"{layer}.bias"])
            value = value.relu() if layer < 2 else value
        factors = clamp_passing(value[0], 0.0, _HIGHEST_RATE)
        sizes = torch.tensor([int(np.prod(shape)) for shape in space.shapes().values()])
        return self.descent_rate * factors.repeat_interleave(sizes)


def descended(
    model: AdaptedModel,
    prepared: PreparedInputs,
    labels: torch.Tensor,
    center: npt.NDArray[Any],
    rates: torch.Tensor,
    *,
    steps: int,
    unrolled: bool = False,
) -> torch.Tensor:
    """Return an adapter after steps of gradient descent on all examples.

    Parameters
    ----------
    model : AdaptedModel
        The client's.
    prepared : PreparedInputs
        Of n training examples.
    labels : torch.Tensor
        Their labels, shape ``(n,)``.
    center : numpy.ndarray
        Where descent begins, shape ``(d,)``.
    rates : torch.Tensor
        Learning rates, shape ``(d,)``.
    steps : int
        How many.
    unrolled : bool (default: False)
        Whether gradients of the result reach the rates, through every step.

    Returns
    -------
    torch.Tensor
        Float32, shape ``(1, d)``.
    """
    start = torch.from_numpy(np.array(center, dtype=np.float32))[None].to(model.device)
    vector = start.requires_grad_()
    for _ in range(steps):
        loss = cross_entropy(model.logits(prepared, vector)[0], labels)
        [slope] = torch.autograd.grad(loss, vector, create_graph=unrolled)
        vector = vector - rates * slope
        if not unrolled:
            vector = vector.detach().requires_grad_()
    return vector


def _rows(
    model: AdaptedModel, examples: Examples, rows: npt.NDArray[np.int64]
) -> tuple[PreparedInputs, torch.Tensor]:
    """Return some examples with the frozen layers behind them, and their labels."""
    part = examples.take(rows)
    labels = torch.from_numpy(part.labels).to(model.device)
    return model.prepare(model.task.encode(part)), labels
