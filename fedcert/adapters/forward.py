"""Running many adapters over the same examples, sharing what is frozen.

The part of the model below the first adapted layer gives the same hidden states for every
adapter, so it runs once per set of examples. Above it, C adapters times n examples travel
as one batch, adapter by adapter; the low-rank parts are batched matrix products over the
shared base weights. Attention is shared where it can be, and the last layer is computed only
where the head reads (see `fedcert.adapters.layer_attention`). Fine-tuning is the case C = 1
with gradients.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from fedcert.adapters.compiling import CompiledOrEager
from fedcert.adapters.layer_attention import (
    CapturedAttention,
    LayerAttention,
    shared_attention,
)
from fedcert.adapters.model_inputs import (
    has_padding,
    one_token_each,
    read_positions,
    reads_all,
    shortest,
)
from fedcert.adapters.patching import (
    FirstLayerReached,
    enter_with,
    entering,
    repeat,
    returns_tuples,
    skipping,
    until_done,
)
from fedcert.adapters.prefix_cache import PrefixCache
from fedcert.adapters.prepared import PreparedInputs
from fedcert.adapters.self_check import never_ran, not_adaptable, problem_of
from fedcert.adapters.stacked_heads import head_hooks, linear_heads
from fedcert.devices import exact_float32, moved

if TYPE_CHECKING:
    from fedcert.adapters.task import Task

__all__ = ["AdaptedModel", "PreparedInputs"]

# Activations alive at once in a layer, in multiples of its input (attention, MLP).
_ACTIVATIONS = 12


class AdaptedModel:
    """A task's base model, which runs with adapters given as vectors.

    The base model's own weights are never written, and no hook stays behind.

    Parameters
    ----------
    task : Task
        Base model, adapter space, and how inputs are encoded.
    prefix_cache : PrefixCache, optional
        Keeps what the frozen layers made of texts; models may share one.
    reduce_top : bool (default: True)
        Share the first adapted layer's attention and compute the last layer only where the
        head reads, if the model's build allows it; the first examples are run through the
        whole model as well to make sure.

    Attributes
    ----------
    device : torch.device
        Where the base model was when this was made, and everything is computed.
    note : str
        Why this was not possible; empty if it is, or may be.
    """

    def __init__(
        self,
        task: Task,
        *,
        prefix_cache: PrefixCache | None = None,
        reduce_top: bool = True,
    ) -> None:
        base, space = task.base, task.space
        self.task, self.base, self.space, self.note = task, base, space, ""
        self._dtype, self.device = next(base.model.parameters()).dtype, base.device
        self._basis = {
            name: torch.from_numpy(array).to(self.device, self._dtype)
            for name, array in space.basis.items()
        }
        self._layers = cast(nn.ModuleList, base.model.get_submodule(base.layout.layers))
        prefix = len(base.layout.layers) + 1
        self._first = min(int(t.name[prefix:].split(".")[0]) for t in space.targets)
        self._head_linear = linear_heads(base, space)
        self._in_tuples: bool | None = None  # not known yet
        self._attention: tuple[LayerAttention, LayerAttention] | None = None
        if reduce_top:
            self._attention, self.note = shared_attention(base, space, self._basis, self._first)
        self._compiled: CompiledOrEager | None = None
        self.prefix_cache = prefix_cache
        self._checked: set[bool] = set()

    @property
    def top_only(self) -> bool:
        """Whether only the last layer is adapted, and only where the head reads is run."""
        alone = self._attention is not None and self._attention[0] is self._attention[1]
        return alone and not reads_all(self.base.model)

    @property
    def width(self) -> int:
        """How many numbers the layers have for a token."""
        return self.space.targets[0].in_features

    def in_precision(self, dtype: torch.dtype) -> AdaptedModel:
        """Return the model with a copy of its weights in another precision.

        It is for ranking candidates: the bundle and the certificate speak of this one.
        """
        if dtype is self._dtype:
            return self
        model = deepcopy(self.base.model)
        for parameter in model.parameters():
            # Not the buffers: rotary frequencies need their digits.
            parameter.data = parameter.data.to(dtype)
        task = replace(self.task, base=replace(self.base, model=model))
        return task.model(reduce_top=self._attention is not None)

    def compile_stacked(self) -> None:
        """Compile the attention that all adapters share, the bulk of the stacked forward.

        Where that cannot be done a warning says why, and the model runs as it is.
        """
        if self._attention is None:
            why = self.note or "adapters share no attention"
            warnings.warn(f"nothing is compiled: {why}", stacklevel=2)
        elif self._compiled is None:
            self._compiled = CompiledOrEager(self._attention[0].shared_context)

    @exact_float32()
    def prepare(self, inputs: dict[str, torch.Tensor]) -> PreparedInputs:
        """Run the frozen part below the first adapted layer once, on inputs from the CPU."""
        try:
            with torch.no_grad():
                self._learn_returns(inputs)
                prepared = self._run_prefix(inputs)
        except (AttributeError, TypeError, ValueError) as error:
            raise not_adaptable(self.base.model, f"it fails: {error}") from error
        # Padding brings masks into play, so inputs with and without are checked apart.
        padded = has_padding(inputs)
        if padded not in self._checked:
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
            ``(C, d)``, or as `AdapterSpace.holding` says, on any device; gradients flow to it.

        Returns
        -------
        torch.Tensor
            Shape ``(C, n, labels)``.
        """
        self._learn_returns(prepared.inputs)
        space = self.space.holding(vectors.shape[-1], labels=self.base.num_labels)
        parts = space.parts(vectors.to(self.device, self._dtype))
        run = self._full if prepared.first is None else self._reduced
        output = run(prepared, parts, len(vectors))
        return output.float().unflatten(0, (len(vectors), len(prepared)))  # type: ignore[no-any-return, no-untyped-call]

    @contextmanager
    def adapted(
        self, vectors: torch.Tensor
    ) -> Iterator[Callable[[dict[str, torch.Tensor]], torch.Tensor]]:
        """Let adapters ``(C, d)`` take part while the block runs, nothing skipped or reduced.

        Gradients flow to the vectors, and to what hooks of others add to the layers. Where
        layers run once more for them, the block has to last until then.

        Yields
        ------
        callable
            From inputs on the model's device, n examples, to logits ``(C, n, labels)``.
        """
        copies = len(vectors)

        def run(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            repeated = {name: repeat(value, copies) for name, value in inputs.items()}
            output = self.base.model(**repeated).logits
            return cast(torch.Tensor, output.unflatten(0, (copies, -1)))

        with ExitStack() as stack:
            self._install(stack, self.space.parts(vectors.to(self.device, self._dtype)))
            yield run

    def floats_per_adapter(self, prepared: PreparedInputs) -> int:
        """Estimate how many numbers one adapter's activations take at their peak."""
        examples, tokens, width = prepared.hidden.shape
        if prepared.first is None:
            head = getattr(self.base.model, "head_floats", 0)
            return int(examples * (tokens * _ACTIVATIONS * width + head))
        _, heads, places, _ = prepared.first.query.shape
        return int(examples * places * (_ACTIVATIONS * width + 2 * heads * tokens))

    def _full(
        self, prepared: PreparedInputs, parts: dict[str, torch.Tensor], copies: int
    ) -> torch.Tensor:
        """Run all layers from the first adapted one on, at all tokens."""
        return self._from_first(prepared, parts, copies, repeat(prepared.hidden, copies))

    def _from_first(
        self,
        prepared: PreparedInputs,
        parts: dict[str, torch.Tensor],
        copies: int,
        hidden: torch.Tensor,
        *,
        but: frozenset[str] = frozenset(),
    ) -> torch.Tensor:
        with ExitStack() as stack:
            self._install(stack, parts, but=but)
            first = self._layers[self._first]
            stack.callback(first.register_forward_pre_hook(entering(hidden)).remove)
            stack.enter_context(self._skipping(self._first))
            # Masks, poolings, and the head of a decoder look at the inputs again.
            inputs = {name: repeat(value, copies) for name, value in prepared.inputs.items()}
            return cast(torch.Tensor, self.base.model(**inputs).logits)

    def _reduced(
        self, prepared: PreparedInputs, parts: dict[str, torch.Tensor], copies: int
    ) -> torch.Tensor:
        """Share the first adapted layer's attention; run the last where the head reads."""
        first, top = cast(tuple[LayerAttention, LayerAttention], self._attention)
        captured = cast(CapturedAttention, prepared.first)
        cores = {n.removesuffix(".R"): part for n, part in parts.items() if n.endswith(".R")}
        share = self._compiled or first.shared_context
        context = share(captured, cores)
        residual = repeat(captured.residual, copies)
        if prepared.read is None:
            with first.attending(context):
                return self._from_first(prepared, parts, copies, residual, but=first.names)
        if first is not top:
            captured = self._climb(prepared, parts, copies, residual, context)
            context, residual = top.own_context(captured), captured.residual
        with ExitStack() as stack:
            # Query, key and value have done their part; what else is adapted runs as usual.
            self._install(stack, parts, but=top.names)
            enter_with(stack, top.layer, residual)
            stack.enter_context(self._skipping(len(self._layers) - 1))
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
        read = cast(torch.Tensor, prepared.read).repeat(copies)
        captured: list[CapturedAttention] = []

        def stop(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            captured.append(top.capture(read, args, kwargs))
            raise FirstLayerReached

        with ExitStack() as stack:
            self._install(stack, parts, but=first.names)
            enter_with(stack, first.layer, residual)
            stack.enter_context(first.attending(context))
            stack.callback(top.layer.register_forward_pre_hook(stop, with_kwargs=True).remove)
            stack.enter_context(self._skipping(self._first))
            inputs = {name: repeat(value, copies) for name, value in prepared.inputs.items()}
            until_done(self.base.model, inputs)
        return captured[0]

    def _run_prefix(self, encoded: dict[str, torch.Tensor]) -> PreparedInputs:
        inputs = moved(encoded, self.device)
        read = read_positions(self.base.model, inputs)
        hidden: list[torch.Tensor] = []
        captured: list[CapturedAttention] = []

        def stop(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden.append(args[0])
            if self._attention is not None:
                first, top = self._attention
                places = read if first is top else None
                captured.append(first.capture(places, args, kwargs))
            raise FirstLayerReached

        with ExitStack() as stack:
            self._enter_known(stack, encoded)
            self._stop_at_first(stack, stop)
            until_done(self.base.model, inputs)
        if not hidden:
            raise never_ran(self.base.model, self._first)
        return PreparedInputs(inputs, hidden[0], read, captured[0] if captured else None)

    def _stop_at_first(self, stack: ExitStack, stop: Callable[..., None]) -> None:
        layer = self._layers[self._first]
        stack.callback(layer.register_forward_pre_hook(stop, with_kwargs=True).remove)

    def _enter_known(self, stack: ExitStack, inputs: dict[str, torch.Tensor]) -> None:
        """Let the first adapted layer be called with what the cache has, if there is one."""
        if self.prefix_cache is None or getattr(self.base.model, "several", False):
            return  # label phrases of several tokens follow each text
        cut = f"{self.base.digest}/{self._dtype}/{self._first}/{self.device}"
        hidden = self.prefix_cache.hidden(cut, inputs, self._below_first)
        if hidden is not None:
            enter_with(stack, self._layers[self._first], hidden)
            stack.enter_context(self._skipping(self._first))

    @torch.no_grad()
    def _learn_returns(self, inputs: dict[str, torch.Tensor]) -> None:
        if self._in_tuples is None:
            few = {name: tensor[:1].to(self.device) for name, tensor in inputs.items()}
            self._in_tuples = returns_tuples(self.base.model, self._layers[0], few)

    def _skipping(self, count: int) -> AbstractContextManager[None]:
        return skipping(self._layers, count, in_tuples=bool(self._in_tuples))

    def _below_first(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Run the frozen layers only, on inputs from the CPU."""
        hidden: list[torch.Tensor] = []

        def stop(_module: nn.Module, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
            hidden.append(args[0])
            raise FirstLayerReached

        with ExitStack() as stack:
            self._stop_at_first(stack, stop)
            until_done(self.base.model, moved(inputs, self.device))
        if not hidden:
            raise never_ran(self.base.model, self._first)
        return hidden[0]

    @torch.no_grad()
    def _check(self, prepared: PreparedInputs) -> None:
        """Compare with the whole model, nothing skipped or reduced, on a few examples."""
        few = prepared.take(shortest(prepared.inputs)[:4])
        generator = torch.Generator().manual_seed(0)
        vectors = 0.5 * torch.randn(2, self.space.dimension, generator=generator)
        parts = self.space.parts(vectors.to(self.device, self._dtype))
        with self.adapted(vectors) as run:
            whole = run(few.inputs).flatten(0, 1)
        if self._attention is not None:
            problem = problem_of(lambda: self._reduced(few, parts, 2), whole, self._dtype)
            if not problem:
                return
            self._attention, self.note = None, f"the top layer runs in full: reduced {problem}"
        problem = problem_of(lambda: self._full(few, parts, 2), whole, self._dtype)
        if problem:
            raise not_adaptable(self.base.model, f"with its lower layers skipped {problem}")

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
        for name, hook in head_hooks(self.base.model, self._head_linear, parts):
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
