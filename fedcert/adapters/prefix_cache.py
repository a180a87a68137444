"""Activations of the frozen layers, kept per text and shared by all clients of a process.

What the layers below the first adapted one make of a text does not depend on the client. A
rounding error may depend on the batch that a text is computed in, though, and then an adapter
would depend on what its process had done before. So texts are computed in batches of one fixed
size and of one length, without padding, and each shape is tried out first: a text has to give
the same bits in any row and next to any neighbors. Where it does not, texts of that length are
computed one at a time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b

import torch

from fedcert.adapters.spilled import SpilledTensors

__all__ = ["PrefixCache"]

Inputs = dict[str, torch.Tensor]
Layers = Callable[[Inputs], torch.Tensor]

# Texts computed at once. More is hardly faster, and the rows that fill up a batch are waste.
_BATCH = 8

# What trials found, by model, length, and number of threads: a fact about this machine.
_batch_sizes: dict[tuple[str, int, int], int] = {}


class PrefixCache:
    """Hidden states below the first adapted layer, the least recently used dropped first.

    Not for several threads at once.

    Parameters
    ----------
    budget_mib : float (default: 256)
        Most memory for what is kept; 0 keeps nothing there. It decides the time, not the
        result.
    disk_mib : float (default: 0)
        Most of the disk for what memory has no place for (`SpilledTensors`).

    Attributes
    ----------
    computed, reused : int
        Texts that went through the frozen layers, and those that did not have to.
    """

    def __init__(self, budget_mib: float = 256.0, *, disk_mib: float = 0.0) -> None:
        self.computed = self.reused = 0
        self._budget, self._held = int(budget_mib * 2**20), 0
        self._known: OrderedDict[bytes, torch.Tensor] = OrderedDict()
        self._spilled = SpilledTensors(disk_mib)

    def hidden(self, model: str, inputs: Inputs, layers: Layers) -> torch.Tensor | None:
        """Return the hidden states of a batch of texts, computing those that are not known.

        Parameters
        ----------
        model : str
            Identity of the frozen layers, of where they end, and of the device they run on.
        inputs : dict
            A model's keyword arguments, batch size n, on the CPU.
        layers : callable
            Runs the frozen layers on such inputs.

        Returns
        -------
        torch.Tensor or None
            Shape ``(n, tokens, width)``, zero where a text is padded. None if the batch does
            not consist of tokens with all padding on the right: then nothing is kept.
        """
        lengths = _lengths(inputs)
        if lengths is None:
            return None
        tokens, keys = inputs["input_ids"], []
        for row, length in enumerate(lengths):
            digest = blake2b(model.encode(), digest_size=16)
            digest.update(tokens[row, :length].numpy().tobytes())
            keys.append(digest.digest())
        found = self._found(keys)
        missing = {key: row for row, key in enumerate(keys) if key not in found}
        self.computed += len(missing)
        self.reused += len(keys) - len(missing)
        found |= self._compute(model, inputs, lengths, missing, layers)
        for key in dict.fromkeys(keys):
            self._keep(key, found[key])
        first = found[keys[0]]
        size = (*tokens.shape, first.shape[-1])
        batch = torch.zeros(size, dtype=first.dtype, device=first.device)
        for row, key in enumerate(keys):
            batch[row, : lengths[row]] = found[key]
        return batch

    def _found(self, keys: list[bytes]) -> dict[bytes, torch.Tensor]:
        """Return what is in memory, or on the disk."""
        found = {}
        for key in dict.fromkeys(keys):
            hidden = self._known[key] if key in self._known else self._spilled.read(key)
            if hidden is not None:
                found[key] = hidden
        return found

    def _compute(
        self,
        model: str,
        inputs: Inputs,
        lengths: list[int],
        missing: dict[bytes, int],
        layers: Layers,
    ) -> dict[bytes, torch.Tensor]:
        """Run the frozen layers on the missing texts, those of one length together."""
        groups: dict[int, list[tuple[bytes, int]]] = {}
        for key, row in missing.items():
            groups.setdefault(lengths[row], []).append((key, row))
        found = {}
        for length, group in groups.items():
            size = self._batch_size(model, _cut(inputs, [group[0][1]], length), layers)
            for start in range(0, len(group), size):
                part = group[start : start + size]
                rows = [row for _, row in part]
                filled = rows + rows[-1:] * (size - len(rows))
                hidden = layers(_cut(inputs, filled, length))
                for place, (key, _) in enumerate(part):
                    found[key] = hidden[place].clone()
        return found

    def _batch_size(self, model: str, text: Inputs, layers: Layers) -> int:
        """Return how many texts of a length can be computed at once without a difference."""
        shape = model, text["input_ids"].shape[1], torch.get_num_threads()
        if shape not in _batch_sizes:
            _batch_sizes[shape] = _BATCH if _independent(text, layers) else 1
        return _batch_sizes[shape]

    def _keep(self, key: bytes, hidden: torch.Tensor) -> None:
        if key in self._known:
            self._known.move_to_end(key)
            return
        self._known[key] = hidden
        self._held += hidden.nbytes
        while self._held > self._budget:
            oldest, dropped = self._known.popitem(last=False)
            self._held -= dropped.nbytes
            self._spilled.keep(oldest, dropped)


def _lengths(inputs: Inputs) -> list[int] | None:
    """Return the number of tokens of each text, or None where the batch is no such batch."""
    mask, tokens = inputs.get("attention_mask"), inputs.get("input_ids")
    if mask is None or tokens is None or set(inputs) != {"attention_mask", "input_ids"}:
        return None
    if mask.dim() != 2 or len(mask) == 0:
        return None
    lengths = mask.sum(dim=1)
    right = torch.arange(mask.shape[1]) < lengths[:, None]
    if not torch.equal(mask.bool(), right) or not bool(lengths.all()):
        return None
    return [int(length) for length in lengths]


def _cut(inputs: Inputs, rows: list[int], length: int) -> Inputs:
    return {name: tensor[rows, :length] for name, tensor in inputs.items()}


def _independent(text: Inputs, layers: Layers) -> bool:
    """Try whether rows and neighbors change the bits of a text, at one length.

    The neighbors are the same text with its tokens in other orders.
    """
    tokens = torch.stack([text["input_ids"][0].roll(turn) for turn in range(_BATCH)])
    batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    turned = layers({name: tensor.roll(3, 0) for name, tensor in batch.items()})
    return torch.equal(turned.roll(-3, 0), layers(batch))
