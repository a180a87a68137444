"""What ties adapted modules together: R_t = sum_i v_i P_ti, over fixed random matrices P_ti.

The idea is that of TinyLoRA (arXiv 2602.04118), on top of LoRA-XS: all modules t share u
numbers v, far fewer than their R have. The entries of P are signs over sqrt(u). So an entry of
R varies as much as a number in v does, whatever u is: learning rates and decays that suit R
suit v, and at as many numbers as all R have the map would keep lengths. Signs come straight
from the bits of a counter-based generator, keyed by each module's name: every machine and
every version of NumPy has the same, so they need not travel with the space, and nobody chooses
among them. The first numbers of a larger u have the same patterns, up to the scale.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from fedcert.randomness import keyed_signs

__all__ = ["patterns"]


@lru_cache(maxsize=16)
def patterns(
    names: tuple[str, ...],
    rank: int,
    tied: int,
    device: torch.device | str,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Return P, one row for each shared number.

    Parameters
    ----------
    names : tuple of str
        The adapted modules, in order.
    rank : int
        Of each R.
    tied : int
        u, how many numbers are shared.
    device : torch.device or str
        Where it is wanted.
    dtype : torch.dtype
        In which precision.

    Returns
    -------
    torch.Tensor
        Shape ``(tied, len(names) * rank**2)``, the same object every time: not to be written.
    """
    drawn = [
        keyed_signs("tied adapter space", name, count=tied * rank**2).reshape(tied, rank**2)
        for name in names
    ]
    # A square root and a quotient are rounded alike everywhere, unlike a power.
    signs = np.concatenate(drawn, axis=1) / np.sqrt(np.float64(tied))
    # Training may come back to what a search without gradients asked for first.
    with torch.inference_mode(False):
        return torch.from_numpy(signs).to(dtype).to(device)
