"""Simulations: scenarios, runners, and what is measured on them."""
