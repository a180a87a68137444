"""Flower server side: one strategy per file, and the ServerApp."""
