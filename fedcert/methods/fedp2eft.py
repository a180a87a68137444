"""FedP2EFT: a federated net says which directions of an adapter a client needs.

Lee et al., "FedP2EFT: Federated Learning to Personalize PEFT for Multilingual LLMs" (AAAI 2026,
arXiv 2502.04387), in the coordinates of `fedcert.adapters.gates`. Differences from the paper:
statistics leave padding out and are standardized over clients, gates move by plain gradient
descent, the regression takes the mean of absolute differences, and a gate below 0 is 0 in the
model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import linear, prelu

from fedcert.adapters.forward import AdaptedModel
from fedcert.adapters.gated_training import SparseSettings, finetune_gated, sparse_gates
from fedcert.adapters.gates import FIRST_GATE, Gates, clamp_passing
from fedcert.adapters.space import AdapterSpace
from fedcert.arrays import FloatArray
from fedcert.certificates import Recipe
from fedcert.data.examples import Examples
from fedcert.errors import SettingsError
from fedcert.methods.adapters import AdapterMethod
from fedcert.methods.base import State
from fedcert.methods.conditioned import ConditionedMethod
from fedcert.methods.learning import split_recipe
from fedcert.methods.nets import drawn_weights, tensors_of, trained
from fedcert.priors import PointPrior
from fedcert.randomness import keyed_generator

__all__ = ["BayesTune", "FedP2EFT", "GatedMethod"]

_CODEBOOK, _CODES = "codes", (2, 3, 4)
# Xavier's normal times this, and biases of the first gate: every gate starts nearly shut.
_GAIN = 1e-6


@dataclass(frozen=True, kw_only=True)
class GatedMethod(AdapterMethod):
    """What methods with gates share: which gates there are, how many are kept, and training.

    Parameters
    ----------
    budget : float (default: 0.5)
        Share of the gates that a new client keeps; one net serves all budgets.
    head_rank : int (default: 2)
        Rank of a client's change to each matrix of the head.
    gate_steps : int (default: 20)
        Steps in which a client finds its gates.
    gate_rate, size_penalty, gate_penalty : float
        As in `SparseSettings`.
    scaled : bool (default: False)
        Keep each gate's size as a factor while fine-tuning; else what is kept has factor 1.
    """

    budget: float = 0.5
    head_rank: int = 2
    gate_steps: int = 20
    gate_rate: float = 0.1
    size_penalty: float = 0.01
    gate_penalty: float = 0.001
    scaled: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.budget <= 1 or min(self.head_rank, self.gate_steps) < 1:
            raise SettingsError(
                f"setting 'averaging.options': {self.kind} needs a budget above 0 and at most "
                "1, and head_rank and gate_steps of at least 1"
            )
        _ = self.sparse  # which checks the others
        super().__post_init__()

    @property
    def sparse(self) -> SparseSettings:
        """How gates are found."""
        return SparseSettings(self.gate_rate, self.size_penalty, self.gate_penalty)

    def gates(self, space: AdapterSpace) -> Gates:
        """Return the gates of an adapter space."""
        return Gates(space, head_rank=self.head_rank)

    def count(self, gates: Gates) -> int:
        """Return how many gates the budget keeps, at least one."""
        return max(1, round(self.budget * len(gates)))

    def own_gates(
        self,
        model: AdaptedModel,
        examples: Examples,
        center: npt.NDArray[Any],
        start: FloatArray,
        *,
        seed: int,
    ) -> FloatArray:
        """Return the gates that a client finds on its examples, shape ``(G,)``.

        Parameters
        ----------
        model : AdaptedModel
            The client's.
        examples : Examples
            Its training examples.
        center : numpy.ndarray
            The shared adapter, shape ``(d,)``.
        start : numpy.ndarray
            The gates at first, shape ``(G,)``.
        seed : int
            Draws the batches.

        Returns
        -------
        numpy.ndarray
            Float64, shape ``(G,)``.
        """
        return sparse_gates(
            model,
            examples,
            center,
            self.gates(model.space),
            start=start,
            seed=seed,
            settings=replace(self.federated.local, steps=self.gate_steps),
            sparse=self.sparse,
        )

    def under(
        self,
        found: FloatArray,
        center: npt.NDArray[Any],
        model: AdaptedModel,
        examples: Examples,
    ) -> FloatArray:
        """Return an adapter that is fine-tuned under the gates that the budget keeps.

        Parameters
        ----------
        found : numpy.ndarray
            Gates of any sign, shape ``(G,)``: their order is what counts.
        center : numpy.ndarray
            The shared adapter, shape ``(d,)``.
        model : AdaptedModel
            The client's.
        examples : Examples
            Its choosing examples.

        Returns
        -------
        numpy.ndarray
            Float64, shape ``(d,)``.
        """
        gates = self.gates(model.space)
        return self.tuned(gates.kept(found, self.count(gates)), center, model, examples)

    def tuned(
        self,
        kept: FloatArray,
        center: npt.NDArray[Any],
        model: AdaptedModel,
        examples: Examples,
    ) -> FloatArray:
        """Return an adapter that is fine-tuned under gates.

        Parameters
        ----------
        kept : numpy.ndarray
            The gates, none below 0, shape ``(G,)``.
        center : numpy.ndarray
            The shared adapter, shape ``(d,)``.
        model : AdaptedModel
            The client's.
        examples : Examples
            Its choosing examples.

        Returns
        -------
        numpy.ndarray
            Float64, shape ``(d,)``.
        """
        tuned = finetune_gated(
            model,
            examples,
            center,
            self.gates(model.space),
            switched=kept if self.scaled else (kept > 0).astype(np.float64),
            settings=self.personal.settings,
            pull=self.personal.proximal_mu,
        )
        return self.personal.mixed(center, tuned)


@dataclass(frozen=True, kw_only=True)
class BayesTune(GatedMethod):
    """FedAvg, then gates that each client finds alone: what FedP2EFT is compared with."""

    kind: ClassVar[str] = "bayestune"
    title: ClassVar[str] = "BayesTune"
    shares: ClassVar[str] = "the adapter"
    keeps: ClassVar[str] = "gates and a change of the adapter"
    learns: ClassVar[str] = "finds its gates, keeps a budget of them, and fine-tunes"

    def recipe(self, terms: Mapping[str, Any]) -> Recipe:
        """Learn from some examples, and certify on the others."""
        return split_recipe("learned", self.choose_fraction, terms)

    def published(self, space: AdapterSpace, state: State) -> PointPrior:
        """Return the adapter, with the settings of the gates."""
        center = self.whole(space, state).astype(np.float64)
        return PointPrior(center, method=self.to_config())

    def learned(self, prior: PointPrior, model: AdaptedModel, examples: Examples) -> FloatArray:
        """Find gates from nearly shut ones, and fine-tune under those that are kept."""
        if len(np.unique(examples.labels)) < 2:
            return prior.center()
        shut = np.full(len(self.gates(model.space)), FIRST_GATE)
        found = self.own_gates(model, examples, prior.center(), shut, seed=0)
        return self.under(found, prior.center(), model, examples)


@dataclass(frozen=True, kw_only=True)
class FedP2EFT(GatedMethod, ConditionedMethod):
    """A net reads a client's gates off its inputs; upstream clients teach it theirs.

    Parameters
    ----------
    codes : int (default: 0)
        If positive, new clients do not ask the net. Upstream clients' gates are clustered into
        so many, 2 to 4, and a new client tries each; all of them share delta.
    """

    kind: ClassVar[str] = "fedp2eft"
    title: ClassVar[str] = "FedP2EFT"
    shares: ClassVar[str] = "the adapter, and a net from a client's inputs to its gates"
    keeps: ClassVar[str] = "gates and a change of the adapter"
    learns: ClassVar[str] = "keeps a budget of the gates that the net says, and fine-tunes"

    codes: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.codes not in {0, *_CODES}:
            raise SettingsError(
                f"setting 'averaging.options': codes must be 0 or 2 to 4, not {self.codes}"
            )

    @property
    def made(self) -> int:
        """One adapter, or one for each code."""
        return max(1, self.codes)

    @property
    def reads_inputs(self) -> bool:
        """Codes are tried whatever the inputs are."""
        return not self.codes

    def first_net(self, space: AdapterSpace, *, seed: int) -> State:
        """Return a net that gives every gate the value at which it is nearly shut."""
        width = 2 * self.linears
        hidden, outputs = 2 * width, len(self.gates(space))
        draw = keyed_generator("gate net", seed)
        codes = np.full((self.codes, outputs), FIRST_GATE, dtype=np.float32)
        return {
            **({_CODEBOOK: codes} if self.codes else {}),
            "hidden.weight": drawn_weights(draw, hidden, width, gain=_GAIN),
            "hidden.bias": np.full(hidden, FIRST_GATE, dtype=np.float32),
            "slope": np.full(1, 0.25, dtype=np.float32),
            "gates.weight": drawn_weights(draw, outputs, hidden, gain=_GAIN),
            "gates.bias": np.full(outputs, FIRST_GATE, dtype=np.float32),
        }

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
        """Find this client's gates from what the net says, and move the net to them."""
        inputs = torch.from_numpy(condition)
        with torch.no_grad():
            weights = tensors_of(_without_codes(net))
            said = clamp_passing(_gates_of(weights, inputs)).double().numpy()
        found = self.own_gates(model, examples, center, said, seed=seed)
        target = torch.from_numpy(found).float()

        def loss_of(weights: Mapping[str, torch.Tensor], _goes_on: bool) -> torch.Tensor:
            return (clamp_passing(_gates_of(weights, inputs)) - target).abs().mean()

        made, before, after = trained(
            _without_codes(net), loss_of, steps=self.net_steps, rate=self.net_rate
        )
        if self.codes:
            made = {**made, _CODEBOOK: _moved(net[_CODEBOOK], found, seed=seed)}
        return made, {"distance-before": before, "distance-after": after}

    def personalized(
        self,
        net: State,
        condition: npt.NDArray[np.float32],
        center: npt.NDArray[Any],
        model: AdaptedModel,
        examples: Examples,
    ) -> FloatArray:
        """Fine-tune under the gates that the budget keeps of what the net says.

        With codes the result is of shape ``(P, d)``: one adapter under each.
        """
        if self.codes:
            codes = [np.asarray(code, dtype=np.float64) for code in net[_CODEBOOK]]
            return np.stack([self.under(code, center, model, examples) for code in codes])
        return self.under(self.said(net, condition), center, model, examples)

    def said(self, net: State, condition: npt.NDArray[np.float32]) -> FloatArray:
        """Return the net's gates before they are clamped, shape ``(G,)``.

        Parameters
        ----------
        net : State
            Its weights.
        condition : numpy.ndarray
            Standardized statistics, shape ``(2 L,)``.
        """
        with torch.no_grad():
            gates = _gates_of(tensors_of(_without_codes(net)), torch.from_numpy(condition))
        return np.asarray(gates.double().numpy())


def _without_codes(net: State) -> State:
    return {name: array for name, array in net.items() if name != _CODEBOOK}


def _moved(
    codes: npt.NDArray[np.float32], found: FloatArray, *, seed: int
) -> npt.NDArray[np.float32]:
    """Return the codes with a client's own gates in place of its code.

    The mean of what clients send moves each code toward its members' mean: k-means, round by
    round. Before all codes have moved a client's is drawn, so that no two begin alike.
    """
    moved = codes.copy()
    if (codes == np.float32(FIRST_GATE)).all(axis=1).any():
        own = seed % len(codes)
    else:
        own = int(np.square(codes - found).sum(axis=1).argmin())
    moved[own] = found
    return moved


def _gates_of(weights: Mapping[str, torch.Tensor], condition: torch.Tensor) -> torch.Tensor:
    hidden = linear(condition[None], weights["hidden.weight"], weights["hidden.bias"])
    active = prelu(hidden, weights["slope"])
    return linear(active, weights["gates.weight"], weights["gates.bias"])[0]
