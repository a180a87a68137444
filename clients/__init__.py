"""Flower client side: the ClientApp and what it does for each message."""
