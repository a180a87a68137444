"""Grouping examples: by length, so that hardly any padding is computed, and by memory."""

from __future__ import annotations

import torch

__all__ = ["batches", "hidden_numbers", "length_groups"]

# Fewer groups than lengths, and hardly more padding.
_STEP = 2
# Numbers alive at once in a layer, in multiples of its input (attention, MLP).
_ACTIVATIONS = 12


def length_groups(
    inputs: dict[str, torch.Tensor], *, step: int = _STEP
) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    """Split a padded batch into groups of about equal length, each cut to its length.

    A batch whose padding is not all on the right, or that has no attention mask (images),
    stays whole.

    Parameters
    ----------
    inputs : dict
        Keyword arguments of a model, batch size n.
    step : int (default: 2)
        Lengths are rounded up to a multiple of this; with 1 nothing is padded.

    Returns
    -------
    list of tuple
        Row numbers, shape ``(rows,)``, and the inputs of these rows.
    """
    size = len(next(iter(inputs.values())))
    everything = [(torch.arange(size), inputs)]
    mask = inputs.get("attention_mask")
    if mask is None or mask.dim() != 2:
        return everything
    lengths, width = mask.sum(dim=1), mask.shape[1]
    if not torch.equal(mask.bool(), torch.arange(width) < lengths[:, None]):
        return everything
    rounded = (-(-lengths // step) * step).clamp(max=width)
    groups = []
    for length in sorted(set(rounded.tolist())):
        rows = torch.nonzero(rounded == length)[:, 0]
        cut = {
            name: tensor[rows, :length]
            if tensor.dim() == 2 and tensor.shape[1] == width
            else tensor[rows]
            for name, tensor in inputs.items()
        }
        groups.append((rows, cut))
    return groups


def batches(
    inputs: dict[str, torch.Tensor], *, width: int, budget: float
) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    """Split a batch so that a layer's activations stay within a budget.

    Parameters
    ----------
    inputs : dict
        Keyword arguments of a model, batch size n.
    width : int
        Numbers that a layer has for a token.
    budget : float
        Bytes, of which one example may take more.

    Returns
    -------
    list of tuple
        Row numbers, shape ``(rows,)``, and the inputs of these rows.
    """
    first = next(iter(inputs.values()))
    numbers = hidden_numbers({"first": first[:1]}, width=width)
    rows = max(1, int(budget // (4 * _ACTIVATIONS * max(1, numbers))))
    return [
        (part, inputs if rows >= len(first) else {n: t[part] for n, t in inputs.items()})
        for part in torch.split(torch.arange(len(first)), rows)
    ]


def hidden_numbers(inputs: dict[str, torch.Tensor], *, width: int) -> int:
    """Return about how many numbers the hidden states of a batch are.

    The patches of an image hold about as many as its pixels.
    """
    first = next(iter(inputs.values()))
    return first.numel() * (1 if first.is_floating_point() else width)
