"""A Merkle root over a multiset of examples, with a fresh salt for each.

Leaves and inner nodes are hashed under different domains, as in RFC 6962, so that a node
cannot be passed off as an example. The leaf hashes are sorted: the order in which a client
lists its examples does not change the root.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedcert.canonical import sha256_hex
from fedcert.data.examples import Examples
from fedcert.data.orders import exact_contents
from fedcert.errors import ProtocolError

__all__ = ["SALT_BYTES", "tree_root"]

SALT_BYTES = 32
"""A salt has 256 bits: nobody can test a guessed example against the tree."""

_LEAF, _NODE = b"fedcert/merkle/leaf/v1", b"fedcert/merkle/node/v1"


def tree_root(examples: Examples, salts: Sequence[bytes]) -> str:
    """Return the root over all examples.

    Parameters
    ----------
    examples : Examples
        In any order.
    salts : sequence of bytes
        One for each example in `fedcert.data.orders.content_order`.

    Raises
    ------
    ProtocolError
        If there is not one salt of 32 bytes for each example, or no example.
    """
    if not len(examples):
        raise ProtocolError("there is no example to commit to")
    if len(salts) != len(examples) or any(len(salt) != SALT_BYTES for salt in salts):
        raise ProtocolError(
            f"{len(salts)} salts do not fit {len(examples)} examples; each example has one "
            f"salt of {SALT_BYTES} bytes"
        )
    contents = sorted(exact_contents(examples))
    level = sorted(
        bytes.fromhex(sha256_hex(_LEAF, salt, content))
        for salt, content in zip(salts, contents, strict=True)
    )
    while len(level) > 1:
        pairs = [_node(*level[i : i + 2]) for i in range(0, len(level) - 1, 2)]
        # A node without a sibling moves up: doubling it would let two trees share a root.
        level = pairs + level[len(level) - len(level) % 2 :]
    return level[0].hex()


def _node(left: bytes, right: bytes) -> bytes:
    return bytes.fromhex(sha256_hex(_NODE, left, right))
