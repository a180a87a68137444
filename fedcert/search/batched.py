"""The batched scorer: many candidates per forward pass over a shared frozen model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedcert.adapters.forward import AdaptedModel, PreparedInputs
from fedcert.adapters.grouping import batches, length_groups
from fedcert.adapters.shared_layers import SharedLayers
from fedcert.data.examples import Examples
from fedcert.devices import exact_float32, spare_bytes
from fedcert.errors import SettingsError
from fedcert.search.scores import Scorer, Scores, margins_and_losses

__all__ = ["PRECISIONS", "BatchedScorer", "check_precision"]

PRECISIONS = ("float32", "bfloat16")

_Groups = list[tuple[torch.Tensor, PreparedInputs]]

# Sets of inputs whose frozen layers are kept; a search scores a few parts in turn.
_KEPT_INPUTS = 16
# Candidates whose logits are kept at once.
_BLOCK = 512
# Activations beyond this no longer fit the processor's caches, and more is slower.
_CACHE_FRIENDLY = 16 * 2**20


def check_precision(precision: str) -> None:
    """Raise `SettingsError` unless candidates can be ranked in that precision."""
    if precision not in PRECISIONS:
        raise SettingsError(
            f"candidates cannot be ranked in {precision!r}; choose {' or '.join(PRECISIONS)}"
        )


class BatchedScorer(Scorer):
    """Scores as many candidates at a time as a memory budget allows.

    Parameters
    ----------
    model : AdaptedModel
        The task's model.
    margin_tolerance : float
        See `Scorer`.
    memory_mib : float (default: 64)
        For activations on the CPU; decides how many candidates run at once, not the result.
    precision : str (default: "float32")
        ``"float32"`` is the precision that the model was loaded in. ``"bfloat16"`` ranks
        candidates with a copy of the model in bfloat16, which is faster where the processor
        has instructions for it. Close candidates may then change places; a certificate's
        errors are counted with the exported adapter in the model's own precision anyway.
    compile_stacked : bool (default: False)
        Compile the attention that candidates share with `torch.compile`. The first call then
        takes many seconds; where it fails, the model runs as usual, and a warning says why.

    Attributes
    ----------
    model : AdaptedModel
        What the candidates run on.
    """

    def __init__(
        self,
        model: AdaptedModel,
        *,
        margin_tolerance: float,
        memory_mib: float = 64.0,
        precision: str = "float32",
        compile_stacked: bool = False,
    ) -> None:
        super().__init__(margin_tolerance=margin_tolerance)
        check_precision(precision)
        low = precision == "bfloat16"
        self.model = model.in_precision(torch.bfloat16) if low else model
        if compile_stacked:
            self.model.compile_stacked()
        self._memory = memory_mib * 2**20
        self._known: dict[int, tuple[npt.NDArray[Any], _Groups]] = {}
        self._shared = SharedLayers(self.model)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    def score(
        self,
        vectors: npt.NDArray[np.float64],
        examples: Examples,
        *,
        on_scored: Callable[[int], None] = lambda _count: None,
    ) -> Scores:
        """Score candidates chunk by chunk."""
        labels = torch.from_numpy(examples.labels)
        wrong = np.empty((len(vectors), len(examples)), dtype=np.bool_)
        losses = np.empty((len(vectors), len(examples)))
        for rows, logits in self.logits(vectors, examples.inputs):
            margins, loss = margins_and_losses(logits, labels)
            wrong[rows] = (margins <= self.margin_tolerance).numpy()
            losses[rows] = loss.numpy()
            on_scored(rows.stop - rows.start)
        return Scores(wrong, losses)

    def predict(
        self, vectors: npt.NDArray[np.float64], inputs: npt.NDArray[Any]
    ) -> npt.NDArray[np.int64]:
        """Return the predicted class of each candidate for each input, ``(M, n)``."""
        predicted = np.empty((len(vectors), len(inputs)), dtype=np.int64)
        for rows, logits in self.logits(vectors, inputs):
            predicted[rows] = logits.argmax(dim=-1).numpy()
        return predicted

    def logits(
        self, vectors: npt.NDArray[np.float64], inputs: npt.NDArray[Any]
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield blocks of candidates with their logits ``(block, n, K)``."""
        groups = self._prepared(inputs)
        for start in range(0, len(vectors), _BLOCK):
            block = torch.from_numpy(vectors[start : start + _BLOCK]).float()
            yield slice(start, start + len(block)), self._block(block, groups, len(inputs))

    @torch.inference_mode()
    def given_to(
        self, module: str, vector: npt.NDArray[np.float64], inputs: npt.NDArray[Any]
    ) -> torch.Tensor | None:
        """Return what a module of the base model is given by an adapter, ``(n, width)``.

        Parameters
        ----------
        module : str
            Its name.
        vector : numpy.ndarray
            The adapter, shape ``(d,)``.
        inputs : numpy.ndarray
            The inputs, n.

        Returns
        -------
        torch.Tensor or None
            On the CPU; None if the module is not given one row for each example.
        """
        groups, read = self._prepared(inputs), []
        found = self.model.base.model.get_submodule(module)
        hook = found.register_forward_pre_hook(lambda _module, given: read.append(given[0]))
        try:
            self._block(torch.from_numpy(vector[None]).float(), groups, len(inputs))
        finally:
            hook.remove()
        if [part.shape[:-1] for part in read] != [rows.shape for rows, _ in groups]:
            return None
        return torch.cat(read).cpu()[torch.cat([rows for rows, _ in groups]).argsort()]

    @torch.inference_mode()
    @exact_float32()
    def _block(self, block: torch.Tensor, groups: _Groups, examples: int) -> torch.Tensor:
        """Return the logits of some candidates, ``(block, n, K)``, on the CPU."""
        model, device = self.model, self.model.device
        block = block.to(device)
        logits = torch.empty(len(block), examples, model.base.num_labels, device=device)
        shared = self._shared.among(block)
        for rows, prepared in groups:
            if shared:
                logits[:, rows.to(device)] = self._shared.logits(prepared, block)
                continue
            chunk, places = self._chunk(prepared), rows.to(device)
            for first in range(0, len(block), chunk):
                part = slice(first, first + chunk)
                logits[part, places] = model.logits(prepared, block[part])
        return logits.cpu()

    @torch.inference_mode()
    def _prepared(self, inputs: npt.NDArray[Any]) -> _Groups:
        """Run the frozen layers, once for all calls with the same inputs."""
        key = id(inputs)
        if key not in self._known:
            encoded = self.model.task.inputs.encode(inputs)
            # Where the top layer alone is adapted, padding costs next to nothing, and small
            # groups would.
            whole = [(torch.arange(len(inputs)), encoded)]
            groups = whole if self.model.top_only else length_groups(encoded)
            prepared = [
                (rows[some], self.model.prepare(batch))
                for rows, part in groups
                for some, batch in batches(part, width=self.model.width, budget=self._at_once())
            ]
            if len(self._known) >= _KEPT_INPUTS:
                self._known.pop(next(iter(self._known)))
            # The array is kept along, so that its id stays its own.
            self._known[key] = (inputs, prepared)
        return self._known[key][1]

    def split(
        self, examples: Examples, parts: Sequence[npt.NDArray[np.int64]]
    ) -> list[Examples]:
        """Split examples into parts; the frozen layers are not run again for them."""
        found = super().split(examples, parts)
        groups = self._prepared(examples.inputs)
        with torch.inference_mode():
            for rows, part in zip(parts, found, strict=True):
                self._known[id(part.inputs)] = (part.inputs, _taken(groups, rows))
        return found

    def _chunk(self, prepared: PreparedInputs) -> int:
        """Return how many candidates to run at once: within the budget and the cache.

        An accelerator has memory of its own, and is faster the more there is to do.
        """
        spare = spare_bytes(self.model.device)
        budget = min(self._memory, _CACHE_FRIENDLY) if spare is None else spare
        return max(1, int(budget // (4 * self.model.floats_per_adapter(prepared))))

    def _at_once(self) -> float:
        """Return the bytes that frozen layers may take: the same whatever the budget is.

        Otherwise the last bits of what they give would depend on it.
        """
        return spare_bytes(self.model.device) or _CACHE_FRIENDLY


def _taken(groups: _Groups, rows: npt.NDArray[np.int64]) -> _Groups:
    """Return some of the prepared examples, by their numbers among all."""
    place = {int(row): index for index, row in enumerate(rows)}
    taken = []
    for members, prepared in groups:
        inside = [index for index, row in enumerate(members.tolist()) if row in place]
        if inside:
            chosen = torch.tensor(inside)
            places = torch.tensor([place[row] for row in members[chosen].tolist()])
            taken.append((places, prepared.take(chosen)))
    return taken
