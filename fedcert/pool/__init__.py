"""The server's pool of accepted adapters."""

from fedcert.pool.store import Pool, PoolEntry
from fedcert.pool.validation import UploadLimits

__all__ = ["Pool", "PoolEntry", "UploadLimits"]
