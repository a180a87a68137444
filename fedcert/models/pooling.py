"""From the hidden states of a text's tokens, or an image's patches, to one embedding."""

from __future__ import annotations

import torch

from fedcert.errors import ModelError

__all__ = ["POOLINGS", "check_pooling", "last_tokens", "pool", "read_positions"]

POOLINGS = ("mean", "max", "cls", "last", "own")
"""Mean or maximum over all tokens that are no padding, the first token, the last one, or the
embedding that the encoder makes itself, as the image towers of CLIP and SigLIP do."""


def check_pooling(pooling: str) -> None:
    """Raise `ModelError` unless there is a pooling of that name."""
    if pooling not in POOLINGS:
        raise ModelError(f"there is no pooling {pooling!r} here; choose {', '.join(POOLINGS)}")


def pool(hidden: torch.Tensor, mask: torch.Tensor | None, pooling: str) -> torch.Tensor:
    """Pool hidden states into one embedding each, in float32; not for ``"own"``.

    Parameters
    ----------
    hidden : torch.Tensor
        Shape ``(n, tokens, width)``.
    mask : torch.Tensor or None
        1 for tokens and 0 for padding, ``(n, tokens)``; None where nothing is padded.
    pooling : str
        One of `POOLINGS` but the last.

    Returns
    -------
    torch.Tensor
        Float32, shape ``(n, width)``.
    """
    hidden = hidden.float()
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "last":
        rows = torch.arange(len(hidden), device=hidden.device)
        return hidden[rows, last_tokens(hidden, mask)]
    if mask is None:
        return hidden.mean(dim=1) if pooling == "mean" else hidden.amax(dim=1)
    real = mask[..., None].bool()
    if pooling == "max":
        return hidden.masked_fill(~real, -torch.inf).amax(dim=1)
    total = hidden.masked_fill(~real, 0.0).sum(dim=1)
    return total / real.sum(dim=1).clamp(min=1)


def last_tokens(tokens: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return the position of each sequence's last token that is no padding, ``(n,)``."""
    count, width = tokens.shape[:2]
    if mask is None:
        return torch.full((count,), width - 1, device=tokens.device)
    return (torch.arange(width, device=mask.device) * mask).argmax(dim=1)


def read_positions(inputs: dict[str, torch.Tensor], pooling: str) -> torch.Tensor | None:
    """Return the one position of each sequence that a pooling reads; None if it reads all."""
    if pooling not in {"cls", "last"}:
        return None
    first = next(iter(inputs.values()))
    if pooling == "cls":
        return torch.zeros(len(first), dtype=torch.long, device=first.device)
    return last_tokens(inputs["input_ids"], inputs.get("attention_mask"))
