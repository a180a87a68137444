"""The top layer, computed only where the head reads.

A classification head reads one position: the first token of an encoder, the last real token
of a decoder. In the last layer everything but keys and values is therefore needed at that
position alone. If no layer below is adapted, keys and values are the same for all adapters
up to their low-rank part, and are computed once per set of examples.

The layer's own modules do the work around attention (norms, residuals, MLP); only the
attention of the one position is computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from fedcert.adapters.patching import forward_replaced

__all__ = ["CapturedAttention", "TopLayer", "UnsupportedLayerError"]

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
    """What attention at the read positions needs, for a batch of B sequences.

    Attributes
    ----------
    residual : torch.Tensor
        The layer's input at the read position, ``(B, 1, width)``.
    inputs : torch.Tensor
        The projections' input at all tokens, ``(B, tokens, width)``.
    query : torch.Tensor
        ``(B, heads, head_width)``, at the read position.
    keys, values : torch.Tensor
        ``(B, heads, tokens, head_width)``.
    bias : torch.Tensor or None
        Added to the scores, ``(B, 1, tokens)``: zero, or minus infinity where masked.
    rotation : tuple of torch.Tensor or None
        Cosine and sine of rotary embeddings at the read position, ``(B, head_width)``.
    read : torch.Tensor
        The read positions, ``(B,)``.
    """

    residual: torch.Tensor
    inputs: torch.Tensor
    query: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    bias: torch.Tensor | None
    rotation: tuple[torch.Tensor, torch.Tensor] | None
    read: torch.Tensor

    def take(self, rows: torch.Tensor) -> CapturedAttention:
        """Return the sequences at `rows`."""
        rotation = self.rotation
        return CapturedAttention(
            residual=self.residual[rows],
            inputs=self.inputs[rows],
            query=self.query[rows],
            keys=self.keys[rows],
            values=self.values[rows],
            bias=None if self.bias is None else self.bias[rows],
            rotation=None if rotation is None else (rotation[0][rows], rotation[1][rows]),
            read=self.read[rows],
        )


class TopLayer:
    """The last layer of a model, reduced to the positions that the head reads.

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
    def rotary_keys_adapted(self) -> bool:
        """Whether keys are adapted; with rotary embeddings that cannot be shared."""
        return "key" in self._adapted

    def capture(
        self, read: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> CapturedAttention:
        """Run the layer up to its attention and keep what the read positions need.

        Parameters
        ----------
        read : torch.Tensor
            Read positions, shape ``(B,)``.
        args, kwargs : tuple, dict
            What the layer was called with; the hidden states come first.
        """
        seen: dict[str, Any] = {}

        def stop(hidden_states: torch.Tensor, attention_mask: Any = None, **rest: Any) -> None:
            seen.update(rest, inputs=hidden_states, mask=attention_mask)
            raise _Captured

        with forward_replaced(self._attention, stop), suppress(_Captured):
            self.layer.forward(*args, **kwargs)
        inputs, rows = seen["inputs"], torch.arange(len(read))
        query = self._split(self._modules["query"](inputs[rows, read]), self._heads)
        keys = self._split(self._modules["key"](inputs), self._kv_heads).transpose(1, 2)
        values = self._split(self._modules["value"](inputs), self._kv_heads).transpose(1, 2)
        rotation = None
        if seen.get("position_embeddings") is not None:
            cosine, sine = (
                t.expand(len(read), *t.shape[1:]) for t in seen["position_embeddings"]
            )
            rotation = (cosine[rows, read], sine[rows, read])
            query = _rotate(query, rotation[0][:, None], rotation[1][:, None])
            keys = _rotate(keys, cosine[:, None], sine[:, None])
        groups = self._heads // self._kv_heads
        return CapturedAttention(
            residual=args[0][rows, read][:, None],
            inputs=inputs,
            query=query,
            keys=keys.repeat_interleave(groups, dim=1),
            values=values.repeat_interleave(groups, dim=1),
            bias=self._bias(seen["mask"], read, inputs.shape[1]),
            rotation=rotation,
            read=read,
        )

    @contextmanager
    def attending(self, context: Callable[[], torch.Tensor]) -> Iterator[None]:
        """Replace the layer's attention by a given context ``(batch, 1, width)``."""

        def attend(*_args: Any, **_kwargs: Any) -> tuple[torch.Tensor, None]:
            result = context()
            return (result if self._output is None else self._output(result)), None

        with forward_replaced(self._attention, attend):
            yield

    def own_context(self, captured: CapturedAttention) -> torch.Tensor:
        """Attend with each sequence's own keys and values; ``(B, 1, width)``."""
        scores = torch.einsum("bhd,bhtd->bht", captured.query, captured.keys) * self._scaling
        if captured.bias is not None:
            scores = scores + captured.bias
        context = torch.einsum("bht,bhtd->bhd", scores.softmax(dim=-1), captured.values)
        return context.flatten(1)[:, None]

    def shared_context(
        self, captured: CapturedAttention, cores: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """Attend with keys and values that all adapters share, plus low-rank parts.

        Parameters
        ----------
        captured : CapturedAttention
            Of n sequences, without any adapter.
        cores : Mapping[str, torch.Tensor]
            R of each adapted module by full name, ``(C, r, r)``.

        Returns
        -------
        torch.Tensor
            Shape ``(C * n, 1, width)``, adapter by adapter.
        """
        copies = len(next(iter(cores.values())))
        examples, heads, _tokens, width = captured.keys.shape
        query = self._adapted_query(captured, cores, copies)  # (n, heads, C, width)
        scores = query @ captured.keys.transpose(2, 3)
        inner = {p: captured.inputs @ self._basis[f"{name}.down"].T
                 for p, name in self._adapted.items()}  # fmt: skip
        if "key" in self._adapted:
            # q . (U R V^T x) for all tokens, without ever forming the adapted keys
            up = self._up("key")
            turned = torch.einsum("nhcd,hdr->nhcr", query, up)
            turned = torch.einsum("nhcr,crs->nhcs", turned, cores[self._adapted["key"]])
            scores = scores + turned @ inner["key"].transpose(1, 2)[:, None]
        scores = scores * self._scaling
        if captured.bias is not None:
            scores = scores + captured.bias[:, :, None]
        weights = scores.softmax(dim=-1)
        context = (weights @ captured.values).permute(2, 0, 1, 3)  # (C, n, heads, width)
        if "value" in self._adapted:
            pooled = weights.flatten(1, 2) @ inner["value"]  # (n, heads * C, r)
            pooled = (
                pooled.reshape(examples, heads, copies, -1).permute(2, 0, 1, 3).flatten(1, 2)
            )
            turned = pooled @ cores[self._adapted["value"]].transpose(1, 2)
            turned = turned.reshape(copies, examples, heads, -1)
            context = context + torch.einsum("cnhr,hdr->cnhd", turned, self._up("value"))
        return context.reshape(copies * examples, 1, heads * width)

    def _adapted_query(
        self, captured: CapturedAttention, cores: Mapping[str, torch.Tensor], copies: int
    ) -> torch.Tensor:
        if "query" not in self._adapted:
            return captured.query[:, :, None].expand(-1, -1, copies, -1)
        name = self._adapted["query"]
        at = captured.inputs[torch.arange(len(captured.read)), captured.read]
        turned = (at @ self._basis[f"{name}.down"].T) @ cores[name].transpose(1, 2)
        change = torch.einsum("cnr,hdr->nhcd", turned, self._up("query"))
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
        return projected.reshape(*projected.shape[:-1], heads, -1)

    def _bias(
        self, mask: torch.Tensor | None, read: torch.Tensor, tokens: int
    ) -> torch.Tensor | None:
        """Return what the mask adds to the scores of the read positions."""
        if mask is None:
            if not self._causal:
                return None
            allowed = torch.arange(tokens)[None] <= read[:, None]
        else:
            rows = mask.expand(len(read), *mask.shape[1:])[:, 0]
            row = rows[torch.arange(len(read)), read if rows.shape[1] > 1 else 0]
            if row.dtype != torch.bool:
                return row[:, None, :tokens].float()
            allowed = row[:, :tokens]
        return torch.zeros(allowed.shape).masked_fill(~allowed, -torch.inf)[:, None]


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
