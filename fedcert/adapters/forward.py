"""Running many adapters over the same examples, sharing what is frozen.

The part of the model below the first adapted layer gives the same hidden states for every
adapter, so it runs once per set of examples. Above it, C adapters times n examples travel
as one batch, adapter by adapter; the low-rank parts are batched matrix products over the
shared base weights. Fine-tuning is the case C = 1 with gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from fedcert.adapters.space import AdapterSpace
from fedcert.errors import AdapterError, ModelError
from fedcert.models.base import BaseModel

__all__ = ["AdaptedModel", "PreparedInputs"]


@dataclass(frozen=True)
class PreparedInputs:
    """Examples with the frozen part of the model already applied.

    Attributes
    ----------
    inputs : dict
        Keyword arguments of the model, batch size n.
    hidden : torch.Tensor
        Input of the first adapted layer, shape ``(n, tokens, width)``.
    """

    inputs: dict[str, torch.Tensor]
    hidden: torch.Tensor

    def __len__(self) -> int:
        return len(self.hidden)

    def take(self, rows: torch.Tensor) -> PreparedInputs:
        """Return the examples at `rows`."""
        inputs = {name: tensor[rows] for name, tensor in self.inputs.items()}
        return PreparedInputs(inputs, self.hidden[rows])


class _PrefixDone(Exception):  # noqa: N818  (a signal, not an error)
    """Ends a forward pass once the first adapted layer has been reached."""


class AdaptedModel:
    """A base model that runs with adapters given as vectors.

    The base model's own weights are never written, and no hook stays behind.

    Parameters
    ----------
    base : BaseModel
        The frozen model; its digest must be the space's.
    space : AdapterSpace
        The coordinates of the adapters.
    """

    def __init__(self, base: BaseModel, space: AdapterSpace) -> None:
        if space.base_digest != base.digest:
            raise AdapterError(
                f"the adapter space belongs to another base model "
                f"({space.base_digest[:12]} instead of {base.digest[:12]})"
            )
        self.base, self.space = base, space
        self._basis = {name: torch.from_numpy(array) for name, array in space.basis.items()}
        self._layers = cast(nn.ModuleList, base.model.get_submodule(base.layout.layers))
        prefix = len(base.layout.layers) + 1
        self._first = min(int(t.name[prefix:].split(".")[0]) for t in space.targets)
        # A model that mixes kinds of layers chooses each one's mask by its place in the
        # list, so its list stays whole; what the lower layers give is then replaced.
        kinds = getattr(base.model.config, "layer_types", None) or ()
        self._skipped = self._first if len(set(kinds)) < 2 else 0
        head = base.model.get_submodule(space.head_module)
        linear = [
            name for name, module in head.named_modules() if isinstance(module, nn.Linear)
        ]
        held = {f"{space.head_module}.{n}.{p}".replace("..", ".") for n in linear
                for p in ("weight", "bias")}  # fmt: skip
        if not {tensor.name for tensor in space.head} <= held:
            raise ModelError(
                f"the head {space.head_module!r} holds more than linear modules; "
                "fedcert cannot batch adapters over it"
            )
        self._head_linear = [f"{space.head_module}.{name}".rstrip(".") for name in linear]

    @torch.no_grad()
    def prepare(self, inputs: dict[str, torch.Tensor]) -> PreparedInputs:
        """Run the frozen part below the first adapted layer once."""
        captured: list[torch.Tensor] = []

        def stop(_module: nn.Module, args: tuple[Any, ...]) -> None:
            captured.append(args[0])
            raise _PrefixDone

        handle = self._layers[self._first].register_forward_pre_hook(stop)
        try:
            self.base.model(**inputs)
        except _PrefixDone:
            pass
        finally:
            handle.remove()
        if not captured:
            raise ModelError(
                f"{type(self.base.model).__name__} never ran its layer {self._first}; "
                "fedcert cannot adapt it"
            )
        return PreparedInputs(inputs, captured[0])

    def logits(self, prepared: PreparedInputs, vectors: torch.Tensor) -> torch.Tensor:
        """Compute the logits of C adapters on n prepared examples.

        Parameters
        ----------
        prepared : PreparedInputs
            From `prepare`, n examples.
        vectors : torch.Tensor
            Adapters of shape ``(C, d)``; gradients flow to it.

        Returns
        -------
        torch.Tensor
            Shape ``(C, n, labels)``.
        """
        copies = len(vectors)
        with self._running(prepared, vectors):
            # The head of a decoder looks at the tokens again, so they are repeated too;
            # the layers below the first adapted one are skipped.
            inputs = {k: _repeat(v, len(prepared), copies) for k, v in prepared.inputs.items()}
            output = self.base.model(**inputs).logits
        return cast(torch.Tensor, output.unflatten(0, (copies, len(prepared))))

    @contextmanager
    def _running(self, prepared: PreparedInputs, vectors: torch.Tensor) -> Iterator[None]:
        """Install the adapters and the saved hidden states for one forward pass."""
        parts = self.space.split(vectors)
        with ExitStack() as stack:
            for target in self.space.targets:
                module = self.base.model.get_submodule(target.name)
                hook = self._low_rank(target.name, parts[f"{target.name}.R"])
                stack.callback(module.register_forward_hook(hook).remove)
            for name in self._head_linear:
                hook = _own_linear(parts[f"{name}.weight"], parts.get(f"{name}.bias"))
                module = self.base.model.get_submodule(name)
                stack.callback(module.register_forward_hook(hook).remove)
            first = self._layers[self._first]
            hidden = _repeat(prepared.hidden, len(prepared), len(vectors))

            def enter(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
                return (hidden, *args[1:])

            stack.callback(first.register_forward_pre_hook(enter).remove)
            stack.enter_context(_skipping(self._layers, self._skipped))
            yield

    def _low_rank(self, name: str, cores: torch.Tensor) -> Callable[..., torch.Tensor]:
        """Add (U_r S_r) R V_r^T x to a module's output, R differing per adapter."""
        up, down = self._basis[f"{name}.up"], self._basis[f"{name}.down"]

        def hook(
            _module: nn.Module, args: tuple[Any, ...], output: torch.Tensor
        ) -> torch.Tensor:
            inner = args[0] @ down.T
            grouped = inner.reshape(len(cores), -1, inner.shape[-1])
            turned = torch.bmm(grouped, cores.transpose(1, 2)).reshape(inner.shape)
            return output + turned @ up.T

        return hook


def _own_linear(weight: torch.Tensor, bias: torch.Tensor | None) -> Callable[..., torch.Tensor]:
    """Replace a linear module's output by one with weights per adapter."""

    def hook(_module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        grouped = args[0].reshape(len(weight), -1, weight.shape[-1])
        result = torch.bmm(grouped, weight.transpose(1, 2))
        if bias is not None:
            result = result + bias[:, None]
        return result.reshape(output.shape)

    return hook


@contextmanager
def _skipping(layers: nn.ModuleList, count: int) -> Iterator[None]:
    """Leave out the first `count` layers of a list while the block runs."""
    kept = dict(layers._modules)
    for index, module in enumerate(list(kept.values())[count:]):
        layers._modules[str(index)] = module
    for index in range(len(kept) - count, len(kept)):
        del layers._modules[str(index)]
    try:
        yield
    finally:
        layers._modules.clear()
        layers._modules.update(kept)


def _repeat(tensor: torch.Tensor, examples: int, copies: int) -> torch.Tensor:
    """Repeat a batch of `examples` rows `copies` times, adapter by adapter."""
    if copies == 1:
        return tensor
    return tensor.expand(copies, *tensor.shape).reshape(copies * examples, *tensor.shape[1:])
