"""A federation whose method reads inputs, one of its clients, and a server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tiny_models import Family

from fedcert.adapters import FinetuneSettings
from fedcert.adapters.statistics import layer_statistics
from fedcert.arrays import FloatArray
from fedcert.bundles import Bundle
from fedcert.certificates import Certificate, RecipeTable
from fedcert.certificates.verification import VerificationReport
from fedcert.data import Examples
from fedcert.methods import FederatedSettings, FedP2EFT, PersonalTraining
from fedcert.personalization import Personalization, commit_to, personalize
from fedcert.protocol.authority import SeedAuthority
from fedcert.protocol.commitment import Commitment
from fedcert.protocol.device import DeviceState
from fedcert.protocol.seeds import SeedGrant
from fedcert.randomness import keyed_generator
from fedcert.search import BatchedScorer, SupportSession
from fedcert.verification import verify

from .conftest import KEY, make_bundle

__all__ = ["Client", "N", "gated_bundle", "inputs_of"]

N = 40
_LOCAL = FinetuneSettings(steps=6, batch_size=16)


def gated_bundle(family: Family, **options: Any) -> Bundle:
    """Publish a net that says other gates for other inputs: nobody has to train it for that."""
    method = FedP2EFT(
        federated=FederatedSettings(rounds=1, local=_LOCAL),
        personal=PersonalTraining(settings=_LOCAL),
        **{"net_rounds": 1, "budget": 1.0, "scaled": True, **options},
    ).fitted_to(family.base)
    space = family.space(rank=2, last_layers=1)
    draw = keyed_generator("a net that tells inputs apart")
    state = {
        name: (0.1 * draw.standard_normal(array.shape)).astype(np.float32)
        if name.startswith("net.") and name.endswith("weight")
        else array
        for name, array in method.start(space, seed=0).items()
    }
    # What the net takes is how inputs differ from the usual ones, in small units.
    usual = layer_statistics(family.adapted(), family.examples(50, seed=8).inputs)
    state["pooled.mean"] = usual.astype(np.float32)
    state["pooled.deviation"] = np.full_like(state["pooled.mean"], 0.01)
    recipe = method.recipe({"delta": 0.05})
    return make_bundle(
        family,
        space=space,
        prior=method.published(space, state),
        recipes=RecipeTable(((1, recipe),)),
    )


def inputs_of(family: Family, scale: float, *, seed: int = 4) -> Examples:
    """Return images without labels, darker the smaller the scale: the net tells them apart."""
    drawn = family.examples(25, seed=seed)
    return replace(drawn, inputs=scale * drawn.inputs, labels=np.full(25, -1))


class Client:
    """A client with examples, some inputs without labels, and a server that it may ask."""

    def __init__(self, family: Family, folder: Path, **options: Any) -> None:
        self.bundle, self.folder, self.base = (
            gated_bundle(family, **options),
            folder,
            family.base,
        )
        self.model = self.bundle.task(family.base).model()
        self.examples = family.examples(N, seed=3)
        self.unlabeled = inputs_of(family, 0.3)
        self.server = SeedAuthority(folder / "server")
        self.server.publish(self.bundle.digest, self.bundle.recipes)
        self.options: dict[str, Any] = {
            "client": "c",
            "key": KEY,
            "state": DeviceState(folder / "state"),
        }

    def commit(self, unlabeled: Examples | None, **options: Any) -> Commitment:
        return commit_to(
            self.bundle, self.examples, unlabeled=unlabeled, **self.options, **options
        )

    def personalize(
        self, grant: SeedGrant | None, unlabeled: Examples | None, **options: Any
    ) -> Personalization:
        return personalize(
            self.bundle,
            self.model,
            self.examples,
            folder=self.folder / "out",
            grant=grant,
            unlabeled=unlabeled,
            **self.options,
            **options,
        )

    def verify(self, certificate: Certificate, **options: Any) -> VerificationReport:
        given: dict[str, Any] = {
            "adapter": self.folder / "out" / "adapter",
            "data": self.examples,
            "unlabeled": self.unlabeled,
        }
        return verify(certificate, bundle=self.bundle, base=self.base, **given | options)

    def finalist(
        self, certificate: Certificate, ordered: Examples, unlabeled: Examples | None
    ) -> FloatArray:
        """Return what the rule makes of examples in the order of a certificate's seed."""
        recipe = certificate.recipe
        session = SupportSession(
            recipe,
            self.bundle.prior,
            BatchedScorer(self.model, margin_tolerance=recipe.margin_tolerance),
            ordered,
            seed=certificate.candidate.seed,
            unlabeled=unlabeled,
        )
        [made] = recipe.refine(session.only(recipe.choosing(len(ordered))))
        return made
