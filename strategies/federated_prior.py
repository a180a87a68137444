"""The strategy `FederatedPrior`: fit a diffusion prior without collecting adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from logging import INFO, WARNING
from math import prod
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid

from fedcert.adapters.finetune import FinetuneSettings
from fedcert.adapters.space import AdapterSpace
from fedcert.bundles import Bundle
from fedcert.errors import PriorError
from fedcert.flower_records import arrays_of
from fedcert.messages import CONTRIBUTE, UPSTREAM
from fedcert.pool import Pool
from fedcert.priors import Prior
from fedcert.protocol.authority import SeedAuthority
from fedcert.randomness import keyed_generator
from fedcert.runs.events import EventSink
from fedcert.strategies.federated_fit import (
    Arrays,
    FederatedTraining,
    Question,
    federated_fit,
    most_questions,
)
from fedcert.strategies.latest import LatestBundle
from fedcert.strategies.pooled_prior import PooledPrior

__all__ = ["NO_PRIVACY", "FederatedPrior"]

NO_PRIVACY = (
    "no formal privacy: clients kept their adapters and sent terms of sums, but without "
    "secure aggregation the server could read an adapter off its terms, and without noise "
    "the sums themselves may tell who took part"
)


# What an array's name, shape, and format take in a message, generously.
_OVERHEAD = 4096


class FederatedPrior(PooledPrior):
    """Fits the prior from sums over upstream clients, and serves new clients as its parent.

    Each round asks one question of all upstream clients that it is for; `rounds_needed` is
    the number of questions and two rounds for new clients. Sums hide outliers from the
    server, so hostile clients are not found here as they are in a pool: only answers of the
    wrong shape, or that are not finite, are refused. For the same reason nothing audits
    memorization.

    Parameters
    ----------
    pool : Pool
        Stays empty.
    space : AdapterSpace
        The coordinates, sent to the clients along with their basis.
    publish : callable
        Makes the bundle from the prior and the notes about it.
    authority : SeedAuthority
        Issues the new clients' seeds.
    training : FinetuneSettings
        How clients train their adapters.
    seed : int
        Of the clients' training and of the fit.
    denoising : FederatedTraining
        How the fit goes about it.
    judges : float (default: 0.2)
        Share of the clients that only say when to stop.
    min_pool : int (default: 20)
        Fewest clients with which a prior is fitted, judges included.
    timeout : float (default: 600)
        Seconds to wait for nodes to say who they are.
    latest, on_bundle, events
        As in `PooledPrior`, where `latest` names the clients that were asked.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        space: AdapterSpace,
        publish: Callable[[Prior, dict[str, Any]], Bundle],
        authority: SeedAuthority,
        training: FinetuneSettings,
        seed: int,
        denoising: FederatedTraining = FederatedTraining(),  # noqa: B008
        judges: float = 0.2,
        min_pool: int = 20,
        timeout: float = 600.0,
        latest: LatestBundle | None = None,
        on_bundle: Callable[[Bundle], object] = lambda _bundle: None,
        events: EventSink | None = None,
    ) -> None:
        super().__init__(
            pool=pool,
            space=space,
            fit=_unused,
            authority=authority,
            training=training,
            seed=seed,
            min_pool=min_pool,
            timeout=timeout,
            latest=latest,
            on_bundle=on_bundle,
            events=events,
        )
        self._publish, self._denoising, self._judges_share = publish, denoising, judges
        self._seed = seed
        self._dialogue = federated_fit(dimension=space.dimension, seed=seed, training=denoising)
        self._question: Question | None = next(self._dialogue)
        self._answers: dict[str, Arrays] = {}

    def rounds_needed(self, grid: Grid) -> int:
        """Return how many rounds the longest fit takes, and one more to certify."""
        return 2 if self.serves_latest(grid) else most_questions(self._denoising) + 1

    def fitted_clients(self) -> frozenset[str]:
        """Return the clients that are asked, which keep their adapters."""
        return (
            frozenset() if self._roster is None else frozenset(self._roster.clients(UPSTREAM))
        )

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the next question."""
        self._events.record("round", number=server_round)
        if self._serve_latest_first(grid) or self._question is None or self.bundle is not None:
            return []
        question = self._question
        asked = {"question": {"kind": question.kind, "words": dict(question.words)}}
        words = self._uploads.request() | asked
        sent = {f"basis.{name}": array for name, array in self._space.basis.items()}
        sent |= {f"question.{name}": array for name, array in question.arrays.items()}
        self._answers = {}
        return self._ask(grid, CONTRIBUTE, self._asked_clients(grid, question), words, sent)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Add up the answers, and go on to the next question or to the bundle."""
        for reply in replies:
            self.receive(reply)
        self._give_up()
        count = len(self._answers)
        metrics = MetricRecord({"answers": count, "failed": len(self.failures)})
        if self._question is None or self.bundle is not None:
            return None, metrics
        judges = len(self.judges)
        fewest = max(1, self._min_pool - judges) if self._question.of == "fit" else 1
        if count < fewest:
            few = f"{count} answers are too few for a sum; it takes {fewest}"
            return self._serve_latest(few), metrics
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
            return self._finish(end.value), metrics
        except (PriorError, np.linalg.LinAlgError) as error:
            self._question = None
            return self._serve_latest(f"the sums make no prior: {error}"), metrics
        return None, metrics

    def _serve_latest(self, reason: str) -> ArrayRecord | None:
        """Hand out the latest bundle instead of a fit, if it is what the settings ask for."""
        log(WARNING, "\t%s", reason)
        if self._latest is None or self._latest.outdated:
            return None
        return self._hand_out(self._latest.bundle)

    def _asked_clients(self, grid: Grid, question: Question) -> list[str]:
        """Split the clients that have not failed; who judges does not change."""
        judges = self.judges
        left_out = {failure.client for failure in self.failures}
        return [
            client
            for client in self.roster(grid).clients(UPSTREAM)
            if client not in left_out and (client in judges) == (question.of == "judges")
        ]

    @property
    def judges(self) -> frozenset[str]:
        """The clients that only say when to stop; empty before the roll is called."""
        if self._roster is None:
            return frozenset()
        everyone = self._roster.clients(UPSTREAM)
        order = keyed_generator("federated judges", self._seed).permutation(len(everyone))
        count = max(1, round(self._judges_share * len(order)))
        return frozenset(everyone[index] for index in order[:count])

    def _take_adapter(self, client: str, words: dict[str, Any], reply: Message) -> None:
        """Keep an answer until the round's sum is made."""
        if self._question is None:
            raise PriorError("nothing was asked")
        answer = arrays_of(reply.content, most=_largest_answer(self._question))
        _check_answer(answer, self._question)
        self._answers[client] = answer

    def _finish(self, prior: Prior) -> ArrayRecord | None:
        notes = {
            "choice": f"federated {prior.kind} prior, {prior.noise_width} latent directions",
            "pool": 0,
            "memorization": "not audited: the server holds no adapters to compare with",
            "privacy": NO_PRIVACY,
        }
        log(INFO, "\t%s", notes["choice"])
        return self._hand_out(self._publish(prior, notes))


def _largest_answer(question: Question) -> int:
    """Return the bytes that no answer exceeds in a message, in double precision."""
    return sum(8 * prod(shape) + _OVERHEAD for shape in question.expects.values())


def _check_answer(answer: Arrays, question: Question) -> None:
    """Raise `PriorError` unless an answer can be added to the others."""
    if {name: array.shape for name, array in answer.items()} != dict(question.expects):
        raise PriorError(f"its answer about {question.kind!r} does not have the right shape")
    for array in answer.values():
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise PriorError(
                f"its answer about {question.kind!r} holds something else than finite numbers"
            )


def _unused(_pool: Any) -> Bundle:
    raise AssertionError("a federated prior is not fitted to a pool")
