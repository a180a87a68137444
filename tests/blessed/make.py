"""Make one of every artefact that leaves a process, to be read by every later version.

    python tests/blessed/make.py NAME

writes ``tests/blessed/NAME/`` and its ``manifest.json``. Run it once for each new format, and
never again under a name that is there: what was made by an earlier version is what
`test_blessed.py` is about. It refuses a tree with changes, since nobody could tell then
what made the artefacts.

The keys in the folder are test keys. They sign nothing but these artefacts.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
IMPORTABLE = ROOT / "tests" / "simulations" / "importable"
SCENARIO = "tiny_scenario:Tiny"

# Every kind that a planner or a table may prescribe, each with the n that calls for it.
CANDIDATES = 64
TERMS: dict[str, Any] = {"candidates": CANDIDATES, "delta": 0.05}
MENU: dict[str, tuple[int, dict[str, Any]]] = {
    "union": (40, {}),
    "split": (42, {}),
    "hybrid": (44, {}),
    "posterior_split": (46, {"chains": 8, "steps": 10}),
    "weighted_union": (48, {}),
    "mixed_union": (50, {"constants": 2}),
}
PENDING = "mixed_union"
"""Its witnessed certificate is handed in and not yet accepted."""

RUN = (
    *("simulate", SCENARIO, "--runner=inprocess", "--output=run", "--set=adapter.rank=2"),
    *("--set=training.steps=10", "--set=certificate.recipe=planned"),
    *(f"--set=certificate.candidates={CANDIDATES}", "--set=certificate.support-size=32"),
    *('--set=planning.sizes="16,32"', "--set=server.min-pool=11"),
    *("--set=evaluation.baselines=false", "--set=prior.on-memorization=warn"),
)
# What is rendered from something else, or is of a format of which there is another one.
LEFT_OUT = (
    *("run/report.html", "*/*/certificate.html", "closed/[!l]*"),
    *("run/clients/tiny-0[1-9]", "run/clients/tiny-1[0-3]", "run/clients/tiny-15/state"),
    "devices/[!u]*.state/spent.sqlite",
)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("give the name of a new folder, such as v2")
    name = sys.argv[1]
    target = ROOT / "tests" / "blessed" / name
    if target.exists():
        sys.exit(f"{target} is there: artefacts of an earlier version are never made again")
    commit = _clean_commit()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        # Relative, so that no path of this machine gets into an artefact.
        os.environ |= {
            "FEDCERT_CACHE": "../cache",
            "PYTHONPATH": str(IMPORTABLE),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }
        sys.path.append(str(IMPORTABLE))
        made = Path("made").absolute()
        made.mkdir()
        make_run(made)
        make_bundles(made)
        make_unwitnessed(made)
        make_witnessed(made)
        make_endings(made)
        for path in [path for pattern in LEFT_OUT for path in made.glob(pattern)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_manifest(made, commit)
        shutil.copytree(made, target, symlinks=True)


def _clean_commit() -> str:
    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True)
        return done.stdout.decode().strip()

    if git("status", "--porcelain"):
        sys.exit("the tree has changes; commit them first: the manifest names a commit")
    return git("rev-parse", "HEAD")


def fedcert(*words: object, cwd: Path) -> str:
    """Run a command; return what it printed."""
    command = [sys.executable, "-m", "fedcert.cli", *map(str, words)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}")
    return done.stdout


def make_run(made: Path) -> None:
    """Simulate a planned run: pool, plan, bundle, log, events, certificates, results."""
    fedcert(*RUN, cwd=made)
    from fedcert.privacy.ledger import Release, ReleaseLedger

    ledger = ReleaseLedger(made / "ledger.json")
    ledger.spend(Release("an upload", 0.5), budget=9.0, delta=1e-5)


def make_bundles(made: Path) -> None:
    """Put a Gaussian and a trained diffusion into bundles with the whole menu."""
    from fedcert.bundles import Bundle
    from fedcert.certificates import Recipe, RecipeTable
    from fedcert.pool import Pool
    from fedcert.priors import DiffusionPrior, GaussianPrior
    from fedcert.randomness import keyed_generator

    run = Bundle.load(made / "run" / "bundle")
    rows = ((n, Recipe.from_config({"kind": k, **TERMS, **c})) for k, (n, c) in MENU.items())
    table = RecipeTable(tuple(rows))
    pool = Pool(made / "run" / "pool", run.space).matrix()
    # Two crowds around what clients uploaded: a Gaussian fits them badly.
    draw = keyed_generator("blessed pool")
    spread = pool.std(axis=0)
    rows_of = draw.integers(0, len(pool), 60)
    signs = draw.choice([-1.0, 1.0], 60)[:, None]
    crowds = pool[rows_of] + 0.5 * signs * spread + 0.05 * spread * draw.normal(size=(60, 1))
    for name, prior in (
        ("gaussian", GaussianPrior.fit(crowds, seed=0)),
        ("diffusion", DiffusionPrior.fit(crowds, seed=0)),
    ):
        notes = {"prior": f"{name}, on made-up adapters"}
        replace(run, prior=prior, recipes=table, plan=None, notes=notes).save(made / name)
    assert isinstance(prior, DiffusionPrior)
    assert prior.report.best_step > 0, "the diffusion is no more than the Gaussian"
    fedcert("bundle", "pack", "diffusion", "--output", "diffusion.zip", cwd=made)


def _data(made: Path, kind: str) -> Path:
    from tiny_scenario import Tiny

    path = made / "data" / f"{kind}.npz"
    path.parent.mkdir(exist_ok=True)
    drawn = Tiny().support_examples(f"client of {kind}", MENU[kind][0])
    np.savez_compressed(path, input=drawn.inputs, label=drawn.labels)
    return path.relative_to(made)


def make_unwitnessed(made: Path) -> None:
    """Certify without a server, by every recipe, with the Gaussian."""
    for kind in MENU:
        fedcert(
            *("personalize", _data(made, kind), "--bundle=gaussian", "--client", kind),
            *("--base-model=run/base-model", "--key=../elsewhere.key"),
            *("--output", f"unwitnessed/{kind}"),
            cwd=made,
        )


def make_witnessed(made: Path) -> None:
    """Go from commitment to countersignature, by every recipe, with the diffusion."""
    fedcert("server", "publish", "diffusion", "--state=server", cwd=made)
    for kind in MENU:
        folder, key = f"witnessed/{kind}", f"--key=devices/{kind}.key"
        (made / folder).mkdir(parents=True)
        (made / "devices").mkdir(exist_ok=True)
        client = (f"data/{kind}.npz", "--bundle=diffusion", key, "--client", kind)
        commitment, seed = f"{folder}/commitment.json", f"{folder}/seed.json"
        fedcert("commit", *client, "--output", commitment, cwd=made)
        answer = ("--state=server", "--output", seed)
        fedcert("server", "issue-seed", commitment, *answer, cwd=made)
        fedcert(
            *("personalize", *client, "--base-model=run/base-model", "--seed", seed),
            *("--output", folder),
            cwd=made,
        )
        submission = f"{folder}/submission.json"
        handed_in = (key, "--output", submission)
        fedcert("submit", f"{folder}/certificate.json", *handed_in, cwd=made)
        if kind != PENDING:
            accepting = ("--bundle=diffusion", "--state=server", "--json")
            told = fedcert("server", "accept", submission, *accepting, cwd=made)
            [row] = json.loads(told)
            shutil.copy(made / row["witness"], made / folder / "witness.json")


def make_endings(made: Path) -> None:
    """Watch one certificate, and close the log of a copy of the server."""
    from tiny_scenario import Tiny

    later = Tiny().test_examples("client of union")
    np.savez_compressed(made / "data" / "later.npz", input=later.inputs, label=later.labels)
    fedcert(
        *("monitor", "data/later.npz", "--certificate=witnessed/union/certificate.json"),
        *("--bundle=diffusion", "--base-model=run/base-model", "--key=devices/union.key"),
        cwd=made,
    )
    shutil.copytree(made / "server", made / "closed")
    pending = f"witnessed/{PENDING}/commitment.json"
    fedcert("server", "abort", pending, "--reason=lost", "--state=closed", cwd=made)
    fedcert("server", "close", "diffusion", "--state=closed", cwd=made)


def write_manifest(made: Path, commit: str) -> None:
    from fedcert.records.signing import public_hex, read_key
    from fedcert.runs.machine import describe_machine, versions

    # rglob does not follow the link to the latest bundle.
    files = sorted(path for path in made.rglob("*") if path.is_file())
    sums = {
        str(path.relative_to(made)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
    content = {
        "commit": commit,
        "made_by": "tests/blessed/make.py",
        "machine": describe_machine(),
        "versions": versions(),
        "server_key": public_hex(read_key(made / "server" / "server.key")),
        "pending": PENDING,
        "recipes": list(MENU),
        "files": sums,
    }
    (made / "manifest.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
