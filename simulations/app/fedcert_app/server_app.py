"""The ServerApp that `flwr run` loads."""

from fedcert.strategies.server_app import app

__all__ = ["app"]
