"""The client's part: keep state, commit, and let nothing spent certify again."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcert.atomic import write_once
from fedcert.canonical import canonical_json
from fedcert.certificates import Certificate, Recipe, Unlabeled, points_of
from fedcert.data.examples import Examples
from fedcert.data.identity import collapsed_form, exact_form
from fedcert.errors import ProtocolError
from fedcert.label_set import LabelSet
from fedcert.protocol.commitment import Commitment, Opening
from fedcert.protocol.merkle import SALT_BYTES
from fedcert.protocol.seeds import SeedGrant
from fedcert.protocol.spent import SpentLedger
from fedcert.protocol.uses import CERTIFICATE
from fedcert.randomness import derive_seed
from fedcert.records.signing import public_hex

__all__ = ["DeviceState"]


class DeviceState:
    """A client's state folder: its ledger of spent examples and its commitments.

    Parameters
    ----------
    folder : Path
        Readable by its owner alone. It must outlive runs: without it nothing on this side
        knows what was spent.
    simulated : str, optional
        A seed from which secret and salts follow, so that simulations can be repeated; by
        default they come from the operating system's randomness.

    Attributes
    ----------
    spent : SpentLedger
        What any earlier use has spent.
    """

    def __init__(self, folder: Path, *, simulated: str | None = None) -> None:
        self._openings = folder / "openings"
        self._certificates = folder / "certificates"
        self._simulated = simulated
        secret = None if simulated is None else derive_seed("simulated secret", simulated)
        self.spent = SpentLedger(folder, secret=secret)

    def commit(
        self,
        examples: Examples,
        *,
        client: str,
        key: Ed25519PrivateKey,
        bundle: str,
        recipe: Recipe,
        retry: bool = False,
        repeats_are_new: bool = False,
        labels: LabelSet | None = None,
        unlabeled: Examples | None = None,
    ) -> Commitment:
        """Commit to examples, and spend them.

        Asked again for the same examples it returns the same commitment, so that a lost
        answer costs nothing.

        Parameters
        ----------
        examples : Examples
            The support set.
        client : str
            Stable id.
        key : Ed25519PrivateKey
            The client's.
        bundle : str
            Digest of the bundle.
        recipe : Recipe
            The bundle's for this n, at its full delta.
        retry : bool (default: False)
            Make a new commitment, for another seed: another attempt, at a smaller delta.
        repeats_are_new : bool (default: False)
            As in `SpentLedger.spend`.
        labels : LabelSet, optional
            The client's own, if the bundle leaves them to clients. With other labels the same
            examples are spent on something else.
        unlabeled : Examples, optional
            Inputs that are to have a part in making the adapter; their labels are not looked
            at. With others the same examples are spent on something else.

        Returns
        -------
        Commitment
            The signed commitment.

        Raises
        ------
        RefusalError
            If an example is spent on something else.
        """
        openings = [Opening.read(path) for path in self._paths()]
        claim = self._witnessed_claim(examples, client, recipe, openings, labels, unlabeled)
        self.spent.spend(
            examples,
            CERTIFICATE,
            claim=claim,
            repeats_are_new=repeats_are_new,
            unlabeled=unlabeled,
        )
        wanted = (client, public_hex(key), bundle, recipe, claim, labels)
        if not retry:
            for opening in reversed(openings):
                made = opening.commitment
                if wanted == (
                    made.client,
                    made.public_key,
                    made.bundle,
                    made.recipe,
                    made.claim,
                    made.labels,
                ):
                    return made
        opening = Opening.make(
            examples,
            [self._salt(len(openings), row) for row in range(len(examples))],
            client=client,
            key=key,
            bundle=bundle,
            recipe=recipe,
            claim=claim,
            labels=labels,
            unlabeled=self._opened(unlabeled, len(openings)),
        )
        # On the disk before it leaves: without the salts nothing can be opened.
        self._keep(opening, number=len(openings))
        return opening.commitment

    def accept(
        self,
        grant: SeedGrant,
        examples: Examples,
        *,
        bundle: str,
        client: str,
        server: str | None = None,
        labels: LabelSet | None = None,
        unlabeled: Examples | None = None,
    ) -> Opening:
        """Make sure that a seed is for one's own commitment to exactly these examples.

        Parameters
        ----------
        grant : SeedGrant
            The server's answer.
        examples : Examples
            In any order.
        bundle, client : str
            What one is about to certify for.
        server : str, optional
            The server's public key, if one expects a certain one.
        labels : LabelSet, optional
            The client's own, if the bundle leaves them to clients.
        unlabeled : Examples, optional
            Inputs without labels, if it committed to some.

        Returns
        -------
        Opening
            The commitment with the salts that open it.

        Raises
        ------
        ProtocolError
            If the seed is forged or for something else, or examples, labels, or inputs
            without labels have changed.
        RefusalError
            If these examples have had this attempt already, with another seed.
        """
        root = grant.receipt.commitment
        opening = self.opening(root)
        if opening is None:
            raise ProtocolError(
                f"there is no commitment {root[:12]} in this client's state: the seed belongs "
                "to another client, or its state folder was lost"
            )
        grant.check(opening.commitment, server=server)
        if grant.bundle != bundle:
            raise ProtocolError(
                f"the seed was issued for the bundle {grant.bundle[:12]}, not for {bundle[:12]}"
            )
        if grant.client != client:
            raise ProtocolError(f"the seed was issued to {grant.client!r}, not to {client!r}")
        if opening.commitment.labels != labels:
            raise ProtocolError(
                "these are not the labels that were committed to: names, descriptions, and "
                "their order stay as they were when the examples were"
            )
        opening.check(examples)
        opening.check_unlabeled(unlabeled)
        self.spent.take_attempt(
            opening.commitment.claim, grant.receipt.attempt, seed=grant.seed
        )
        return opening

    def spend_unwitnessed(
        self,
        examples: Examples,
        *,
        client: str,
        bundle: str,
        recipe: Recipe,
        repeats_are_new: bool = False,
        labels: LabelSet | None = None,
        unlabeled: Examples | None = None,
    ) -> int:
        """Spend examples on a certificate without a server: one bundle, one client id.

        Where a bundle is one of several operating points, which share delta, the same examples
        may be spent once at each of them.

        Parameters
        ----------
        examples : Examples
            The support set.
        client : str
            Stable id of the client.
        bundle : str
            Digest of the bundle.
        recipe : Recipe
            The bundle's recipe for so many examples.
        repeats_are_new : bool (default: False)
            As in `SpentLedger.spend`.
        labels : LabelSet, optional
            The client's own, if the bundle leaves them to clients.
        unlabeled : Examples, optional
            As in `commit`.

        Returns
        -------
        int
            As `SpentLedger.spend`.

        Raises
        ------
        RefusalError
            If an example is spent on something else, another bundle or id included.
        """
        point = points_of(recipe.promises)
        if point is None:
            claim = self._claim(
                "unwitnessed",
                examples,
                client,
                recipe,
                bundle,
                labels=labels,
                unlabeled=unlabeled,
            )
        else:
            claim = self._claim(
                "points", examples, client, point.family, labels=labels, unlabeled=unlabeled
            )
        stated = self.spent.spend(
            examples,
            "an unwitnessed certificate",
            claim=claim,
            repeats_are_new=repeats_are_new,
            unlabeled=unlabeled,
        )
        if point is not None:
            self.spent.take_point(claim, point.point, bundle=bundle)
        return stated

    def certificate(self, support: str) -> Certificate | None:
        """Return the certificate that a seed has given for a support set, if it has.

        Parameters
        ----------
        support : str
            `Digests.support`, which the seed and the examples decide.
        """
        path = self._certificates / f"{support}.json"
        return Certificate.read(path) if path.exists() else None

    def keep(self, certificate: Certificate) -> None:
        """Keep a certificate, before it leaves, as the one that its seed gives.

        Raises
        ------
        ProtocolError
            If the seed has given another one meanwhile.
        """
        self._certificates.mkdir(parents=True, exist_ok=True, mode=0o700)
        support = certificate.digests.support
        path = self._certificates / f"{support}.json"
        try:
            write_once(path, certificate.to_json().encode())
        except FileExistsError:
            if self.certificate(support) != certificate:
                raise ProtocolError(
                    "this seed has given another certificate meanwhile; run again to get it"
                ) from None

    def opening(self, root: str) -> Opening | None:
        """Return the opening of a commitment; None if it was not made here."""
        for path in self._paths():
            opening = Opening.read(path)
            if opening.commitment.root == root:
                return opening
        return None

    def _keep(self, opening: Opening, *, number: int) -> None:
        """Write an opening under the next free number; the folder may have other users."""
        self._openings.mkdir(parents=True, exist_ok=True, mode=0o700)
        while True:
            try:
                return write_once(
                    self._openings / f"{number:06d}.json", opening.to_json().encode()
                )
            except FileExistsError:
                number += 1

    def _witnessed_claim(
        self,
        examples: Examples,
        client: str,
        recipe: Recipe,
        openings: Sequence[Opening],
        labels: LabelSet | None,
        unlabeled: Examples | None,
    ) -> str:
        """Return the claim of a retry of exactly these examples.

        Commitments from before texts were told apart by case have the older form; they keep
        it for the examples that they were made for.
        """
        older = self._claim("witnessed", examples, client, recipe, form=collapsed_form)
        # They were made before anybody could give inputs without labels.
        kept = [made for made in openings if unlabeled is None]
        if any(made.commitment.claim == older and made.opens(examples) for made in kept):
            return older
        return self._claim(
            "witnessed", examples, client, recipe, labels=labels, unlabeled=unlabeled
        )

    def _claim(
        self,
        kind: str,
        examples: Examples,
        client: str,
        terms: Recipe | str,
        bundle: str = "",
        *,
        form: Callable[[Any], bytes] = exact_form,
        labels: LabelSet | None = None,
        unlabeled: Examples | None = None,
    ) -> str:
        """Return who claims which examples, on which terms: a recipe, or several points'."""
        if isinstance(terms, Recipe):
            terms = canonical_json(terms.to_config()).decode()
        multiset = examples.multiset_digest("", form)
        own = [] if labels is None else [labels.digest]
        if unlabeled is not None:
            own.append(f"unlabeled {unlabeled.inputs_digest('')}")
        return self.spent.keyed("claim", kind, client, bundle, terms, multiset, *own)

    def _opened(self, unlabeled: Examples | None, serial: int) -> Unlabeled | None:
        """Return what a commitment to inputs without labels says, under a fresh salt."""
        if unlabeled is None:
            return None
        salt = self._salt(serial, "unlabeled").hex()
        return Unlabeled(count=len(unlabeled), salt=salt, digest=unlabeled.inputs_digest(salt))

    def _salt(self, serial: int, row: int | str) -> bytes:
        if self._simulated is None:
            return os.urandom(SALT_BYTES)
        return bytes.fromhex(derive_seed("simulated salt", self._simulated, serial, row))

    def _paths(self) -> list[Path]:
        return sorted(self._openings.glob("*.json"))
