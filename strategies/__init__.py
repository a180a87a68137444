"""Flower server side: one strategy per file, and the ServerApp."""

from fedcert.strategies.observed_grid import ObservedGrid
from fedcert.strategies.pooled_prior import PooledPrior
from fedcert.strategies.result import PriorResult

__all__ = ["ObservedGrid", "PooledPrior", "PriorResult"]
