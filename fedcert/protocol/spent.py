"""The client's ledger of spent examples: what anything has depended on certifies nothing.

It keeps digests of the inputs, without their labels, under a secret of the client: a
relabeled example is the same example, and whoever gets hold of the ledger without the
secret cannot test a guess against it. It outlives rounds and runs.
"""

from __future__ import annotations

import hmac
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from fedcert.canonical import sha256_hex
from fedcert.data.examples import Examples
from fedcert.data.identity import collapsed_form, recognized_form
from fedcert.errors import ProtocolError, RefusalError
from fedcert.protocol.ledgers import LEDGER_FILE
from fedcert.protocol.secrets import read_or_create_secret
from fedcert.protocol.uses import (
    UNLABELED,
    Use,
    Uses,
    one_use_again,
    rows_of,
    same_words,
    spent_words,
)

__all__ = ["SpentLedger"]

_TABLES = (
    "spent (digest TEXT PRIMARY KEY, purpose TEXT NOT NULL, claim TEXT NOT NULL)",
    "states (name TEXT PRIMARY KEY, content TEXT NOT NULL)",
)
_CHECK = "check"
_STATED = "stated to be new under"
_WAIT = 30.0  # seconds for another process to finish its writing


class SpentLedger:
    """Which examples are spent, and on what.

    Parameters
    ----------
    folder : Path
        The client's state folder; gets ``secret`` and ``spent.sqlite``, readable by their
        owner alone.
    secret : str, optional
        64 hexadecimal digits; by default the one in the folder, made if it is missing.

    Raises
    ------
    ProtocolError
        If the secret is open to other users, or the ledger is damaged or lost.
    """

    def __init__(self, folder: Path, *, secret: str | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = folder / LEDGER_FILE
        if not self._path.exists():
            self._begin(folder / "secret")
        self._secret = secret or read_or_create_secret(folder / "secret")
        with self._transaction() as connection:
            for table in _TABLES:
                connection.execute(f"CREATE TABLE IF NOT EXISTS {table}")
            self._check_secret(connection)

    def _begin(self, secret: Path) -> None:
        """Make the ledger, before its secret: a secret alone had one."""
        if secret.exists():
            raise ProtocolError(
                f"the ledger of spent examples {self._path} is gone, and the file `secret` "
                "beside it says that there was one: put it back. An empty one would let "
                "examples certify twice; for examples that nothing has used, begin another "
                "with another key or another state folder"
            )
        self._path.touch(mode=0o600)

    def mark(self, examples: Examples, purpose: str) -> None:
        """Note that something depends on examples; those spent before keep their purpose.

        Examples of a certificate lose their right to a retry: another attempt would rest on
        what has been used since. The certificates that they have stay as good as they were.

        Parameters
        ----------
        examples : Examples
            For instance what an adapter was trained on.
        purpose : str
            In plain words: ``"training an upload"``.
        """
        with self._transaction() as connection:
            self._used(connection, examples, purpose)

    def spend(
        self,
        examples: Examples,
        purpose: str,
        *,
        claim: str,
        repeats_are_new: bool = False,
        unlabeled: Examples | None = None,
    ) -> int:
        """Spend examples on a certificate, unless something else has spent one of them.

        What cannot be read is neither spent nor looked up: it is an error for every
        candidate, and nothing can profit from it.

        Parameters
        ----------
        examples : Examples
            All that the certificate is to rest on.
        purpose : str
            In plain words.
        claim : str
            Examples that were spent under the same claim may be spent again: an identical
            retry.
        repeats_are_new : bool (default: False)
            The client's statement that inputs which are spent came up again: they are new
            observations, drawn independently of the earlier use. From then on they belong to
            this claim alone.
        unlabeled : Examples, optional
            Inputs that the adapter depends on, without their labels. They are spent first, so
            that none of them certifies it, now or later.

        Returns
        -------
        int
            How many examples were stated to be new observations of spent inputs, when the
            claim was first made.

        Raises
        ------
        RefusalError
            If an example is spent, or they look like one earlier use; nothing is written then.
        """
        with self._transaction() as connection:
            if unlabeled is not None:
                self._insert(connection, unlabeled, UNLABELED[0], claim=UNLABELED[1])
            found = self._found(connection, examples)
            others = [use if use is not None and use[1] != claim else None for use in found]
            count = sum(use is not None for use in others)
            if count and not repeats_are_new:
                raise RefusalError(spent_words(others))
            if one_use_again(others, examples, self._inputs(connection)):
                raise RefusalError(same_words(others))
            self._insert(connection, examples, purpose, claim=claim)
            name = f"{_STATED} {claim}"
            if count:
                self._hand_over(connection, examples.take(rows_of(others)), purpose, claim)
                connection.execute(
                    "INSERT OR IGNORE INTO states VALUES (?, ?)", (name, json.dumps(count))
                )
            return self._stated(connection, claim)

    def stated_new(self, claim: str) -> int:
        """Return how many of a claim's examples were stated to be new observations."""
        with self._transaction() as connection:
            return self._stated(connection, claim)

    def take_attempt(self, claim: str, attempt: int, *, seed: str) -> None:
        """Note which seed an attempt at a certificate was made with.

        A log that begins anew, or that of another server, counts attempts from one again.
        The shares of delta add up only if each of them is taken once.

        Parameters
        ----------
        claim : str
            As in `spend`.
        attempt : int
            Its number, by the server's count.
        seed : str
            The one that was issued for it.

        Raises
        ------
        RefusalError
            If the attempt was made with another seed.
        """
        if self._first(f"attempt {attempt} at {claim}", seed) != seed:
            raise RefusalError(
                f"these examples have had their attempt {attempt} already, with another seed: "
                "the server's log began anew, or this is another server. A second certificate "
                "from the same share of delta would be false more often than it says; use the "
                "seed that came first, or collect fresh examples"
            )

    def take_point(self, claim: str, point: str, *, bundle: str) -> None:
        """Note which bundle an operating point was certified with.

        The certificates at a client's points share delta, so each point has one.

        Parameters
        ----------
        claim : str
            As in `spend`; all points of a family make the same.
        point : str
            The point's name.
        bundle : str
            Digest of the bundle.

        Raises
        ------
        RefusalError
            If the point was certified with another bundle.
        """
        if self._first(f"point {point} at {claim}", bundle) != bundle:
            raise RefusalError(
                f"these examples have certified the operating point {point!r} already, with "
                "another bundle: a second certificate from the same share of delta would be "
                "false more often than it says; use the bundle that came first, or collect "
                "fresh examples"
            )

    def purposes(self, examples: Examples) -> list[str | None]:
        """Return what each example was spent on; None if nothing."""
        return [None if use is None else use[0] for use in self.uses(examples)]

    def uses(self, examples: Examples) -> Uses:
        """Return purpose and claim of what each example was spent on; None if nothing."""
        with self._transaction() as connection:
            return self._found(connection, examples)

    def inputs(self) -> dict[Use, int]:
        """Return how many inputs each use has."""
        with self._transaction() as connection:
            return self._inputs(connection)

    def state(self, name: str) -> Any:
        """Return the JSON value that `mark_with_state` kept under a name, or None."""
        with self._transaction() as connection:
            return self._kept(connection, name)

    def mark_with_state(
        self,
        examples: Examples,
        purpose: str,
        *,
        name: str,
        state: Mapping[str, Any],
        after: Any = None,
        rows: Sequence[str] = (),
    ) -> None:
        """Mark new observations and keep a JSON value about them, all or nothing.

        Inputs that something else has spent keep their purpose and their claim, since these
        are other observations.

        Parameters
        ----------
        examples, purpose
            As in `mark`.
        name, state
            The value, and what `state` finds it by.
        after : JSON value (default: None)
            The one that this one follows from; None for the first.
        rows : sequence of str
            Ids of observations, which `known_rows` of the same name knows from then on.

        Raises
        ------
        ProtocolError
            If another process has kept one meanwhile; nothing is written then.
        """
        with self._transaction() as connection:
            if self._kept(connection, name) != after:
                raise ProtocolError(
                    "somebody else counted examples for the same certificate meanwhile; "
                    "nothing was counted here: run it again"
                )
            self._insert(connection, examples, purpose, claim="")
            connection.executemany(
                "INSERT OR IGNORE INTO states VALUES (?, ?)",
                [(self._row_name(name, row), "true") for row in rows],
            )
            connection.execute(
                "INSERT OR REPLACE INTO states VALUES (?, ?)", (name, json.dumps(dict(state)))
            )

    def known_rows(self, name: str, rows: Sequence[str]) -> list[bool]:
        """Say of each id of an observation whether `mark_with_state` has had it."""
        with self._transaction() as connection:
            return [
                self._kept(connection, self._row_name(name, row)) is not None for row in rows
            ]

    def keyed(self, *words: str) -> str:
        """Return a digest of words that nobody without the secret can compute."""
        message = sha256_hex(*(word.encode() for word in words)).encode()
        return hmac.new(bytes.fromhex(self._secret), message, "sha256").hexdigest()

    def _first(self, name: str, value: str) -> str:
        """Keep a value under a name that has none yet; return the one that it has."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO states VALUES (?, ?)", (name, json.dumps(value))
            )
            return str(self._kept(connection, name))

    def _row_name(self, name: str, row: str) -> str:
        return f"row {self.keyed('row', name, row)}"

    def _digests(self, examples: Examples) -> list[tuple[str, ...]]:
        """Return the digests of each readable input: the one to keep, and older forms of it."""
        forms = (recognized_form, collapsed_form)
        columns = [examples.input_digests("", form) for form in forms]
        return [
            tuple(self.keyed("input", digest) for digest in dict.fromkeys(row)) if ok else ()
            for *row, ok in zip(*columns, examples.readable, strict=True)
        ]

    def _check_secret(self, connection: sqlite3.Connection) -> None:
        """Notice a lost secret: under another one no example would look spent."""
        check = self.keyed("check")
        kept = _CHECK, json.dumps(check)
        connection.execute("INSERT OR IGNORE INTO states VALUES (?, ?)", kept)
        if self._kept(connection, _CHECK) != check:
            raise ProtocolError(
                f"the ledger of spent examples {self._path} was made with another secret; put "
                "the file `secret` that belongs to it back"
            )

    def _kept(self, connection: sqlite3.Connection, name: str) -> Any:
        row = connection.execute(
            "SELECT content FROM states WHERE name = ?", (name,)
        ).fetchone()
        return None if row is None else json.loads(row[0])

    def _inputs(self, connection: sqlite3.Connection) -> dict[Use, int]:
        rows = connection.execute(
            "SELECT purpose, claim, COUNT(*) FROM spent GROUP BY purpose, claim"
        )
        return {(purpose, claim): count for purpose, claim, count in rows}

    def _found(self, connection: sqlite3.Connection, examples: Examples) -> Uses:
        found: Uses = []
        for digests in self._digests(examples):
            rows = [
                connection.execute(
                    "SELECT purpose, claim FROM spent WHERE digest = ?", (digest,)
                ).fetchone()
                for digest in digests
            ]
            found.append(next((row for row in rows if row is not None), None))
        return found

    def _used(self, connection: sqlite3.Connection, examples: Examples, purpose: str) -> None:
        self._insert(connection, examples, purpose, claim="")
        connection.executemany(
            "UPDATE spent SET purpose = purpose || ?, claim = '' WHERE digest = ? "
            "AND claim != ''",
            [(f", {purpose}", digest) for digest in self._distinct(examples)],
        )

    def _hand_over(
        self, connection: sqlite3.Connection, examples: Examples, purpose: str, claim: str
    ) -> None:
        connection.executemany(
            "UPDATE spent SET purpose = purpose || ?, claim = ? WHERE digest = ?",
            [(f", {purpose}", claim, digest) for digest in self._distinct(examples)],
        )

    def _insert(
        self, connection: sqlite3.Connection, examples: Examples, purpose: str, *, claim: str
    ) -> None:
        kept = {digests[0] for digests in self._digests(examples) if digests}
        rows = [(digest, purpose, claim) for digest in kept]
        connection.executemany("INSERT OR IGNORE INTO spent VALUES (?, ?, ?)", rows)

    def _distinct(self, examples: Examples) -> set[str]:
        return {digest for digests in self._digests(examples) for digest in digests}

    def _stated(self, connection: sqlite3.Connection, claim: str) -> int:
        return int(self._kept(connection, f"{_STATED} {claim}") or 0)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(
                sqlite3.connect(self._path, timeout=_WAIT, isolation_level=None)
            ) as connection:
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise ProtocolError(
                f"the ledger of spent examples {self._path} cannot be used: {error}"
            ) from error
