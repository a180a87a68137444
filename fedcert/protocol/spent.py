"""The client's ledger of spent examples: what anything has depended on certifies nothing.

It keeps digests of the inputs, without their labels, under a secret of the client: a
relabeled example is the same example, and whoever gets hold of the ledger without the
secret cannot test a guess against it. It outlives rounds and runs.
"""

from __future__ import annotations

import hmac
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from fedcert.canonical import sha256_hex
from fedcert.data.examples import Examples
from fedcert.errors import ProtocolError, RefusalError
from fedcert.protocol.secrets import read_or_create_secret

__all__ = ["SpentLedger"]

_TABLES = (
    "spent (digest TEXT PRIMARY KEY, purpose TEXT NOT NULL, claim TEXT NOT NULL)",
    "states (name TEXT PRIMARY KEY, content TEXT NOT NULL)",
)
_CHECK = "check"
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
        self._path = folder / "spent.sqlite"
        self._secret = secret or read_or_create_secret(folder / "secret")
        if not self._path.exists():
            self._path.touch(mode=0o600)
        with self._transaction() as connection:
            for table in _TABLES:
                connection.execute(f"CREATE TABLE IF NOT EXISTS {table}")
            self._check_secret(connection)

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

    def spend(self, examples: Examples, purpose: str, *, claim: str) -> None:
        """Spend examples on a certificate, unless something else has spent one of them.

        Parameters
        ----------
        examples : Examples
            All that the certificate is to rest on.
        purpose : str
            In plain words.
        claim : str
            Examples that were spent under the same claim may be spent again: an identical
            retry.

        Raises
        ------
        RefusalError
            If an example is spent; nothing is written then.
        """
        with self._transaction() as connection:
            rows = self._rows(connection, examples)
            others = [purpose for purpose, known in rows.values() if known != claim]
            if others:
                listed = ", ".join(sorted(set(others)))
                raise RefusalError(
                    f"{len(others)} of the {len(examples)} examples are already spent on: "
                    f"{listed}. A certificate needs examples that nothing else has depended "
                    "on (a new label does not make a new example), or, for a retry, exactly "
                    "the same examples and recipe; collect fresh ones"
                )
            self._insert(connection, examples, purpose, claim=claim)

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
        name = f"attempt {attempt} at {claim}"
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO states VALUES (?, ?)", (name, json.dumps(seed))
            )
            [known] = connection.execute(
                "SELECT content FROM states WHERE name = ?", (name,)
            ).fetchone()
        if json.loads(known) != seed:
            raise RefusalError(
                f"these examples have had their attempt {attempt} already, with another seed: "
                "the server's log began anew, or this is another server. A second certificate "
                "from the same share of delta would be false more often than it says; use the "
                "seed that came first, or collect fresh examples"
            )

    def purposes(self, examples: Examples) -> list[str | None]:
        """Return what each example was spent on; None if nothing."""
        with self._transaction() as connection:
            rows = self._rows(connection, examples)
        return [rows[d][0] if d in rows else None for d in self._digests(examples)]

    def state(self, name: str) -> Any:
        """Return the JSON value that `mark_with_state` kept under a name, or None."""
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT content FROM states WHERE name = ?", (name,)
            ).fetchone()
        return None if row is None else json.loads(row[0])

    def mark_with_state(
        self, examples: Examples, purpose: str, *, name: str, state: Mapping[str, Any]
    ) -> None:
        """Mark examples and keep a JSON value about them, both or neither."""
        with self._transaction() as connection:
            self._used(connection, examples, purpose)
            connection.execute(
                "INSERT OR REPLACE INTO states VALUES (?, ?)", (name, json.dumps(dict(state)))
            )

    def keyed(self, *words: str) -> str:
        """Return a digest of words that nobody without the secret can compute."""
        message = sha256_hex(*(word.encode() for word in words)).encode()
        return hmac.new(bytes.fromhex(self._secret), message, "sha256").hexdigest()

    def _digests(self, examples: Examples) -> list[str]:
        return [self.keyed("input", digest) for digest in examples.input_digests("")]

    def _check_secret(self, connection: sqlite3.Connection) -> None:
        """Notice a lost secret: under another one no example would look spent."""
        check = json.dumps(self.keyed("check"))
        connection.execute("INSERT OR IGNORE INTO states VALUES (?, ?)", (_CHECK, check))
        [known] = connection.execute(
            "SELECT content FROM states WHERE name = ?", (_CHECK,)
        ).fetchone()
        if known != check:
            raise ProtocolError(
                f"the ledger of spent examples {self._path} was made with another secret; put "
                "the file `secret` that belongs to it back"
            )

    def _rows(
        self, connection: sqlite3.Connection, examples: Examples
    ) -> dict[str, tuple[str, str]]:
        found: dict[str, tuple[str, str]] = {}
        for digest in set(self._digests(examples)):
            row = connection.execute(
                "SELECT purpose, claim FROM spent WHERE digest = ?", (digest,)
            ).fetchone()
            if row is not None:
                found[digest] = (row[0], row[1])
        return found

    def _used(self, connection: sqlite3.Connection, examples: Examples, purpose: str) -> None:
        self._insert(connection, examples, purpose, claim="")
        rows = [(f", {purpose}", digest) for digest in set(self._digests(examples))]
        connection.executemany(
            "UPDATE spent SET purpose = purpose || ?, claim = '' WHERE digest = ? "
            "AND claim != ''",
            rows,
        )

    def _insert(
        self, connection: sqlite3.Connection, examples: Examples, purpose: str, *, claim: str
    ) -> None:
        rows = [(digest, purpose, claim) for digest in set(self._digests(examples))]
        connection.executemany("INSERT OR IGNORE INTO spent VALUES (?, ?, ?)", rows)

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
