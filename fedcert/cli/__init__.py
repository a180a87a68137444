"""The command line; see `fedcert.cli.app`."""

from fedcert.cli.app import main

__all__ = ["main"]
