"""Running many adapters over the same examples, sharing what is frozen.

The part of the model below the first adapted layer gives the same hidden states for every
adapter, so it runs once per set of examples. Above it, C adapters times n examples travel
as one batch, adapter by adapter; the low-rank parts are batched matrix products over the
shared base weights. Attention is shared where it can be, and the last layer is computed only
where the head reads (see `fedcert.adapters.layer_attention`). Fine-tuning is the case C = 1
with gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import nn

from fedcert.adapters.layer_attention import (
    CapturedAttention,
    LayerAttention,
    UnsupportedLayerError,
)
from fedcert.adapters.model_inputs import (
    has_padding,
    one_token_each,
    read_positions,
    shortest,
)
from fedcert.adapters.patching import enter_with, own_linear, skipping
from fedcert.adapters.space import AdapterSpace
from fedcert.errors import AdapterError, ModelError
from fedcert.models.base import BaseModel

__all__ = ["AdaptedModel", "PreparedInputs"]

# Activations alive at once in a layer, in multiples of its input (attention, MLP).
_ACTIVATIONS = 12
# Largest difference between the reduced model's logits and the whole one's that passes.
_SELF_CHECK_TOLERANCE = 1e-4


@dataclass(frozen=True)
class PreparedInputs:
    """Examples with the frozen part of the model already applied.

    Attributes
    ----------
    inputs : dict
        Keyword arguments of the model, batch size n.
    hidden : torch.Tensor
        Input of the first adapted layer, shape ``(n, tokens, width)``.
    read : torch.Tensor
        The position of each example that the head reads, shape ``(n,)``.
    first : CapturedAttention or None
        The frozen attention of that layer, where it is shared by all adapters.
    """

    inputs: dict[str, torch.Tensor]
    hidden: torch.Tensor
    read: torch.Tensor
    first: CapturedAttention | None = None

    def __len__(self) -> int:
        return len(self.hidden)

    def take(self, rows: torch.Tensor) -> PreparedInputs:
        """Return the examples at `rows`."""
        return PreparedInputs(
            {name: tensor[rows] for name, tensor in self.inputs.items()},
            self.hidden[rows],
            self.read[rows],
            None if self.first is None else self.first.take(rows),
        )


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
    reduce_top : bool (default: True)
        Share the first adapted layer's attention and compute the last layer only where the
        head reads, if the model's build allows it; the first examples are run through the
        whole model as well to make sure.

    Attributes
    ----------
    note : str
        Why this was not possible; empty if it is, or may be.
    """

    def __init__(
        self, base: BaseModel, space: AdapterSpace, *, reduce_top: bool = True
    ) -> None:
        if space.base_digest != base.digest:
            raise AdapterError(
                f"the adapter space belongs to another base model "
                f"({space.base_digest[:12]} instead of {base.digest[:12]})"
            )
        self.base, self.space, self.note = base, space, ""
        self._dtype = next(base.model.parameters()).dtype
        self._basis = {
            name: torch.from_numpy(array).to(self._dtype) for name, array in space.basis.items()
        }
        self._layers = cast(nn.ModuleList, base.model.get_submodule(base.layout.layers))
        prefix = len(base.layout.layers) + 1
        self._first = min(int(t.name[prefix:].split(".")[0]) for t in space.targets)
        self._head_linear = _linear_head(base, space)
        self._attention = self._find_attention() if reduce_top else None
        self._checked: set[bool] = set()

    @property
    def top_only(self) -> bool:
        """Whether only the last layer is adapted, and only where the head reads is run."""
        return self._attention is not None and self._attention[0] is self._attention[1]

    def prepare(self, inputs: dict[str, torch.Tensor]) -> PreparedInputs:
        """Run the frozen part below the first adapted layer once."""
        with torch.no_grad():
            prepared = self._run_prefix(inputs)
        # Padding brings masks into play, so inputs with and without are checked apart.
        padded = has_padding(inputs)
        if self._attention is not None and padded not in self._checked:
            self._checked.add(padded)
            self._check(prepared)
        return prepared if self._attention is not None else replace(prepared, first=None)

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
        parts = self.space.split(vectors.to(self._dtype))
        run = self._full if prepared.first is None else self._reduced
        output = run(prepared, parts, len(vectors))
        return output.float().unflatten(0, (len(vectors), len(prepared)))  # type: ignore[no-any-return, no-untyped-call]

    def floats_per_adapter(self, prepared: PreparedInputs) -> int:
        """Estimate how many numbers one adapter's activations take at their peak."""
        examples, tokens, width = prepared.hidden.shape
        if prepared.first is None:
            return int(examples * tokens * _ACTIVATIONS * width)
        _, heads, places, _ = prepared.first.query.shape
        return int(examples * places * (_ACTIVATIONS * width + 2 * heads * tokens))

    def _full(
        self, prepared: PreparedInputs, parts: dict[str, torch.Tensor], copies: int
    ) -> torch.Tensor:
        """Run all layers from the first adapted one on, at all tokens."""
        with ExitStack() as stack:
            self._install(stack, parts)
            first = self._layers[self._first]
            enter = _entering(_repeat(prepared.hidden, copies))
            stack.callback(first.register_forward_pre_hook(enter).remove)
            stack.enter_context(skipping(self._layers, self._first))
            # Masks and the head of a decoder look at the inputs again.
            inputs = {name: _repeat(value, copies) for name, value in prepared.inputs.items()}
            return cast(torch.Tensor, self.base.model(**inputs).logits)

    def _reduced(
        self, prepared: PreparedInputs, parts: dict[str, torch.Tensor], copies: int
    ) -> torch.Tensor:
        """Share the first adapted layer's attention; run the last where the head reads."""
        first, top = cast(tuple[LayerAttention, LayerAttention], self._attention)
        captured = cast(CapturedAttention, prepared.first)
        cores = {n.removesuffix(".R"): part for n, part in parts.items() if n.endswith(".R")}
        context = first.shared_context(captured, cores)
        residual = _repeat(captured.residual, copies)
        if first is not top:
            captured = self._climb(prepared, parts, copies, residual, context)
            context, residual = top.own_context(captured), captured.residual
        with ExitStack() as stack:
            # Query, key and value have done their part; what else is adapted runs as usual.
            self._install(stack, parts, but=top.names)
            enter_with(stack, top.layer, residual)
            stack.enter_context(skipping(self._layers, len(self._layers) - 1))
            stack.enter_context(top.attending(context))
            inputs = one_token_each(prepared.inputs, copies * len(prepared))
            return cast(torch.Tensor, self.base.model(**inputs).logits)

    def _climb(
        self,
        prepared: PreparedInputs,
        parts: dict[str, torch.Tensor],
        copies: int,
        residual: torch.Tensor,
        context: torch.Tensor,
    ) -> CapturedAttention:
        """Run from the first adapted layer up to the last layer's attention."""
        first, top = cast(tuple[LayerAttention, LayerAttention], self._attention)
        read, captured = prepared.read.repeat(copies), []

        def stop(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            captured.append(top.capture(read, args, kwargs))
            raise _PrefixDone

        with ExitStack() as stack:
            self._install(stack, parts, but=first.names)
            enter_with(stack, first.layer, residual)
            stack.enter_context(first.attending(context))
            stack.callback(top.layer.register_forward_pre_hook(stop, with_kwargs=True).remove)
            stack.enter_context(skipping(self._layers, self._first))
            inputs = {name: _repeat(value, copies) for name, value in prepared.inputs.items()}
            _until_done(self.base.model, inputs)
        return captured[0]

    def _run_prefix(self, inputs: dict[str, torch.Tensor]) -> PreparedInputs:
        read = read_positions(self.base.model, inputs)
        hidden: list[torch.Tensor] = []
        captured: list[CapturedAttention] = []

        def stop(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden.append(args[0])
            if self._attention is not None:
                first, top = self._attention
                places = read if first is top else None
                captured.append(first.capture(places, args, kwargs))
            raise _PrefixDone

        first_layer = self._layers[self._first]
        handle = first_layer.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            _until_done(self.base.model, inputs)
        finally:
            handle.remove()
        if not hidden:
            raise ModelError(
                f"{type(self.base.model).__name__} never ran its layer {self._first}; "
                "fedcert cannot adapt it"
            )
        return PreparedInputs(inputs, hidden[0], read, captured[0] if captured else None)

    def _find_attention(self) -> tuple[LayerAttention, LayerAttention] | None:
        """Take out the attention of the first adapted layer and of the last one."""
        adapted = frozenset(target.name for target in self.space.targets)
        config = self.base.model.config
        try:
            first, top = (
                LayerAttention(
                    self._layers[index],
                    f"{self.base.layout.layers}.{index}",
                    config,
                    self._basis,
                    adapted,
                )
                for index in (self._first, len(self._layers) - 1)
            )
        except (UnsupportedLayerError, AttributeError) as error:
            self.note = f"the top layer runs in full: {error}"
            return None
        if getattr(config, "attn_logit_softcapping", None):
            self.note = "the top layer runs in full: its attention scores are capped"
            return None
        if first.keys_adapted and hasattr(config, "rope_parameters"):
            self.note = "the top layer runs in full: its rotary keys are adapted"
            return None
        return (top, top) if self._first == len(self._layers) - 1 else (first, top)

    @torch.no_grad()
    def _check(self, prepared: PreparedInputs) -> None:
        """Compare with the whole model, nothing skipped or reduced, on a few examples."""
        few = prepared.take(shortest(prepared.inputs)[:4])
        generator = torch.Generator().manual_seed(0)
        vectors = 0.5 * torch.randn(2, self.space.dimension, generator=generator)
        parts = self.space.split(vectors.to(self._dtype))
        with ExitStack() as stack:
            self._install(stack, parts)
            inputs = {name: _repeat(value, 2) for name, value in few.inputs.items()}
            full = self.base.model(**inputs).logits
        try:
            reduced = self._reduced(few, parts, 2)
            difference = float((full - reduced).abs().max() / full.abs().max().clamp(min=1.0))
        except (RuntimeError, TypeError, IndexError, AttributeError) as error:
            self._attention, self.note = None, f"the top layer runs in full: {error}"
            return
        if not difference <= _SELF_CHECK_TOLERANCE:
            self._attention = None
            self.note = f"the top layer runs in full: reduced it differs by {difference:.1e}"

    def _install(
        self,
        stack: ExitStack,
        parts: dict[str, torch.Tensor],
        *,
        but: frozenset[str] = frozenset(),
    ) -> None:
        """Put hooks for the adapters into the model until the stack closes."""
        for target in self.space.targets:
            if target.name in but:
                continue
            module = self.base.model.get_submodule(target.name)
            hook = self._low_rank(target.name, parts[f"{target.name}.R"])
            stack.callback(module.register_forward_hook(hook).remove)
        for name in self._head_linear:
            hook = own_linear(parts[f"{name}.weight"], parts.get(f"{name}.bias"))
            module = self.base.model.get_submodule(name)
            stack.callback(module.register_forward_hook(hook).remove)

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


def _linear_head(base: BaseModel, space: AdapterSpace) -> list[str]:
    """Return the names of the head's linear modules; nothing else may be in the head."""
    module = base.model.get_submodule(space.head_module)
    names = [
        f"{space.head_module}.{name}".rstrip(".")
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear)
    ]
    held = {f"{name}.{tensor}" for name in names for tensor in ("weight", "bias")}
    if not {tensor.name for tensor in space.head} <= held:
        raise ModelError(
            f"the head {space.head_module!r} holds more than linear modules; "
            "fedcert cannot batch adapters over it"
        )
    return names


def _entering(hidden: torch.Tensor) -> Callable[..., tuple[Any, ...] | None]:
    """Return a hook that replaces a layer's input the first time it runs.

    ALBERT runs one layer several times, and only its first input was saved.
    """
    saved = [hidden]

    def enter(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return (saved.pop(), *args[1:]) if saved else None

    return enter


def _until_done(model: nn.Module, inputs: dict[str, torch.Tensor]) -> None:
    with suppress(_PrefixDone):
        model(**inputs)


def _repeat(tensor: torch.Tensor, copies: int) -> torch.Tensor:
    """Repeat a batch `copies` times, adapter by adapter."""
    if copies == 1:
        return tensor
    return tensor.expand(copies, *tensor.shape).flatten(0, 1)
