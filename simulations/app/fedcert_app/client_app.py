"""The ClientApp that `flwr run` loads."""

from fedcert.clients.client_app import app

__all__ = ["app"]
