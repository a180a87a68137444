"""The commitment: what a client fixes before it may know the seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcert.canonical import canonical_json, sha256_hex
from fedcert.certificates import Unlabeled
from fedcert.certificates.recipes import Recipe
from fedcert.data.examples import Examples
from fedcert.errors import ProtocolError
from fedcert.label_set import LabelSet
from fedcert.protocol.merkle import tree_root
from fedcert.records import Digest, OrAbsent, Record, SignatureText, Signed
from fedcert.records.signing import public_hex

__all__ = ["FORMAT", "Commitment", "Opening"]

FORMAT = "fedcert.commitment/1"
"""Name and version of the JSON form."""


@dataclass(frozen=True, kw_only=True)
class Commitment(Signed):
    """What a client sends to the server: nothing in it reveals an example.

    Parameters
    ----------
    client : str
        Stable id.
    public_key : str
        The client's key, 64 hexadecimal digits.
    bundle : str
        Digest of the bundle.
    recipe : Recipe
        The bundle's recipe for `support_size`, at its full delta.
    support_size : int
        Number of examples, n.
    root : str
        Binds all of the above and the multiset of examples; see `Opening.root`.
    claim : str
        A digest, under the client's secret, of the multiset and the recipe: equal for a
        retry of the same examples, so that client and server can tell retries apart from
        fresh examples. It is the client's word.
    signature : str
        The client's, over all the rest.
    labels : LabelSet or None
        The client's own labels, which the root binds too; None, and absent from the JSON form,
        if the labels are the bundle's.
    unlabeled : str or None
        Digest of the client's inputs without labels under a salt that stays with it, which the
        root binds too; None, and absent from the JSON form, if there are none.
    """

    what = "commitment"
    format = FORMAT

    client: str
    public_key: Digest
    bundle: Digest
    recipe: Recipe
    support_size: int
    root: Digest
    claim: Digest
    signature: SignatureText
    labels: OrAbsent[LabelSet] = None
    unlabeled: OrAbsent[Digest] = None

    def validate(self, path: str) -> None:
        """Raise `ProtocolError` if somebody else than its client signed it, or it changed."""
        if not self.is_signed_by(self.public_key):
            raise ProtocolError(
                f"the {path} of {self.client!r} was changed after signing, or not signed by "
                f"{self.public_key}"
            )


@dataclass(frozen=True, kw_only=True)
class Opening(Record):
    """A commitment with the salts, which never leave the client.

    Parameters
    ----------
    commitment : Commitment
        The public part.
    salts : tuple of bytes
        One for each example, in `fedcert.data.orders.content_order`.
    unlabeled : Unlabeled or None
        What opens the commitment to inputs without labels; None, and absent from the JSON
        form, if there are none.
    """

    what = "opening"
    format = "fedcert.opening/1"
    mode = 0o600

    commitment: Commitment
    salts: tuple[bytes, ...]
    unlabeled: OrAbsent[Unlabeled] = None

    @staticmethod
    def make(
        examples: Examples,
        salts: Sequence[bytes],
        *,
        client: str,
        key: Ed25519PrivateKey,
        bundle: str,
        recipe: Recipe,
        claim: str,
        labels: LabelSet | None = None,
        unlabeled: Unlabeled | None = None,
    ) -> Opening:
        """Commit to examples.

        Parameters
        ----------
        examples : Examples
            The support set.
        salts : sequence of bytes
            A fresh secret of 32 bytes for each example.
        client : str
            Stable id of the client.
        key : Ed25519PrivateKey
            The client's signing key.
        bundle : str
            Digest of the bundle.
        recipe : Recipe
            The bundle's recipe for so many examples.
        claim : str
            Digest that tells equal claims apart from others.
        labels : LabelSet, optional
            The client's own, if the bundle leaves them to clients.
        unlabeled : Unlabeled, optional
            Inputs without labels that are to have a part in making the adapter, under a fresh
            salt.

        Returns
        -------
        Opening
            The signed commitment with the salts that open it.
        """
        unsigned = Commitment(
            client=client,
            public_key=public_hex(key),
            bundle=bundle,
            recipe=recipe,
            support_size=len(examples),
            root="",
            claim=claim,
            signature="",
            labels=labels,
            unlabeled=None if unlabeled is None else unlabeled.digest,
        )
        bound = replace(unsigned, root=Opening.root(unsigned, examples, salts))
        return Opening(commitment=bound.signed(key), salts=tuple(salts), unlabeled=unlabeled)

    @staticmethod
    def root(commitment: Commitment, examples: Examples, salts: Sequence[bytes]) -> str:
        """Compute the root that binds client, key, bundle, recipe, n, and all examples.

        It binds the client's labels as well, if they are its own, and its inputs without
        labels, if there are any.

        Parameters
        ----------
        commitment : Commitment
            What is bound beside the examples.
        examples : Examples
            The support set, in any order.
        salts : sequence of bytes
            One for each example, in the order of their contents.

        Returns
        -------
        str
            The root of a Merkle tree, 64 hexadecimal digits.
        """
        own = {} if commitment.labels is None else {"labels": commitment.labels.digest}
        if commitment.unlabeled is not None:
            own["unlabeled"] = commitment.unlabeled
        bound = own | {
            "client": commitment.client,
            "public_key": commitment.public_key,
            "bundle": commitment.bundle,
            "recipe": commitment.recipe.to_config(),
            "support_size": commitment.support_size,
            "tree": tree_root(examples, salts),
        }
        return sha256_hex(b"fedcert/commitment/v1", canonical_json(bound))

    def validate(self, path: str) -> None:
        """Raise `ProtocolError` if it opens other inputs without labels than committed to."""
        opened = None if self.unlabeled is None else self.unlabeled.digest
        if opened != self.commitment.unlabeled:
            raise ProtocolError(
                f"{path}.unlabeled does not open the commitment's inputs without labels"
            )

    def check_unlabeled(self, unlabeled: Examples | None) -> None:
        """Make sure that these are the committed inputs without labels, in any order.

        Raises
        ------
        ProtocolError
            If one is missing, added, or changed, or there are to be none.
        """
        known = self.unlabeled
        if known is None and unlabeled is None:
            return
        if known is None:
            raise ProtocolError(
                "the commitment is to no inputs without labels, so none can have a part in "
                "the adapter: leave them out"
            )
        if unlabeled is None or unlabeled.inputs_digest(known.salt) != known.digest:
            raise ProtocolError(
                f"the commitment is to {known.count} inputs without labels, and these are not "
                "those: use the file as it was"
            )

    def opens(self, examples: Examples) -> bool:
        """Say whether these are the committed examples, as `check` does."""
        try:
            self.check(examples)
        except ProtocolError:
            return False
        return True

    def check(self, examples: Examples) -> None:
        """Make sure that these are the committed examples, all of them, in any order.

        Raises
        ------
        ProtocolError
            If an example is missing, added, or changed.
        """
        committed = self.commitment
        if len(examples) != committed.support_size:
            raise ProtocolError(
                f"{len(examples)} examples do not fit the commitment to "
                f"{committed.support_size}: all committed examples are used, and no other"
            )
        if Opening.root(committed, examples, self.salts) != committed.root:
            raise ProtocolError(
                "these are not the examples that were committed to: an input or a label has "
                "changed since; use the file as it was"
            )
