"""The settings of a run, and their sections."""

from fedcert.settings.run import RunSettings

__all__ = ["RunSettings"]
