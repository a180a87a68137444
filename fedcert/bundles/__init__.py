"""Bundles: what a device downloads, as a folder or an archive, and their versions."""

from fedcert.bundles.bundle import FORMAT, Bundle

__all__ = ["FORMAT", "Bundle"]
