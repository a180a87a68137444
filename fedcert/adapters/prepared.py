"""Examples with the frozen layers behind them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fedcert.adapters.layer_attention import CapturedAttention

__all__ = ["PreparedInputs"]


@dataclass(frozen=True)
class PreparedInputs:
    """Examples with the frozen part of the model already applied.

    Attributes
    ----------
    inputs : dict
        Keyword arguments of the model, batch size n.
    hidden : torch.Tensor
        Input of the first adapted layer, shape ``(n, tokens, width)``.
    read : torch.Tensor or None
        The position of each example that the head reads, shape ``(n,)``; None if it reads
        all.
    first : CapturedAttention or None
        The frozen attention of that layer, where it is shared by all adapters.
    """

    inputs: dict[str, torch.Tensor]
    hidden: torch.Tensor
    read: torch.Tensor | None
    first: CapturedAttention | None = None

    def __len__(self) -> int:
        return len(self.hidden)

    def take(self, rows: torch.Tensor) -> PreparedInputs:
        """Return the examples at `rows`."""
        rows = rows.to(self.hidden.device)
        return PreparedInputs(
            {name: tensor[rows] for name, tensor in self.inputs.items()},
            self.hidden[rows],
            None if self.read is None else self.read[rows],
            None if self.first is None else self.first.take(rows),
        )
