"""Compiling a function of tensors where that works."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["CompiledOrEager"]


class CompiledOrEager:
    """A function compiled by `torch.compile`, or as it is where that fails.

    Parameters
    ----------
    function : callable
        A function of tensors, without side effects.

    Attributes
    ----------
    note : str
        Why it is not compiled; empty as long as it is.
    """

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        self.note = ""
        self._function = function
        self._compiled: Callable[..., torch.Tensor] = torch.compile(function, dynamic=True)

    def __call__(self, *args: Any) -> torch.Tensor:
        """Call the function."""
        if self.note:
            return self._function(*args)
        try:
            return self._compiled(*args)
        except (RuntimeError, OSError) as error:
            # The compiler's own errors are of these types; an error of the function itself
            # comes up again below.
            result = self._function(*args)
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            self.note = f"nothing is compiled: {reason}"
            return result
