"""Benchmarks: each measures, writes ``results/NAME.json``, and renders its page in docs."""
