"""The versions of a federation's bundle, as the server's run folder keeps them.

``bundles/0001``, ``bundles/0002``, and so on are bundles, each written once and never changed:
certificates name theirs by its digest, and need it for as long as they are to be verified.
``pool/versions/0002.json`` says what that version was made from; it names clients, so it is
not among what is handed out. ``bundle`` is the latest version: a relative link that is replaced
in one step, or a copy where the file system has no links.

A version exists once its folder does. Its provenance is written before, and the link follows
from the folders, so a crash anywhere in between leaves either version whole.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedcert.bundles.bundle import Bundle
from fedcert.errors import BundleError
from fedcert.records import Record, RecordError

__all__ = ["LATEST", "VERSIONS", "BundleVersions", "Provenance", "find_bundle"]

LATEST, VERSIONS = "bundle", "bundles"
"""Names of the latest bundle and of the folder of all versions in a run folder."""

_NAME = re.compile(r"\d{4,}")


@dataclass(frozen=True)
class Provenance(Record):
    """What a version was made from.

    Attributes
    ----------
    version : int
        From 1 on.
    bundle : str
        The bundle's digest.
    parent : str or None
        Digest of the version before.
    settings : str
        Digest of what a fit depends on beside the adapters.
    clients : tuple of str
        Whose adapters the prior was fitted to; for a federated prior, who was asked.
    """

    what = "provenance"

    version: int
    bundle: str
    parent: str | None
    settings: str
    clients: tuple[str, ...]


class BundleVersions:
    """All versions in one run folder; one writer at a time.

    Parameters
    ----------
    run : Path
        The run folder.
    """

    def __init__(self, run: Path) -> None:
        self._run, self._folder = run, run / VERSIONS
        self._provenance = run / "pool" / "versions"

    def numbers(self) -> list[int]:
        """Return the numbers of the versions, in increasing order."""
        if not self._folder.is_dir():
            return []
        found = (path.name for path in self._folder.iterdir() if path.is_dir())
        return sorted(int(name) for name in found if _NAME.fullmatch(name))

    def folder(self, number: int) -> Path:
        """Return the folder of a version."""
        return self._folder / f"{number:04d}"

    def latest(self) -> tuple[Bundle, Provenance] | None:
        """Read the newest version, and what it was made from; None before the first.

        Raises
        ------
        BundleError
            If it is damaged, or is another bundle than it was.
        """
        number = max(self.numbers(), default=0)
        if not number:
            return None
        folder = self.folder(number)
        bundle = Bundle.load(folder)
        try:
            provenance = Provenance.read(self._provenance / f"{folder.name}.json")
        except RecordError as error:
            raise BundleError(
                f"{error}. It says what the version was made from: put it back, or move the "
                "folder of that version away, and the prior is fitted again"
            ) from error
        if provenance.bundle != bundle.digest:
            raise BundleError(
                f"{folder}: this is not the bundle that was published as version {number}; put "
                "that one back"
            )
        return bundle, provenance

    def next_notes(self) -> dict[str, Any]:
        """Return what the next version's notes say about its place among the versions."""
        known = self.latest()
        if known is None:
            return {"version": 1}
        bundle, provenance = known
        return {"version": provenance.version + 1, "parent": bundle.digest}

    def add(self, bundle: Bundle, *, settings: str, clients: Iterable[str]) -> None:
        """Write a new version, and make it the latest.

        Parameters
        ----------
        bundle : Bundle
            The new bundle; its notes hold `next_notes`.
        settings, clients
            See `Provenance`.
        """
        number, parent = int(bundle.notes["version"]), bundle.notes.get("parent")
        provenance = Provenance(
            number, bundle.digest, parent, settings, tuple(sorted(set(clients)))
        )
        folder = self.folder(number)
        provenance.write(self._provenance / f"{folder.name}.json")
        bundle.save(folder)
        self.restore()

    def restore(self) -> None:
        """Finish what a run did not that was killed: torn files go, the link is right.

        Raises
        ------
        BundleError
            If a bundle that no run published here stands in the link's place.
        """
        place = self._run / LATEST
        if not self.numbers() and place.is_dir() and not place.is_symlink():
            raise BundleError(
                f"{place} is no version of this run's bundle; move it elsewhere, or choose "
                "another output folder"
            )
        if self._folder.is_dir():
            for torn in self._folder.glob(".*"):
                shutil.rmtree(torn) if torn.is_dir() else torn.unlink()
        number = max(self.numbers(), default=0)
        if number:
            self._point_to(self.folder(number))

    def find(self, digest: str) -> Path | None:
        """Return the folder of the version with a digest, or None.

        Raises
        ------
        BundleError
            If a version is damaged, so that its digest is not known.
        """
        for number in reversed(self.numbers()):
            if Bundle.load(self.folder(number)).digest == digest:
                return self.folder(number)
        return None

    def _point_to(self, folder: Path) -> None:
        link, target = self._run / LATEST, Path(VERSIONS) / folder.name
        if link.is_symlink() and link.readlink() == target:
            return
        beside = self._run / f".{LATEST}.new"
        beside.unlink(missing_ok=True)
        try:
            beside.symlink_to(target, target_is_directory=True)
        except (OSError, NotImplementedError):
            Bundle.load(folder).save(link)
            return
        if link.is_dir() and not link.is_symlink():
            shutil.rmtree(link)  # a copy, where there are no links
        beside.replace(link)


def find_bundle(path: Path, digest: str) -> Path:
    """Return where a certificate's bundle is: `path`, or a version in it if it is a run folder.

    Raises
    ------
    BundleError
        If it is a run folder without that version.
    """
    if not (path / VERSIONS).is_dir():
        return path
    found = BundleVersions(path).find(digest)
    if found is None:
        raise BundleError(f"{path}: no version of the bundle has the digest {digest[:12]}")
    return found
