"""Faults of devices: damaged downloads, other models, wrong clocks, and second tries."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from faults.device_rig import (
    CLIENT,
    Parties,
    fedcert,
    make_base,
    make_bundle,
    make_examples,
    write_csv,
)
from faults.fault import Fault, Outcome
from fedcert.certificates import Certificate

__all__ = ["DEVICE_FAULTS"]

_FILES = ("bundle.json", "bundle.safetensors", "bundle.sha256")
_POSITIONS = 12
_REFUSED = "refused, naming the file; no example spent"


def _damaged(damage: Callable[[Path, int], None]) -> Callable[[Path], Outcome]:
    """Damage each file of a bundle, one at a time and in several ways, and personalize."""

    def inject(folder: Path) -> Outcome:
        parties = Parties.make(folder)
        kept = shutil.copytree(parties.bundle, folder / "whole")
        outcomes = set()
        for name in _FILES:
            for way in range(_POSITIONS):
                shutil.copy(kept / name, parties.bundle / name)
                damage(parties.bundle / name, way)
                outcomes.add(_outcome(parties, parties.personalize()))
                shutil.copy(kept / name, parties.bundle / name)
        return Outcome("; ".join(sorted(outcomes)))

    return inject


def _outcome(parties: Parties, problem: str | None) -> str:
    """Say what became of a command, going by what it said and by what is there."""
    if problem is None:
        return "taken as if nothing were wrong"
    named = any(name in problem for name in (*_FILES, ".zip"))
    left = parties.spent()
    return (
        f"refused, {'naming' if named else 'not naming'} the file; "
        f"{'no example' if left == 0 and not parties.output.exists() else f'{left} examples'} "
        "spent"
    )


def _flip(path: Path, way: int) -> None:
    content = bytearray(path.read_bytes())
    content[way * (len(content) - 1) // (_POSITIONS - 1)] ^= 1 << (way % 8)
    path.write_bytes(bytes(content))


def _truncate(path: Path, way: int) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: way * len(content) // _POSITIONS])


def _remove(path: Path, _way: int) -> None:
    path.unlink()


def _swap(path: Path, way: int) -> None:
    """Put the same file of another version of the bundle there."""
    other = path.parents[1] / f"other-{way % 2}"
    if not other.exists():
        make_bundle(path.parents[1] / "base-model", seed=1 + way % 2).save(other)
    shutil.copy(other / path.name, path)


def _interrupted(folder: Path) -> Outcome:
    """Cut an archive off at many lengths, as a download that stopped does."""
    parties, archive = Parties.make(folder), folder / "bundle.zip"
    fedcert("bundle", "pack", parties.bundle, "-o", archive)
    content, outcomes = archive.read_bytes(), set()
    for part in range(24):
        archive.write_bytes(content[: part * len(content) // 24])
        outcomes.add(_outcome(parties, parties.personalize(bundle=archive)))
    archive.write_bytes(content)
    if parties.personalize(bundle=archive) is not None:
        outcomes.add("the whole archive is refused as well")
    return Outcome("; ".join(sorted(outcomes)))


def _damaged_archive(folder: Path) -> Outcome:
    parties, archive = Parties.make(folder), folder / "bundle.zip"
    fedcert("bundle", "pack", parties.bundle, "-o", archive)
    content, outcomes = archive.read_bytes(), set()
    for part in range(1, 24):
        damaged = bytearray(content)
        damaged[part * len(content) // 24] ^= 0x10
        archive.write_bytes(bytes(damaged))
        outcomes.add(_outcome(parties, parties.personalize(bundle=archive)))
    return Outcome("; ".join(sorted(outcomes)))


def _another_bundle(folder: Path) -> Outcome:
    """Whole and consistent, but not the one that the federation published."""
    parties = Parties.make(folder)
    make_bundle(parties.base, seed=1).save(folder / "forged")
    expected = make_bundle(parties.base).digest
    bundle = folder / "forged"
    for problem in (
        parties.personalize("--bundle-digest", expected, bundle=bundle),
        parties.commit("--bundle", bundle, "--bundle-digest", expected),
    ):
        if problem is None or "not the expected" not in problem or parties.spent():
            return Outcome(f"not refused as another bundle: {problem}")
    return Outcome("refused by its digest; no example spent")


def _another_base(folder: Path) -> Outcome:
    parties = Parties.make(folder)
    make_base(folder / "other", seed=1)
    problem = parties.personalize("--base-model", folder / "other")
    if problem is None or "other weights or another configuration" not in problem:
        return Outcome(f"not refused as another model: {problem}")
    return Outcome(f"refused by the digest of its weights; {parties.spent()} examples spent")


@contextmanager
def _clock(years: float) -> Iterator[None]:
    """Let every reading of the time of day in this process be years off."""
    off, now, now_ns = years * 31_557_600.0, time.time, time.time_ns

    def seconds() -> float:
        return now() + off

    def nanoseconds() -> int:
        return now_ns() + int(off * 1e9)

    with mock.patch("time.time", seconds), mock.patch("time.time_ns", nanoseconds):
        yield


def _wrong_clock(folder: Path) -> Outcome:
    """Certify with a clock that is right, decades slow, and decades fast, under one seed."""
    parties = Parties.make(folder)
    parties.certify()
    right = parties.certificate.read_bytes()
    archive, packed = folder / "bundle.zip", set()
    for years in (-45.0, 60.0):
        with _clock(years):
            for file in folder.rglob("*"):
                os.utime(file, (time.time(), time.time()))
            problem = parties.personalize("--seed", folder / "seed.json")
            problem = problem or fedcert("bundle", "pack", parties.bundle, "-o", archive)
        packed.add(archive.read_bytes())
        if problem is not None or parties.certificate.read_bytes() != right:
            return Outcome(f"another certificate under another clock ({problem})")
    return Outcome("the same certificate, byte for byte" if len(packed) == 1 else "other bytes")


def _second_seed(folder: Path) -> Outcome:
    """Drop an example after the first seed, and ask for another seed with the rest."""
    parties = Parties.make(folder)
    parties.certify()
    fewer = folder / "fewer.csv"
    write_csv(make_examples().take(slice(1, None)), fewer)
    outcomes = [parties.commit(data=fewer), parties.commit("--retry", data=fewer)]
    if not all(
        problem and "are already spent on: a certificate" in problem for problem in outcomes
    ):
        return Outcome(f"not refused as spent: {outcomes}")
    return Outcome("refused on the device: its examples are spent")


def _second_seed_without_a_ledger(folder: Path) -> Outcome:
    """As before, on a device whose state folder was deleted."""
    parties = Parties.make(folder)
    parties.certify()
    first = Certificate.read(parties.certificate)
    shutil.rmtree(parties.state)
    fewer = folder / "fewer.csv"
    write_csv(make_examples().take(slice(1, None)), fewer)
    problem = parties.commit(data=fewer) or parties.issue()
    problem = problem or fedcert(
        *("personalize", fewer, "--client", CLIENT, "-o", parties.output),
        *("--bundle", parties.bundle, "--key", folder / "device.key"),
        *("--seed", folder / "seed.json"),
    )
    second = Certificate.read(parties.certificate)
    if problem or first.protocol is None or second.protocol is None:
        return Outcome(f"something else went wrong: {problem}")
    spent, left = first.delta, second.delta
    return Outcome(
        f"another attempt, number {second.protocol.attempt}, with a ninth of the delta or less"
        if second.protocol.attempt == 2 and left < spent / 9 and spent + left <= 0.05
        else f"a seed with delta {left} after one with {spent}"
    )


def _another_seed_file(folder: Path) -> Outcome:
    """Take the seed of another device, or write one's own into the server's answer."""
    parties, other = Parties.make(folder / "one"), Parties.make(folder / "two", seed=0)
    for each in (parties, other):
        each.publish()
        each.commit()
        each.issue()
    own = parties.folder / "seed.json"
    changed = own.read_text(encoding="utf-8").replace('"seed": "', '"seed": "00', 1)
    wrong = folder / "changed.json"
    wrong.write_text(changed, encoding="utf-8")
    for seed in (other.folder / "seed.json", wrong):
        if parties.personalize("--seed", seed) is None:
            return Outcome("a seed that is not its own was taken")
    if parties.personalize("--seed", own) is not None:
        return Outcome("its own seed was refused as well")
    return Outcome("refused; its own seed is still good")


# Runs a command whose process is killed when it is about to write the certificate.
_KILLED = """
import os, signal, sys
import fedcert.personalization.personalizing as personalization
personalization.issue = lambda **terms: os.kill(os.getpid(), signal.SIGKILL)
from fedcert.cli import main
main()
"""


def _killed(folder: Path) -> Outcome:
    """Kill the process when the examples are spent and nothing is written yet."""
    parties = Parties.make(folder)
    undisturbed = Parties(Path(shutil.copytree(folder, folder / "undisturbed")))
    words = ("personalize", parties.data, "--client", CLIENT, "-o", parties.output)
    kept = ("--bundle", parties.bundle, "--key", folder / "device.key")
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, *map(str, (*words, *kept))],
        capture_output=True,
        check=False,
        timeout=120,
    )
    if done.returncode != -signal.SIGKILL or not parties.spent():
        return Outcome(f"it was not killed in time: {done.stderr[-200:]!r}")
    if parties.certificate.exists() or (parties.output / "adapter").exists():
        return Outcome("something half-written was left")
    shutil.copy(folder / "device.key", undisturbed.folder / "device.key")
    problem = parties.personalize() or undisturbed.personalize()
    if problem is not None:
        return Outcome(f"refused afterwards: {problem}")
    same = parties.certificate.read_bytes() == undisturbed.certificate.read_bytes()
    return Outcome("the second try gives the certificate that the first would have given"
                   if same else "another certificate")  # fmt: skip


DEVICE_FAULTS = (
    Fault("a bundle with one byte flipped", Outcome(_REFUSED), _damaged(_flip)),
    Fault("a bundle with a file cut short", Outcome(_REFUSED), _damaged(_truncate)),
    Fault("a bundle with a file missing", Outcome(_REFUSED), _damaged(_remove)),
    Fault("a bundle with a file of another version", Outcome(_REFUSED), _damaged(_swap)),
    Fault("a download of a bundle that was cut off", Outcome(_REFUSED), _interrupted),
    Fault("an archive with one byte flipped", Outcome(_REFUSED), _damaged_archive),
    Fault(
        "a whole bundle of somebody else",
        Outcome("refused by its digest; no example spent"),
        _another_bundle,
    ),
    Fault(
        "a base model that is not the bundle's",
        Outcome("refused by the digest of its weights; 0 examples spent"),
        _another_base,
    ),
    Fault(
        "a device that dies while it personalizes",
        Outcome("the second try gives the certificate that the first would have given"),
        _killed,
    ),
    Fault(
        "a device whose clock is decades off",
        Outcome("the same certificate, byte for byte"),
        _wrong_clock,
    ),
    Fault(
        "a device that asks for a second seed with changed examples",
        Outcome("refused on the device: its examples are spent"),
        _second_seed,
    ),
    Fault(
        "the same with its ledger deleted",
        Outcome("another attempt, number 2, with a ninth of the delta or less"),
        _second_seed_without_a_ledger,
    ),
    Fault(
        "a device with a seed that is not its own",
        Outcome("refused; its own seed is still good"),
        _another_seed_file,
    ),
)
