"""Compiling a function of tensors where that works."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["CompiledOrEager"]


class CompiledOrEager:
    """A function compiled by `torch.compile`, or as it is where that fails, with a warning.

    Parameters
    ----------
    function : callable
        A function of tensors, without side effects.
    """

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        self._function = function
        self._compiled: Callable[..., torch.Tensor] | None = torch.compile(
            function, dynamic=True
        )

    def __call__(self, *args: Any) -> torch.Tensor:
        """Call the function."""
        if self._compiled is None:
            return self._function(*args)
        try:
            return self._compiled(*args)
        except (RuntimeError, OSError) as error:
            # The compiler's own errors are of these types; an error of the function itself
            # comes up again below.
            result = self._function(*args)
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            self._compiled = None
            warnings.warn(f"nothing is compiled: {reason}", stacklevel=2)
            return result
