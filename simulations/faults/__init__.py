"""Trouble on purpose: each fault is brought about for real, and what happened is looked at."""
