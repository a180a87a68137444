"""A federation whose labels are the clients' own, one of its clients, and a server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from models.tiny_encoders import save_encoder
from tiny_text import tiny_texts

from fedcert.adapters import AdapterSpace, Task
from fedcert.bundles import Bundle
from fedcert.certificates import Certificate, RecipeTable, UnionRecipe
from fedcert.certificates.verification import VerificationReport
from fedcert.data import TextInputs
from fedcert.models import load_base_model, with_label_names
from fedcert.personalization import Personalization, commit_to, personalize
from fedcert.priors import GaussianPrior
from fedcert.protocol.authority import SeedAuthority
from fedcert.protocol.commitment import Commitment
from fedcert.protocol.device import DeviceState
from fedcert.protocol.seeds import SeedGrant
from fedcert.randomness import keyed_generator
from fedcert.records.signing import key_from_seed, sign
from fedcert.verification import verify

from .conftest import issued

__all__ = ["KEY", "NAMES", "Client", "signed"]

NAMES = ("bad0 bad1", "good3", "bad7 good2")  # the third is in no support set
KEY = key_from_seed(bytes(32))


class Client:
    """A federation whose labels are the clients', one of these, and a server."""

    def __init__(self, folder: Path, recipe: Any = None) -> None:
        source = save_encoder(folder / "source", "bert")
        made = with_label_names(
            source, folder / "base", pooling="mean", template="about {label}"
        )
        self.base = load_base_model(str(made))
        space = AdapterSpace.of(self.base, rank=2)
        pool = 0.3 * keyed_generator("own labels").standard_normal((20, space.dimension))
        recipe = recipe or UnionRecipe(candidates=8, delta=0.05)
        self.bundle = Bundle(
            base_name="base",
            base_revision="local",
            base_digest=self.base.digest,
            space=space,
            prior=GaussianPrior.fit(pool, seed=0),
            inputs=TextInputs.of(self.base.name, max_length=12),
            labels=(),
            recipes=RecipeTable(((1, recipe),)),
            notes={},
        )
        self.folder, self.server = folder, SeedAuthority(folder / "server")
        self.server.publish(self.bundle.digest, self.bundle.recipes)
        self.options: dict[str, Any] = {
            "client": "c",
            "key": KEY,
            "state": DeviceState(folder / "state"),
        }
        found = tiny_texts(40)
        self.examples = found.take(np.unique(found.inputs, return_index=True)[1])

    def task(self, names: tuple[str, ...] = NAMES, **options: Any) -> Task:
        return self.bundle.task(self.base, labels=names, **options)

    def commit(self, task: Task | None = None) -> Commitment:
        labels = (task or self.task()).label_set
        return commit_to(self.bundle, self.examples, labels=labels, **self.options)

    def personalize(self, grant: SeedGrant | None, task: Task | None = None) -> Personalization:
        return personalize(
            self.bundle,
            (task or self.task()).model(),
            self.examples,
            folder=self.folder / "out",
            grant=grant,
            **self.options,
        )

    def forge(self, certificate: Certificate, vector: Any) -> Certificate:
        """Sign another adapter, with the right count of its errors."""
        return issued(
            self.bundle,
            self.task(certificate.labels).model(),
            self.examples,
            certificate,
            vector,
            self.folder,
            labels=certificate.labels,
            label_texts=certificate.label_texts,
        )

    def verify(
        self, certificate: Certificate, *, data: bool = True, folder: str = "out/adapter"
    ) -> VerificationReport:
        return verify(
            certificate,
            bundle=self.bundle,
            adapter=self.folder / folder,
            data=self.examples if data else None,
            base=self.base,
        )

    def failed(self, certificate: Certificate, folder: str = "out/adapter") -> list[str]:
        report = self.verify(certificate, folder=folder)
        return [check.name for check in report.failures]


def signed(certificate: Certificate, **changes: Any) -> Certificate:
    changed = replace(certificate, **changes)
    value = sign(KEY, changed.payload())
    return replace(changed, signature=replace(changed.signature, value=value))
