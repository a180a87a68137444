"""A layer's attention, computed once for all adapters and only where it is read.

Two things save work. In the first adapted layer queries, keys and values are the same for
all adapters up to their low-rank part, so they are computed once per set of examples. In the
last layer everything but keys and values is needed only at the position that the head reads:
the first token of an encoder, the last real token of a decoder.

The layer's own modules do the work around attention (norms, residuals, MLP).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from fedcert.adapters.patching import forward_replaced
from fedcert.adapters.space import AdapterSpace
from fedcert.models.base import BaseModel

__all__ = ["CapturedAttention", "LayerAttention", "UnsupportedLayerError", "shared_attention"]

_IN_FULL = "the top layer runs in full"

_NAMES = {
    "query": ("q_proj", "query", "q_lin"),
    "key": ("k_proj", "key", "k_lin"),
    "value": ("v_proj", "value", "v_lin"),
}
_OUTPUTS = ("o_proj", "out_proj", "out_lin")


class UnsupportedLayerError(Exception):
    """The layer is not built in a way that this module knows."""


class _Captured(Exception):  # noqa: N818  (a signal, not an error)
    """Ends a layer's forward pass once its attention has been reached."""


@dataclass(frozen=True)
class CapturedAttention:
    """What attention at P positions needs, for a batch of B sequences of T tokens.

    Attributes
    ----------
    residual : torch.Tensor
        The layer's input at the positions, ``(B, P, width)``.
    inputs : torch.Tensor
        The projections' input at all tokens, ``(B, T, width)``.
    at : torch.Tensor
        The same at the positions, ``(B, P, width)``.
    query : torch.Tensor
        ``(B, heads, P, head_width)``.
    keys, values : torch.Tensor
        ``(B, heads, T, head_width)``.
    bias : torch.Tensor or None
        Added to the scores, ``(B, P or 1, T)``: zero, or hugely negative where masked.
    rotation : tuple of torch.Tensor or None
        Cosine and sine of rotary embeddings at the positions, ``(B, P, head_width)``.
    """

    residual: torch.Tensor
    inputs: torch.Tensor
    at: torch.Tensor
    query: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    bias: torch.Tensor | None
    rotation: tuple[torch.Tensor, torch.Tensor] | None

    def take(self, rows: torch.Tensor) -> CapturedAttention:
        """Return the sequences at `rows`."""
        rotation = self.rotation
        return CapturedAttention(
            residual=self.residual[rows],
            inputs=self.inputs[rows],
            at=self.at[rows],
            query=self.query[rows],
            keys=self.keys[rows],
            values=self.values[rows],
            bias=None if self.bias is None else self.bias[rows],
            rotation=None if rotation is None else (rotation[0][rows], rotation[1][rows]),
        )


class LayerAttention:
    """The attention of one layer, taken out of its forward pass.

    Parameters
    ----------
    layer : torch.nn.Module
        The layer.
    name : str
        Its dotted name.
    config : object
        The model's configuration (numbers of heads).
    basis : Mapping[str, torch.Tensor]
        The adapter space's basis, see `fedcert.adapters.AdapterSpace`.
    adapted : frozenset of str
        Names of the adapted modules.

    Raises
    ------
    UnsupportedLayerError
        If the layer's attention has no separate query, key and value projections.
    """

    def __init__(
        self,
        layer: nn.Module,
        name: str,
        config: Any,
        basis: Mapping[str, torch.Tensor],
        adapted: frozenset[str],
    ) -> None:
        self.layer, self._basis = layer, basis
        paths = {part: _find(layer, names) for part, names in _NAMES.items()}
        parents = {path.rpartition(".")[0] for path in paths.values()}
        if len(parents) != 1:
            raise UnsupportedLayerError("query, key and value are not in one module")
        self._attention = layer.get_submodule(parents.pop())
        self._modules = {
            p: cast(nn.Linear, layer.get_submodule(path)) for p, path in paths.items()
        }
        self._names = {part: f"{name}.{path}" for part, path in paths.items()}
        self._adapted = {p: full for p, full in self._names.items() if full in adapted}
        self._heads = int(config.num_attention_heads)
        self._kv_heads = int(getattr(config, "num_key_value_heads", None) or self._heads)
        self._causal = bool(getattr(self._attention, "is_causal", False))
        self._output = next(
            (getattr(self._attention, o) for o in _OUTPUTS if hasattr(self._attention, o)), None
        )
        width = self._modules["query"].out_features // self._heads
        self._scaling = float(getattr(self._attention, "scaling", width**-0.5))

    @property
    def names(self) -> frozenset[str]:
        """Dotted names of the query, key and value projections."""
        return frozenset(self._names.values())

    @property
    def keys_adapted(self) -> bool:
        """Whether keys are adapted; with rotary embeddings that cannot be shared."""
        return "key" in self._adapted

    def capture(
        self, read: torch.Tensor | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> CapturedAttention:
        """Run the layer up to its attention and keep what the positions need.

        Parameters
        ----------
        read : torch.Tensor or None
            One position of each sequence, shape ``(B,)``; None for all positions.
        args, kwargs : tuple, dict
            What the layer was called with; the hidden states come first.

        Returns
        -------
        CapturedAttention
            What attention at those positions needs, before any adapter.
        """
        seen: dict[str, Any] = {}

        def stop(hidden_states: torch.Tensor, attention_mask: Any = None, **rest: Any) -> None:
            seen.update(rest, inputs=hidden_states, mask=attention_mask)
            raise _Captured

        with forward_replaced(self._attention, stop), suppress(_Captured):
            self.layer.forward(*args, **kwargs)
        inputs = seen["inputs"]
        at = _at(inputs, read)
        query = self._split(self._modules["query"](at), self._heads)
        keys = self._split(self._modules["key"](inputs), self._kv_heads)
        values = self._split(self._modules["value"](inputs), self._kv_heads)
        rotation = None
        if seen.get("position_embeddings") is not None:
            cosine, sine = (
                t.expand(len(inputs), *t.shape[1:]) for t in seen["position_embeddings"]
            )
            rotation = (_at(cosine, read), _at(sine, read))
            query = _rotate(query, rotation[0][:, None], rotation[1][:, None])
            keys = _rotate(keys, cosine[:, None], sine[:, None])
        groups = self._heads // self._kv_heads
        return CapturedAttention(
            residual=_at(args[0], read),
            inputs=inputs,
            at=at,
            query=query,
            keys=keys.repeat_interleave(groups, dim=1),
            values=values.repeat_interleave(groups, dim=1),
            bias=self._bias(seen["mask"], read, inputs),
            rotation=rotation,
        )

    @contextmanager
    def attending(self, context: torch.Tensor) -> Iterator[None]:
        """Replace the layer's attention by a given context ``(batch, P, width)``."""

        def attend(*_args: Any, **_kwargs: Any) -> tuple[torch.Tensor, None]:
            return (context if self._output is None else self._output(context)), None

        with forward_replaced(self._attention, attend):
            yield

    def own_context(self, captured: CapturedAttention) -> torch.Tensor:
        """Attend with each sequence's own keys and values; ``(B, P, width)``."""
        scores = captured.query @ captured.keys.transpose(2, 3) * self._scaling
        if captured.bias is not None:
            scores = scores + captured.bias[:, None]
        context = scores.softmax(dim=-1) @ captured.values
        return context.transpose(1, 2).flatten(2)

    def shared_context(
        self, captured: CapturedAttention, cores: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """Attend with keys and values that all adapters share, plus low-rank parts.

        Parameters
        ----------
        captured : CapturedAttention
            What `capture` returned for n sequences, without any adapter.
        cores : Mapping[str, torch.Tensor]
            R of each adapted module by full name, ``(C, r, r)``.

        Returns
        -------
        torch.Tensor
            Shape ``(C * n, P, width)``, adapter by adapter.
        """
        copies = len(next(iter(cores.values())))
        examples, heads, places, width = captured.query.shape
        tokens = captured.keys.shape[2]
        query = self._adapted_query(captured, cores, copies)  # (n, heads, C, P, width)
        scores = query.flatten(2, 3) @ captured.keys.transpose(2, 3)
        inner = {
            part: captured.inputs @ self._basis[f"{name}.down"].T
            for part, name in self._adapted.items()
        }
        if "key" in self._adapted:
            # q . (U R V^T x) for all tokens, without ever forming the adapted keys
            turned = torch.einsum("nhcpd,hdr->nhcpr", query, self._up("key"))
            turned = torch.einsum("nhcpr,crs->nhcps", turned, cores[self._adapted["key"]])
            scores = scores + turned.flatten(2, 3) @ inner["key"].transpose(1, 2)[:, None]
        scores = (scores * self._scaling).view(examples, heads, copies, places, tokens)
        if captured.bias is not None:
            scores = scores + captured.bias[:, None, None]
        weights = scores.softmax(dim=-1).flatten(2, 3)
        context = weights @ captured.values  # (n, heads, C * P, width)
        context = context.view(examples, heads, copies, places, width)
        if "value" in self._adapted:
            pooled = weights.flatten(1, 2) @ inner["value"]  # (n, heads * C * P, r)
            pooled = pooled.view(examples, heads, copies, places, -1)
            core = cores[self._adapted["value"]]
            turned = torch.einsum("nhcps,crs->nhcpr", pooled, core)
            context = context + torch.einsum("nhcpr,hdr->nhcpd", turned, self._up("value"))
        context = context.permute(2, 0, 3, 1, 4)  # (C, n, P, heads, width)
        return context.reshape(copies * examples, places, heads * width)

    def _adapted_query(
        self, captured: CapturedAttention, cores: Mapping[str, torch.Tensor], copies: int
    ) -> torch.Tensor:
        if "query" not in self._adapted:
            return captured.query[:, :, None].expand(-1, -1, copies, -1, -1)
        name = self._adapted["query"]
        inner = captured.at @ self._basis[f"{name}.down"].T
        turned = torch.einsum("nps,crs->ncpr", inner, cores[name])
        change = torch.einsum("ncpr,hdr->nhcpd", turned, self._up("query"))
        if captured.rotation is not None:
            cosine, sine = captured.rotation
            change = _rotate(change, cosine[:, None, None], sine[:, None, None])
        return captured.query[:, :, None] + change

    def _up(self, part: str) -> torch.Tensor:
        """Return U_r S_r by head: ``(heads, head_width, r)``."""
        up = self._basis[f"{self._adapted[part]}.up"]
        heads = self._heads if part == "query" else self._kv_heads
        split = up.reshape(heads, -1, up.shape[-1])
        return split.repeat_interleave(self._heads // heads, dim=0)

    def _split(self, projected: torch.Tensor, heads: int) -> torch.Tensor:
        """Split ``(B, P, width)`` into heads: ``(B, heads, P, head_width)``."""
        return projected.reshape(*projected.shape[:2], heads, -1).transpose(1, 2)

    def _bias(
        self, mask: torch.Tensor | None, read: torch.Tensor | None, inputs: torch.Tensor
    ) -> torch.Tensor | None:
        """Return what the mask adds to the scores of the positions, ``(B, P or 1, T)``."""
        size, tokens = inputs.shape[:2]
        if mask is None:
            if not self._causal:
                return None
            places = torch.arange(tokens, device=inputs.device)
            mask = (places[None] <= places[:, None])[None, None]
        rows = mask[:, 0, :, :tokens].expand(size, -1, -1)
        if rows.shape[1] > 1:
            rows = _at(rows, read)
        # Not minus infinity: a padding token behind a sliding window sees nothing at all, and
        # its NaN would spread to the tokens that ignore it.
        lowest = torch.finfo(inputs.dtype).min
        if rows.dtype != torch.bool:
            return rows.to(inputs.dtype).clamp(min=lowest)
        zeros = torch.zeros(rows.shape, dtype=inputs.dtype, device=inputs.device)
        return zeros.masked_fill(~rows, lowest)


def _at(states: torch.Tensor, read: torch.Tensor | None) -> torch.Tensor:
    """Pick one position of each sequence, ``(B, 1, width)``, or all."""
    if read is None:
        return states
    return states[torch.arange(len(read), device=read.device), read][:, None]


def _find(layer: nn.Module, names: tuple[str, ...]) -> str:
    found = [
        path
        for path, module in layer.named_modules()
        if isinstance(module, nn.Linear) and path.rpartition(".")[2] in names
    ]
    if len(found) != 1:
        raise UnsupportedLayerError(f"no single projection named {' or '.join(names)}")
    return str(found[0])


def _rotate(states: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Apply rotary position embeddings, halves convention (Su et al., arXiv 2104.09864)."""
    first, second = states.chunk(2, dim=-1)
    return states * cosine + torch.cat([-second, first], dim=-1) * sine


def shared_attention(
    base: BaseModel, space: AdapterSpace, basis: Mapping[str, torch.Tensor], first: int
) -> tuple[tuple[LayerAttention, LayerAttention] | None, str]:
    """Take out the attention of the first adapted layer and of the last one.

    Parameters
    ----------
    base : BaseModel
        The frozen model.
    space : AdapterSpace
        Says what is adapted.
    basis : Mapping[str, torch.Tensor]
        The space's directions, where the model computes.
    first : int
        Index of the first adapted layer.

    Returns
    -------
    tuple
        Both, or None and why the model's build does not allow it.
    """
    model, config = base.model, base.model.config
    layers = cast(nn.ModuleList, model.get_submodule(base.layout.layers))
    adapted = frozenset(target.name for target in space.targets)
    if getattr(model, "several", False):
        return None, f"{_IN_FULL}: labels are read at several tokens"
    try:
        bottom, top = (
            LayerAttention(
                layers[index], f"{base.layout.layers}.{index}", config, basis, adapted
            )
            for index in (first, len(layers) - 1)
        )
    except (UnsupportedLayerError, AttributeError) as error:
        return None, f"{_IN_FULL}: {error}"
    if getattr(config, "attn_logit_softcapping", None):
        return None, f"{_IN_FULL}: its attention scores are capped"
    if bottom.keys_adapted and hasattr(config, "rope_parameters"):
        return None, f"{_IN_FULL}: its rotary keys are adapted"
    return ((top, top) if first == len(layers) - 1 else (bottom, top)), ""
