"""The source `FederatedSource`: fit a diffusion prior without collecting adapters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from logging import INFO
from typing import Any

import numpy as np
from flwr.app import Message
from flwr.common.logger import log

from fedcert.adapters.finetune import FinetuneSettings
from fedcert.adapters.space import AdapterSpace
from fedcert.bundles import Bundle
from fedcert.errors import PriorError
from fedcert.messages import CONTRIBUTE, UPSTREAM, QuestionRequest
from fedcert.messages.flower import arrays_of
from fedcert.named_arrays import largest_message, prefixed
from fedcert.priors import Prior
from fedcert.randomness import keyed_generator
from fedcert.strategies.correspondence import Request
from fedcert.strategies.federated_fit import (
    Arrays,
    FederatedTraining,
    Question,
    federated_fit,
    most_questions,
)
from fedcert.strategies.phases import Phase
from fedcert.strategies.roster import Roster
from fedcert.strategies.sources import NoPriorError, PriorSource

__all__ = ["NO_PRIVACY", "FederatedSource"]

NO_PRIVACY = (
    "no formal privacy: clients kept their adapters and sent terms of sums, but without "
    "secure aggregation the server could read an adapter off its terms, and without noise "
    "the sums themselves may tell who took part"
)


class FederatedSource(PriorSource):
    """Fits the prior from sums over upstream clients, which keep their adapters.

    Each round asks one question of all upstream clients that it is for. Sums hide outliers
    from the server, so hostile clients are not found here as they are in a pool: only answers
    of the wrong shape, or that are not finite, are refused. For the same reason nothing audits
    memorization.

    Parameters
    ----------
    space : AdapterSpace
        The coordinates, sent to the clients along with their basis.
    publish : callable
        Makes the bundle from the prior and the notes about it.
    training : FinetuneSettings
        How clients train their adapters.
    seed : int
        Of the clients' training and of the fit.
    denoising : FederatedTraining, optional
        How the fit goes about it.
    judges : float (default: 0.2)
        Share of the clients that only say when to stop.
    min_pool : int (default: 20)
        Fewest clients with which a prior is fitted, judges included.

    Attributes
    ----------
    judges : frozenset of str
        The clients that only say when to stop; empty before the roll is called.
    """

    phase = Phase.FIT
    # How many rounds it takes shows only in the end.
    shown = "fit the prior with the clients"

    def __init__(
        self,
        *,
        space: AdapterSpace,
        publish: Callable[[Prior, dict[str, Any]], Bundle],
        training: FinetuneSettings,
        seed: int,
        denoising: FederatedTraining = FederatedTraining(),  # noqa: B008
        judges: float = 0.2,
        min_pool: int = 20,
    ) -> None:
        self._space, self._publish, self._denoising = space, publish, denoising
        self._training = training.to_config()
        self._seed, self._judges_share, self.min_pool = seed, judges, min_pool
        self._dialogue = federated_fit(dimension=space.dimension, seed=seed, training=denoising)
        self._question: Question | None = next(self._dialogue)
        self._answers: dict[str, Arrays] = {}
        self.judges: frozenset[str] = frozenset()

    def begin(self, roster: Roster) -> None:
        """Choose who judges; that does not change."""
        everyone = roster.clients(UPSTREAM)
        order = keyed_generator("federated judges", self._seed).permutation(len(everyone))
        count = max(1, round(self._judges_share * len(order)))
        self.judges = frozenset(everyone[index] for index in order[:count])

    def summary(self) -> str:
        """Say how many clients it takes."""
        return f"no pool: sums over clients, at least {self.min_pool} needed"

    def rounds(self, roster: Roster, *, failed: Collection[str], fits: bool) -> int:
        """Return how many rounds the longest fit takes."""
        return most_questions(self._denoising) if fits else 0

    def request(self, roster: Roster, *, failed: Collection[str]) -> Request | None:
        """Ask the next question of those that it is for."""
        question = self._question
        if question is None:
            return None
        self._answers = {}
        clients = [
            client
            for client in roster.clients(UPSTREAM)
            if client not in failed and (client in self.judges) == (question.of == "judges")
        ]
        payload = QuestionRequest(
            space=self._space.to_config(),
            training=self._training,
            seed=self._seed,
            question={"kind": question.kind, "words": dict(question.words)},
        )
        arrays = prefixed("basis.", self._space.basis)
        arrays |= prefixed("question.", question.arrays)
        return Request(CONTRIBUTE, clients, payload, arrays)

    def take(
        self,
        client: str,
        payload: Mapping[str, Any],
        reply: Message,
        measured: Mapping[str, float],
    ) -> None:
        """Keep an answer until the round's sum is made."""
        if self._question is None:
            raise PriorError("nothing was asked")
        answer = arrays_of(reply.content, most=_largest_answer(self._question))
        _check_answer(answer, self._question)
        self._answers[client] = answer

    def metrics(self) -> dict[str, int]:
        """Count the answers of a round."""
        return {"answers": len(self._answers)}

    def fit(self) -> Bundle | None:
        """Add up the answers, and go on to the next question or to the bundle."""
        if self._question is None:
            return None
        count = len(self._answers)
        fewest = max(1, self.min_pool - len(self.judges)) if self._question.of == "fit" else 1
        if count < fewest:
            raise NoPriorError(f"{count} answers are too few for a sum; it takes {fewest}")
        # In the clients' order, not in that of arrival: a sum's last bits depend on it.
        sums: Arrays = {}
        for client in sorted(self._answers):
            for name, array in self._answers[client].items():
                sums[name] = sums.get(name, 0) + array.astype(np.float64)
        self._answers = {}
        try:
            self._question = self._dialogue.send((sums, count))
        except StopIteration as end:
            self._question = None
            return self._bundle(end.value)
        except (PriorError, np.linalg.LinAlgError) as error:
            self._question = None
            raise NoPriorError(f"the sums make no prior: {error}") from error
        return None

    def _bundle(self, prior: Prior) -> Bundle:
        notes = {
            "choice": f"federated {prior.kind} prior, {prior.noise_width} latent directions",
            "pool": 0,
            "memorization": "not audited: the server holds no adapters to compare with",
            "privacy": NO_PRIVACY,
        }
        log(INFO, "\t%s", notes["choice"])
        return self._publish(prior, notes)


def _largest_answer(question: Question) -> int:
    """Return the bytes that no answer exceeds in a message, in double precision."""
    return largest_message(question.expects.values())


def _check_answer(answer: Arrays, question: Question) -> None:
    """Raise `PriorError` unless an answer can be added to the others."""
    if {name: array.shape for name, array in answer.items()} != dict(question.expects):
        raise PriorError(f"its answer about {question.kind!r} does not have the right shape")
    for array in answer.values():
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise PriorError(
                f"its answer about {question.kind!r} holds something else than finite numbers"
            )
