"""The protocol's words: message types and record keys that server and clients share.

Arrays travel as named NumPy arrays, everything else as one canonical JSON string, so this
module needs no Flower; the apps wrap both in Flower's records.
"""

from __future__ import annotations

import re

__all__ = [
    "ARRAYS",
    "CERTIFY",
    "CLIENT_ID",
    "COMMIT",
    "CONTRIBUTE",
    "HELLO",
    "MANIFEST",
    "METRICS",
    "MU",
    "NEW",
    "PLAN",
    "PROTOCOL",
    "PROTOCOL_VERSION",
    "REPLY",
    "ROLE",
    "TRAIN",
    "UPSTREAM",
]

CLIENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a client id must look like: ids become names of files on both sides."""

HELLO = "query.hello"
"""Who are you, and what is your part? Asked once per run."""

TRAIN = "train.adapter"
"""Fine-tune an adapter and upload it."""

CONTRIBUTE = "train.contribute"
"""Answer a question about the client's own adapter; only the sum of answers is used."""

PLAN = "query.plan"
"""Replay recipes on the client's own examples, and return the bounds alone."""

COMMIT = "evaluate.commit"
"""Keep the bundle, and commit to the support set."""

CERTIFY = "evaluate.certify"
"""Personalize with the seed that answers the commitment, and return the certificate."""

ARRAYS = "arrays"
"""Key of the record with arrays: an adapter, or a bundle's tensors."""

MANIFEST = "manifest"
"""Key of the record with a bundle's manifest, or the adapter space."""

REPLY = "reply"
"""Key of the record with the client's words: id, role, certificate."""

METRICS = "metrics"
"""Key of the record with numbers about the work: examples, loss, seconds."""

MU = "mu"
"""Key of what a client has released: the Gaussian privacy of all its noisy uploads together."""

UPSTREAM, NEW = "upstream", "new"
"""The parts that a client can have."""

ROLE = "role"
"""Key of a client's part in its reply to `HELLO`."""

PROTOCOL = "protocol"
"""Key of a client's `PROTOCOL_VERSION` in its reply to `HELLO`."""

PROTOCOL_VERSION = 1
"""Raised by every change of the messages that the other side would misunderstand."""
