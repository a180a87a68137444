"""Certified few-shot personalization for federated learning on Flower."""

__version__ = "0.1.0"
__all__ = ["__version__"]
