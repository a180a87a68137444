"""A device and a server with nothing but files between them, small enough to break often."""

from __future__ import annotations

import contextlib
import csv
import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcert.bundles import Bundle
from fedcert.certificates import Certificate, issue
from fedcert.data import Examples, ImageInputs
from fedcert.protocol.device import DeviceState
from fedcert.randomness import keyed_generator
from fedcert.records.signing import read_key

__all__ = [
    "CLIENT",
    "Parties",
    "fedcert",
    "make_base",
    "make_bundle",
    "make_examples",
    "signed_anew",
    "write_csv",
]

CLIENT = "device"
SIDE, LABELS, CANDIDATES = 4, ("dark", "bright"), 64


def make_base(folder: Path, *, seed: int = 0, hidden: int = 16) -> None:
    """Save a vision transformer of two layers with random weights and a zero head."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        # The default range of .02 would make a tiny model blind to its inputs.
        config = ViTConfig(
            image_size=SIDE,
            patch_size=2,
            num_channels=1,
            hidden_size=hidden,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=2 * hidden,
            initializer_range=0.2,
            num_labels=2,
        )
        model = ViTForImageClassification(config)
    for parameter in model.classifier.parameters():
        torch.nn.init.zeros_(parameter)
    model.save_pretrained(folder)


def make_bundle(
    base_folder: Path, *, seed: int = 0, rank: int = 2, candidates: int = CANDIDATES
) -> Bundle:
    """Make a bundle whose prior is a Gaussian around random adapters."""
    from fedcert.adapters import AdapterSpace
    from fedcert.certificates import RecipeTable, SplitRecipe, UnionRecipe
    from fedcert.models import load_base_model
    from fedcert.priors import GaussianPrior

    base = load_base_model(str(base_folder), num_labels=len(LABELS))
    space = AdapterSpace.of(base, rank=rank)
    pool = keyed_generator("a pool", seed).standard_normal((40, 5))
    pool = pool @ keyed_generator("its directions", seed).standard_normal((5, space.dimension))
    recipes = RecipeTable(
        (
            (1, UnionRecipe(candidates=candidates, delta=0.05)),
            (40, SplitRecipe(candidates=candidates, delta=0.05)),
        )
    )
    return Bundle(
        base_name="base-model",
        base_revision="local",
        base_digest=base.digest,
        space=space,
        prior=GaussianPrior.fit(pool, seed=0),
        inputs=ImageInputs(channels=1, height=SIDE, width=SIDE, low=0.0, high=1.0),
        labels=LABELS,
        recipes=recipes,
        notes={"pool": "random adapters"},
    )


def make_examples(count: int = 24, *, seed: int = 0) -> Examples:
    """Draw images that are bright on one side, or not."""
    generator = keyed_generator("images of a device", seed)
    labels = generator.integers(0, 2, count)
    pattern = np.linspace(-0.25, 0.25, SIDE)[:, None] * np.ones(SIDE)
    signs = (2.0 * labels - 1.0)[:, None, None, None]
    noise = generator.uniform(-0.2, 0.2, (count, 1, SIDE, SIDE))
    images = np.clip(0.5 + signs * pattern + noise, 0, 1)
    return Examples(images.astype(np.float32), labels.astype(np.int64))


def fedcert(*arguments: object) -> str | None:
    """Run a command in this process; return what is wrong, or None if it succeeded.

    What it prints is logged, at the level DEBUG.
    """
    from fedcert.cli.app import app
    from fedcert.errors import FedcertError

    words, printed = [str(argument) for argument in arguments], io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            status = app(words, prog_name="fedcert", standalone_mode=False)
    except (FedcertError, OSError) as error:
        return str(error)
    finally:
        logging.getLogger(__name__).debug("%s: %s", words[0], printed.getvalue())
    return f"status {status}" if status else None


@dataclass(frozen=True)
class Parties:
    """The folders of a server and of a device.

    Parameters
    ----------
    folder : Path
        Holds all of them.
    """

    folder: Path

    @staticmethod
    def make(folder: Path, *, seed: int = 0, examples: int = 24) -> Parties:
        """Make a base model, a bundle, and a device's examples."""
        parties = Parties(folder)
        make_base(parties.base)
        make_bundle(parties.base, seed=seed).save(parties.bundle)
        write_csv(make_examples(examples), parties.data)
        return parties

    @property
    def base(self) -> Path:
        """The base model; beside the bundle, where commands look for it."""
        return self.folder / "base-model"

    @property
    def bundle(self) -> Path:
        """The bundle's folder."""
        return self.folder / "bundle"

    @property
    def data(self) -> Path:
        """The device's examples."""
        return self.folder / "examples.csv"

    @property
    def server(self) -> Path:
        """The server's state."""
        return self.folder / "server"

    @property
    def state(self) -> Path:
        """The device's state."""
        return self.folder / "device.state"

    @property
    def output(self) -> Path:
        """Where the device's certificate goes."""
        return self.folder / "my-device"

    @property
    def certificate(self) -> Path:
        """The device's certificate."""
        return self.output / "certificate.json"

    def key(self) -> Ed25519PrivateKey:
        """Return the device's signing key."""
        return read_key(self.folder / "device.key")

    def publish(self) -> None:
        """Publish the bundle."""
        _must(fedcert("server", "publish", self.bundle, "--state", self.server))

    def commit(self, *options: object, data: Path | None = None) -> str | None:
        """Commit to the examples; return what is wrong."""
        words = ("commit", data or self.data, "--client", CLIENT, "--bundle", self.bundle)
        kept = ("--key", self.folder / "device.key", "-o", self.folder / "commitment.json")
        return fedcert(*words, *kept, *options)

    def issue(self) -> str | None:
        """Have the seed issued; return what is wrong."""
        return fedcert(
            *("server", "issue-seed", self.folder / "commitment.json"),
            *("--state", self.server, "-o", self.folder / "seed.json"),
        )

    def personalize(self, *options: object, bundle: Path | None = None) -> str | None:
        """Personalize; return what is wrong."""
        words = ("personalize", self.data, "--client", CLIENT, "-o", self.output)
        kept = ("--bundle", bundle or self.bundle, "--key", self.folder / "device.key")
        return fedcert(*words, *kept, *options)

    def certify(self) -> None:
        """Go all the way from the bundle to a witnessed certificate."""
        self.publish()
        _must(self.commit())
        _must(self.issue())
        _must(self.personalize("--seed", self.folder / "seed.json"))

    def spent(self) -> int:
        """Count the device's examples that are spent."""
        purposes = DeviceState(self.state).spent.purposes(make_examples())
        return sum(purpose is not None for purpose in purposes)


def signed_anew(
    certificate: Certificate, key: Ed25519PrivateKey, **changes: Any
) -> Certificate:
    """Sign a certificate that is sound in itself but claims something else."""
    terms: dict[str, Any] = {
        "client": certificate.client,
        "recipe": certificate.recipe,
        "errors": certificate.errors,
        "certified_on": certificate.certified_on,
        "support_size": certificate.support_size,
        "labels": certificate.labels,
        "index": certificate.candidate.index,
        "seed": certificate.candidate.seed,
        "vector": certificate.adapter_vector,
        "digests": certificate.digests,
        "key": key,
        "protocol": certificate.protocol,
    }
    return issue(**(terms | changes))


def write_csv(examples: Examples, path: Path) -> None:
    """Write images as a user would have them: numbers and the name of the label."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"p{i}" for i in range(SIDE * SIDE)), "label"])
        for image, label in zip(examples.inputs, examples.labels, strict=True):
            writer.writerow([*image.ravel().tolist(), LABELS[int(label)]])


def _must(problem: str | None) -> None:
    if problem is not None:
        raise RuntimeError(f"the fault could not be set up: {problem}")
