"""Trouble on the server's side: it is killed, its disk is full, its clock is off.

Each fault runs a small federation in real processes, breaks one, and starts the same command
again. What came of it is read off the files: who trained how often, the server's log, the
versions of the bundle, and the certificates.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

from faults.fault import NOTHING, Fault, Outcome
from faults.server_rig import NEW, UPSTREAM, Ended, Run, start
from fedcert.bundles import Bundle
from fedcert.bundles.versions import BundleVersions
from fedcert.certificates import Certificate
from fedcert.protocol.authority import SeedAuthority
from fedcert.protocol.history import History
from fedcert.protocol.log import Entry, read_log
from fedcert.verification import verify

__all__ = ["SERVER_FAULTS"]

_GOES_ON = "the same command goes on to the end, and every certificate verifies"
_ON_ITS_WAY = "1 upload on its way, which was not accepted yet"
_KILLED = -9
_YEAR = 365 * 86400.0
_LATE = 3
"""Upstream clients that come later: enough for another version of the bundle."""


def _findings(folder: Path, *, present: int = UPSTREAM, versions: int = 1) -> list[str]:
    """Say what is not as it has to be once all is done."""
    run, found = folder / "run", []
    log = _log(folder)
    history = History.of(log)  # it refuses a second seed for a commitment, among others
    published = BundleVersions(run)
    if published.numbers() != list(range(1, versions + 1)):
        found.append(f"there are the versions {published.numbers()}")
    bundles = [Bundle.load(published.folder(number)) for number in published.numbers()]
    if {bundle.digest for bundle in bundles} != history.bundles.keys():
        found.append("the log has other bundles than the folder")
    if Bundle.load(run / "bundle").digest != bundles[-1].digest:
        found.append("the link does not lead to the latest bundle")
    if bundles[-1].notes["pool"] != present:
        found.append(f"the prior is of {bundles[-1].notes['pool']} adapters")
    if len(history.commitments) != len(history.attempts):
        found.append("a commitment has no seed")
    if len(history.attempts) != NEW * versions:
        found.append(f"{len(history.attempts)} seeds were issued")
    filed = sorted((run / "certificates").glob("**/*.json"))
    if len(filed) != NEW * versions or len(history.open_attempts()):
        found.append(f"{len(filed)} certificates are there")
    seeds = {attempt.seed for attempt in history.attempts.values()}
    by_digest = {bundle.digest: bundle for bundle in bundles}
    for path in filed:
        certificate = Certificate.read(path)
        report = verify(certificate, bundle=by_digest[certificate.digests.bundle])
        if not report.passed or certificate.candidate.seed not in seeds:
            found.append(f"the certificate {path.name} does not verify")
    torn = [*(run / "pool" / "adapters").glob(".*"), *(run / "bundles").glob(".*")]
    return found + [f"half-written: {path.name}" for path in torn]


def _log(folder: Path) -> list[Entry]:
    """Read the server's log; that fails unless it is whole."""
    key = SeedAuthority(folder / "state").public_key
    return read_log(folder / "state" / "log.jsonl", key)


def _trained_again(folder: Path) -> str:
    """Say how many uploads had to be made twice."""
    asked = Counter((folder / "asked").read_text(encoding="ascii").splitlines())
    again = [line for line, count in asked.items() if line.startswith("train.") and count > 1]
    return f"{len(again)} upload on its way, which was not accepted yet" if again else NOTHING


def _after(folder: Path, ended: Ended, *, versions: int = 1) -> Outcome:
    """Judge the run that was to set things right."""
    if ended.error is not None or ended.status != 0:
        return Outcome(f"it does not go on: {ended.error or ended.status}")
    wrong = _findings(folder, versions=versions)
    return Outcome("; ".join(wrong) if wrong else _GOES_ON, _trained_again(folder))


def _killed(point: str) -> Fault:
    """Kill the server at a point, and start it again."""

    def inject(folder: Path) -> Outcome:
        if (ended := start(folder, Run(point)).end()).status != _KILLED:
            return Outcome(f"it was not killed: {ended}")
        before = _log(folder)
        history = History.of(before)
        waiting = len(history.commitments) - len(history.attempts)
        if waiting != (point == "committed, no seed"):
            return Outcome(f"it was killed elsewhere: {waiting} commitments wait for a seed")
        ended = start(folder).end()
        if _log(folder)[: len(before)] != before:
            return Outcome("the log was rewritten")
        return _after(folder, ended)

    lost = _ON_ITS_WAY if point == "upload half pooled" else NOTHING
    return Fault(f"the server is killed: {point}", Outcome(_GOES_ON, lost), inject)


def _disk_full(point: str, file: str) -> Fault:
    """Let no file grow from a point on, and go on when there is room again."""

    def inject(folder: Path) -> Outcome:
        ended = start(folder, Run(point, how="full")).end()
        if ended.error is None or file not in ended.error:
            return Outcome(f"the error does not name {file}: {ended}")
        return _after(folder, start(folder).end())

    lost = _ON_ITS_WAY if point == "upload not written" else NOTHING
    return Fault(f"the disk is full: {point}", Outcome(_GOES_ON, lost), inject)


def _killed_at_the_second_version(folder: Path) -> Outcome:
    """Let clients join, and kill the server while it writes the bundle that has them."""
    first = start(folder, Run(absent=_LATE)).end()
    before = (folder / "run" / "bundle" / "bundle.json").read_bytes()
    killed = start(folder, Run("bundle half written")).end()
    if (first.status, killed.status) != (0, _KILLED):
        return Outcome(f"the runs ended otherwise: {first}, {killed}")
    if (folder / "run" / "bundle" / "bundle.json").read_bytes() != before:
        return Outcome("the first version does not serve any more")
    return _after(folder, start(folder).end(), versions=2)


def _two_at_once(folder: Path) -> Outcome:
    """Start a run while another one is at work, and once more when that was killed."""
    first = start(folder, Run("fitting", how="wait"))
    first.reached()
    second = start(folder).end()
    first.kill()
    first.end()
    if "in use by another run (process" not in (second.error or ""):
        return Outcome(f"the second run was not refused: {second}")
    return _after(folder, start(folder).end())


def _clock_off(folder: Path) -> Outcome:
    """Let the clock be a year ahead in the first run, and a year behind in the second."""
    start(folder, Run("committed, no seed", clock=_YEAR)).end()
    for path in (folder / "run").rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() + _YEAR,) * 2)
    return _after(folder, start(folder, Run(clock=-_YEAR)).end())


def _damaged_version(folder: Path) -> Outcome:
    """Damage the latest bundle, then move it away as the error says."""
    start(folder).end()
    version = folder / "run" / "bundles" / "0001"
    whole = (version / "bundle.json").read_bytes()
    (version / "bundle.safetensors").write_bytes(b"torn")
    refused = start(folder).end()
    if "0001: the bundle is damaged: bundle.safetensors" not in (refused.error or ""):
        return Outcome(f"it was served: {refused}")
    version.rename(folder / "moved-away")
    ended = start(folder).end()
    if (version / "bundle.json").read_bytes() != whole:
        return Outcome("another bundle was fitted to the same pool")
    return _after(folder, ended)


SERVER_FAULTS: tuple[Fault, ...] = (
    _killed("upload half pooled"),
    _killed("upload pooled"),
    _killed("fitting"),
    _killed("bundle half written"),
    _killed("bundle not linked"),
    _killed("bundle not logged"),
    _killed("committed, no seed"),
    _killed("seed not sent"),
    _killed("certificate not filed"),
    Fault(
        "the server is killed: second version half written",
        Outcome(_GOES_ON),
        _killed_at_the_second_version,
    ),
    _disk_full("upload not written", ".safetensors"),
    _disk_full("bundle half written", "bundle.safetensors"),
    _disk_full("committed, no seed", "log.jsonl"),
    Fault("two runs at once on one pool", Outcome(_GOES_ON), _two_at_once),
    Fault("the clock a year ahead, then a year behind", Outcome(_GOES_ON), _clock_off),
    Fault("the latest bundle is damaged on the server", Outcome(_GOES_ON), _damaged_version),
)
"""What can go wrong with the server, its disk, and its clock."""
