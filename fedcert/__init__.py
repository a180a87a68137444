"""Certified few-shot personalization for federated learning on Flower."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedcert.classifier import load_classifier as load_classifier

__version__ = "0.1.0"
__all__ = ["__version__", "load_classifier"]


def __getattr__(name: str) -> Any:
    # Importing the package must not wait for torch.
    if name == "load_classifier":
        from fedcert.classifier import load_classifier

        return load_classifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
