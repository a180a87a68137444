"""Commit first, then get the seed: how seed shopping is paid for or visible.

A client commits to its examples, a server that never sees them issues a seed and writes
everything into a log that it cannot change, and the certificate carries the server's
receipt. docs/protocol.md says what each part prevents, and what none of them does.
"""
