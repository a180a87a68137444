"""The pool: the adapters that the server has accepted, on disk.

Every accepted adapter is one safetensors file, written atomically and then listed in an
SQLite index; a crash in between leaves a file that nobody lists and the next upload
replaces. A run that dies therefore resumes with all it had, and no client uploads twice.
The pool grows over many runs, one at a time (`Pool.reserved`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedcert.adapters.codec import decode, encode
from fedcert.adapters.space import AdapterSpace
from fedcert.arrays import FloatArray
from fedcert.atomic import write_atomically
from fedcert.canonical import digest_json, digest_tensors, sha256_hex
from fedcert.errors import AdapterError, PoolError
from fedcert.pool.locking import only_one
from fedcert.pool.validation import UploadLimits, check_upload

__all__ = ["Pool", "PoolEntry", "check_labels"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS space (digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS adapters (
    client TEXT PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    file TEXT NOT NULL,
    examples INTEGER NOT NULL,
    loss REAL NOT NULL,
    residual REAL NOT NULL DEFAULT 0,
    mu REAL
);
CREATE TABLE IF NOT EXISTS planners (client TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS labels (place INTEGER PRIMARY KEY, name TEXT NOT NULL);
"""

_LARGEST_MU = 1e6  # beyond it no epsilon can be told


@dataclass(frozen=True)
class PoolEntry:
    """One accepted adapter.

    Attributes
    ----------
    client : str
        Who uploaded it.
    digest : str
        Digest of its tensors.
    examples : int
        How many examples it was trained on, by the client's word.
    loss : float
        Its training loss, by the client's word.
    residual : float
        Share of the squared norm that was lost when it was projected into the space, by the
        client's word; 0 for an adapter that was trained there.
    mu : float or None
        Gaussian privacy of all that the client has released, by its word; None if this upload
        is plain.
    """

    client: str
    digest: str
    examples: int
    loss: float
    residual: float = 0.0
    mu: float | None = None


class Pool:
    """A durable pool of adapters of one space; one adapter per client.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    space : AdapterSpace
        The only space that is accepted.
    limits : UploadLimits
        What an upload must keep to.
    """

    def __init__(
        self,
        folder: Path,
        space: AdapterSpace,
        *,
        limits: UploadLimits = UploadLimits(),  # noqa: B008
    ) -> None:
        self._folder, self._space, self._limits = folder, space, limits
        (folder / "adapters").mkdir(parents=True, exist_ok=True)
        with self._index() as index:
            index.executescript(_SCHEMA)
            _add_mu(index)
            known = index.execute("SELECT digest FROM space").fetchone()
            if known is None:
                index.execute("INSERT INTO space VALUES (?)", (space.digest,))
            elif known[0] != space.digest and self._is_empty(index):
                # A run that failed before an adapter came in does not keep the folder.
                index.execute("UPDATE space SET digest = ?", (space.digest,))
            elif known[0] != space.digest:
                raise PoolError(
                    f"{folder}: this pool belongs to another adapter space "
                    f"({known[0][:12]} instead of {space.digest[:12]}); use another folder"
                )

    @staticmethod
    def _is_empty(index: sqlite3.Connection) -> bool:
        return index.execute("SELECT 1 FROM adapters").fetchone() is None

    def __len__(self) -> int:
        with self._index() as index:
            return int(index.execute("SELECT COUNT(*) FROM adapters").fetchone()[0])

    def __contains__(self, client: object) -> bool:
        with self._index() as index:
            query = "SELECT 1 FROM adapters WHERE client = ?"
            return index.execute(query, (client,)).fetchone() is not None

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Keep other runs out of this pool, and clear what a killed one had half-written.

        Raises
        ------
        RunError
            If another run has it.
        """
        with only_one(self._folder / "lock", what=f"the pool {self._folder}"):
            for torn in (self._folder / "adapters").glob(".*"):
                torn.unlink()
            yield

    def reserve_for(self, labels: Sequence[str]) -> None:
        """Take these labels for those of all adapters, once there is one.

        Raises
        ------
        PoolError
            If the pool was filled for others, or for the same in another order.
        """
        with self._index() as index:
            if self._is_empty(index):
                index.execute("DELETE FROM labels")  # of a run that came to nothing
            known = [row[0] for row in index.execute("SELECT name FROM labels ORDER BY place")]
            if not known:
                index.executemany("INSERT INTO labels VALUES (?, ?)", enumerate(labels))
        check_labels(labels, known or labels, whose=f"the pool {self._folder}")

    def clients(self) -> frozenset[str]:
        """Return whose adapters are in the pool."""
        with self._index() as index:
            return frozenset(row[0] for row in index.execute("SELECT client FROM adapters"))

    def planners(self) -> frozenset[str]:
        """Return the clients that `set_aside` was ever told about."""
        with self._index() as index:
            return frozenset(row[0] for row in index.execute("SELECT client FROM planners"))

    def set_aside(self, clients: Iterable[str]) -> None:
        """Remember clients that plan recipes, and are not to train in a later run either."""
        rows = [(client,) for client in clients]
        with self._index() as index:
            index.executemany("INSERT OR IGNORE INTO planners VALUES (?)", rows)

    def add(
        self,
        client: str,
        tensors: dict[str, np.ndarray],
        *,
        space_digest: str,
        examples: int,
        loss: float,
        residual: float = 0.0,
        mu: object = None,
    ) -> PoolEntry:
        """Check an upload and keep it.

        What is no privacy is taken for none: a `mu` that is not a number above 0.
        The upload of a client that is in the pool already is accepted without effect if it
        is the same one (a repeated message), and refused otherwise: one client, one adapter.

        Parameters
        ----------
        client : str
            Who uploads.
        tensors : dict
            The adapter, arrays by name.
        space_digest : str
            Digest of the space that the client trained in.
        examples : int
            How many examples it was trained on, by the client's word.
        loss : float
            Its training loss (nats), by the client's word.
        residual : float (default: 0.0)
            Fraction of the squared norm that projection lost, in [0, 1].
        mu : object, optional
            Gaussian privacy of all that the client has released, by its word.

        Returns
        -------
        PoolEntry
            The entry of the upload.

        Raises
        ------
        PoolError
            If the upload is refused; the message gives the reason, and the pool is as it was.
        """
        try:
            vector = decode(self._space, tensors, space_digest=space_digest)
            check_upload(
                vector, examples=examples, loss=loss, limits=self._limits, residual=residual
            )
        except (AdapterError, PoolError) as error:
            raise PoolError(f"upload of {client!r} refused: {error}") from error
        noise = float(mu) if isinstance(mu, int | float) and 0 < mu < _LARGEST_MU else None
        entry = PoolEntry(client, digest_tensors(tensors), examples, loss, residual, noise)
        with self._index() as index:
            # Locks out other writers from the check to the insertion.
            index.execute("BEGIN IMMEDIATE")
            known = self._check_new(index, entry)
            # The client's name is untrusted: its digest makes the file's name.
            name = f"{sha256_hex(client.encode())[:32]}.safetensors"
            path = self._folder / "adapters" / name
            content = save(encode(self._space, vector))
            if known and path.is_file() and path.read_bytes() == content:
                return entry  # a flood of repeated messages must not keep the disk busy
            write_atomically(path, content)
            index.execute(
                "INSERT OR IGNORE INTO adapters (client, digest, file, examples, loss, "
                "residual, mu) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (client, entry.digest, name, examples, loss, residual, noise),
            )
        return entry

    def entries(self) -> list[PoolEntry]:
        """List what is in the pool, by client."""
        with self._index() as index:
            rows = index.execute(
                "SELECT client, digest, examples, loss, residual, mu FROM adapters "
                "ORDER BY client"
            ).fetchall()
        return [PoolEntry(*row) for row in rows]

    def residuals(self) -> dict[str, float]:
        """Say what projection cost the pool: a JSON object for the bundle's notes.

        Empty if every adapter was trained in the space.
        """
        residuals = [entry.residual for entry in self.entries() if entry.residual > 0]
        if not residuals:
            return {}
        return {
            "projected_uploads": len(residuals),
            "residual_mean": round(float(np.mean(residuals)), 6),
            "residual_worst": round(max(residuals), 6),
        }

    def digest(self) -> str:
        """Return a digest of all adapters, whatever their order; it names no client."""
        return digest_json(sorted(entry.digest for entry in self.entries()))

    def matrix(self, clients: Collection[str] | None = None) -> FloatArray:
        """Return the adapters as a matrix ``(N, d)``, in the order of `entries`.

        Parameters
        ----------
        clients : collection of str, optional
            Clients whose adapters are taken, as the pool was at some time; by default all.

        Raises
        ------
        PoolError
            If a file is missing or damaged.
        """
        rows = [row for row in self._files() if clients is None or row[0] in clients]
        vectors = np.empty((len(rows), self._space.dimension))
        for index, row in enumerate(rows):
            vectors[index] = self._read(*row)
        return vectors

    def _files(self) -> list[tuple[str, str, str]]:
        with self._index() as index:
            return index.execute(
                "SELECT client, file, digest FROM adapters ORDER BY client"
            ).fetchall()

    def _read(self, client: str, file: str, digest: str) -> FloatArray:
        path = self._folder / "adapters" / file
        try:
            tensors = load(path.read_bytes())
        except (OSError, SafetensorError) as error:
            raise PoolError(
                f"{path}: the adapter of {client!r} cannot be read: {error}"
            ) from error
        if digest_tensors(tensors) != digest:
            raise PoolError(f"{path}: the adapter of {client!r} is damaged (digest)")
        return decode(self._space, tensors, space_digest=self._space.digest)

    def _check_new(self, index: sqlite3.Connection, entry: PoolEntry) -> bool:
        """Return whether the same upload is there already; refuse one that collides."""
        known = index.execute(
            "SELECT client, digest FROM adapters WHERE client = ? OR digest = ?",
            (entry.client, entry.digest),
        ).fetchall()
        for client, digest in known:
            if client == entry.client and digest != entry.digest:
                raise PoolError(
                    f"upload of {client!r} refused: it already has another adapter in the pool"
                )
            if client != entry.client:
                raise PoolError(
                    f"upload of {entry.client!r} refused: the very same adapter came from "
                    "another client"
                )
        return bool(known)

    @contextmanager
    def _index(self) -> Iterator[sqlite3.Connection]:
        path = self._folder / "pool.sqlite"
        try:
            connection = sqlite3.connect(path, timeout=30)
        except sqlite3.Error as error:
            raise PoolError(f"{path}: cannot open the pool: {error}") from error
        try:
            with connection:
                yield connection
        except sqlite3.DatabaseError as error:
            raise PoolError(f"{path}: the pool's index cannot be used: {error}") from error
        finally:
            connection.close()


def check_labels(labels: Sequence[str], known: Sequence[str], *, whose: str) -> None:
    """Raise `PoolError` if a run has other labels than what it goes on with.

    Parameters
    ----------
    labels : sequence of str
        The run's labels, in their order.
    known : sequence of str
        The labels of what is there.
    whose : str
        Names what is there, for the message.
    """
    if list(labels) != list(known):
        raise PoolError(
            f"{whose} has the labels {', '.join(known)}, in this order, and this run has "
            f"{', '.join(labels)}: write the run's labels like that, or use another folder"
        )


def _add_mu(index: sqlite3.Connection) -> None:
    """Give the index of a pool from before uploads had privacy its column."""
    if "mu" not in {row[1] for row in index.execute("PRAGMA table_info(adapters)")}:
        index.execute("ALTER TABLE adapters ADD COLUMN mu REAL")
