"""What a log says happened: bundles, enrolled clients, attempts and their outcomes.

The server and an auditor replay the same entries through the same rules, so that a server
that breaks one of them is caught by anybody who has its log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from fedcert.certificates.recipes import RecipeTable
from fedcert.errors import FedcertError, ProtocolError
from fedcert.protocol.commitment import Commitment
from fedcert.protocol.log import Entry
from fedcert.protocol.seeds import hash_of_nonce, seed_of
from fedcert.records import Digest, members_of

__all__ = ["Attempt", "History", "PublishedBundle"]

# What names an attempt in the entries about it.
_ATTEMPT = {"client": str, "commitment": Digest, "attempt": int}


@dataclass
class PublishedBundle:
    """A bundle that clients may commit to.

    Attributes
    ----------
    recipes : RecipeTable
        Its recipe table.
    nonce_hash : str
        Published before any commitment.
    nonce : str or None
        Published when the bundle was closed.
    """

    recipes: RecipeTable
    nonce_hash: str
    nonce: str | None = None


@dataclass
class Attempt:
    """One issued seed.

    Attributes
    ----------
    commitment : Commitment
        What the client had committed to.
    number : int
        From 1 on, for each client, across bundles.
    seed : str
        64 hexadecimal digits.
    relation : str
        ``"first"``, ``"retry"`` of the same examples, or ``"fresh"`` ones: the client's word.
    certificate : str or None
        Digest of the one certificate that was made from it.
    position : int or None
        Number of the log entry with the certificate.
    aborted : str or None
        Why there was none, at some time.
    """

    commitment: Commitment
    number: int
    seed: str
    relation: str
    certificate: str | None = None
    position: int | None = None
    aborted: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether no outcome is known."""
        return self.certificate is None and self.aborted is None


@dataclass
class History:
    """All that follows from the entries of a log.

    Attributes
    ----------
    bundles : dict
        By digest.
    keys : dict
        Public key by enrolled client.
    commitments : dict
        By root.
    attempts : dict
        By root.
    """

    bundles: dict[str, PublishedBundle] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    commitments: dict[str, Commitment] = field(default_factory=dict)
    attempts: dict[str, Attempt] = field(default_factory=dict)

    @staticmethod
    def of(entries: Iterable[Entry]) -> History:
        """Replay a log.

        Raises
        ------
        ProtocolError
            If the server broke a rule; the message names the entry.
        """
        history = History()
        for entry in entries:
            history.apply(entry)
        return history

    def apply(self, entry: Entry) -> None:
        """Take one more entry.

        Raises
        ------
        ProtocolError
            If it breaks a rule.
        """
        rules: dict[str, Callable[[object, Entry], None]] = {
            "opened": self._opened,
            "bundle": self._bundle,
            "enrolled": self._enrolled,
            "commitment": self._commitment,
            "seed": self._seed,
            "certificate": self._certificate,
            "aborted": self._aborted,
            "closed": self._closed,
        }
        if entry.kind not in rules:
            raise ProtocolError(f"log entry {entry.position} is of unknown kind {entry.kind!r}")
        try:
            rules[entry.kind](entry.body, entry)
        except (FedcertError, KeyError, TypeError) as error:
            raise ProtocolError(
                f"log entry {entry.position} ({entry.kind}) breaks the protocol: {error}"
            ) from error

    def attempts_of(self, client: str) -> list[Attempt]:
        """Return a client's attempts in order."""
        return [a for a in self.attempts.values() if a.commitment.client == client]

    def next_attempt(self, client: str) -> int:
        """Return the number that the client's next seed will have."""
        return 1 + len(self.attempts_of(client))

    def relation(self, commitment: Commitment) -> str:
        """Say what a commitment claims to be: a first attempt, a retry, or fresh examples."""
        earlier = self.attempts_of(commitment.client)
        if not earlier:
            return "first"
        same = any(a.commitment.claim == commitment.claim for a in earlier)
        return "retry" if same else "fresh"

    def open_attempts(self) -> list[Attempt]:
        """Return the issued seeds of which no outcome is known."""
        return [attempt for attempt in self.attempts.values() if attempt.is_open]

    def check_commitment(self, commitment: Commitment) -> None:
        """Make sure that a seed may be issued for a commitment.

        Raises
        ------
        ProtocolError
            If it is another client's, or for a bundle or recipe that was not published.
        """
        client, bundle = commitment.client, self.bundles.get(commitment.bundle)
        if bundle is None:
            raise ProtocolError(
                f"the commitment is for the bundle {commitment.bundle[:12]}, which this "
                "server has not published"
            )
        if bundle.nonce is not None:
            raise ProtocolError(
                f"the bundle {commitment.bundle[:12]} is closed: its nonce is public, so a "
                "seed could be chosen; commit to a newer bundle"
            )
        if self.keys.get(client) != commitment.public_key:
            raise ProtocolError(
                f"the client {client!r} is not enrolled with the key {commitment.public_key}"
            )
        if commitment.recipe != bundle.recipes.recipe_for(commitment.support_size):
            raise ProtocolError(
                f"the bundle prescribes another recipe for n = {commitment.support_size}"
            )
        self._check_shares(commitment)
        self._check_holders(commitment)
        known = self.commitments.get(commitment.root)
        if known is not None and known != commitment:
            raise ProtocolError(
                f"the root {commitment.root[:12]} was committed before, with other words"
            )

    def _check_shares(self, commitment: Commitment) -> None:
        # The shares of all attempts add up to at most 1 as long as no later bundle leaves
        # more to later attempts than the bundle of the first one did.
        earlier = self.attempts_of(commitment.client)
        share = commitment.recipe.first_share
        if earlier and share < (first := earlier[0].commitment.recipe.first_share):
            raise ProtocolError(
                f"the client's first attempt had {first:g} of delta, and this bundle leaves "
                f"{1 - share:g} of it to later ones: more than all; commit to a newer bundle"
            )

    def _check_holders(self, commitment: Commitment) -> None:
        # Statements that are to hold at once share a delta that was divided beforehand.
        served = {
            attempt.commitment.client
            for attempt in self.attempts.values()
            if attempt.commitment.bundle == commitment.bundle
        }
        others = len(served - {commitment.client})
        for promise in commitment.recipe.promises:
            if promise.holders is not None and others >= promise.holders:
                raise ProtocolError(
                    f"this bundle's certificates hold together for {promise.holders} clients, "
                    "and as many have a seed already; publish a bundle for more"
                )

    def _opened(self, body: object, entry: Entry) -> None:
        members_of(body, "body", {"server": Digest})
        if entry.position != 0:
            raise ProtocolError("only the first entry opens a log")

    def _bundle(self, body: object, _entry: Entry) -> None:
        digest, recipes, nonce_hash = members_of(
            body, "body", {"bundle": Digest, "recipes": RecipeTable, "nonce_hash": Digest}
        ).values()
        if digest in self.bundles:
            raise ProtocolError("the bundle was published before")
        self.bundles[digest] = PublishedBundle(recipes, nonce_hash)

    def _enrolled(self, body: object, _entry: Entry) -> None:
        kinds = {"client": str, "public_key": Digest}
        client, key = members_of(body, "body", kinds).values()
        if client in self.keys or key in self.keys.values():
            raise ProtocolError("the client or its key is enrolled already")
        self.keys[client] = key

    def _commitment(self, body: object, _entry: Entry) -> None:
        commitment = Commitment.from_object(body)
        self.check_commitment(commitment)
        if commitment.root in self.commitments:
            raise ProtocolError("the commitment was logged before")
        self.commitments[commitment.root] = commitment

    def _seed(self, body: object, _entry: Entry) -> None:
        kinds = _ATTEMPT | {"seed": Digest, "relation": str}
        client, root, number, seed, relation = members_of(body, "body", kinds).values()
        commitment = self.commitments[root]
        self.check_commitment(commitment)
        if root in self.attempts:
            raise ProtocolError("a second seed for one commitment")
        if client != commitment.client:
            raise ProtocolError("the commitment is another client's")
        if number != self.next_attempt(client):
            raise ProtocolError(f"attempt {number} is not the client's next")
        if relation != self.relation(commitment):
            raise ProtocolError(f"the commitment is no {relation!r} attempt")
        self.attempts[root] = Attempt(commitment, number, seed, relation)

    def _certificate(self, body: object, entry: Entry) -> None:
        kinds = _ATTEMPT | {"certificate": Digest}
        client, root, number, certificate = members_of(body, "body", kinds).values()
        attempt = self._attempt_of(root, client, number)
        if attempt.certificate is not None:
            raise ProtocolError("a second certificate from one seed")
        attempt.certificate = certificate
        attempt.position = entry.position

    def _aborted(self, body: object, _entry: Entry) -> None:
        kinds = _ATTEMPT | {"reason": str}
        client, root, number, reason = members_of(body, "body", kinds).values()
        attempt = self._attempt_of(root, client, number)
        if attempt.certificate is not None:
            raise ProtocolError("the attempt has a certificate")
        if attempt.aborted is not None:
            raise ProtocolError("the attempt was aborted before")
        attempt.aborted = reason

    def _attempt_of(self, root: str, client: str, number: int) -> Attempt:
        """Return an attempt by the root of its commitment, if the rest fits it."""
        attempt = self.attempts[root]
        if (attempt.commitment.client, attempt.number) != (client, number):
            raise ProtocolError("the seed was another client's or another attempt's")
        return attempt

    def _closed(self, body: object, _entry: Entry) -> None:
        kinds = {"bundle": Digest, "nonce": Digest}
        digest, nonce = members_of(body, "body", kinds).values()
        bundle = self.bundles[digest]
        if bundle.nonce is not None or hash_of_nonce(nonce) != bundle.nonce_hash:
            raise ProtocolError("this is not the nonce whose hash was published")
        for root, attempt in self.attempts.items():
            committed = attempt.commitment
            expected = seed_of(
                client=committed.client,
                attempt=attempt.number,
                bundle=digest,
                root=root,
                nonce=nonce,
            )
            if committed.bundle == digest and attempt.seed != expected:
                raise ProtocolError(
                    f"the seed of {committed.client!r}, attempt {attempt.number}, does not "
                    "follow from the nonce: it was chosen"
                )
        bundle.nonce = nonce
