"""The strategy `PooledPrior`: pool adapters, fit a prior, hand out bundles and seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from logging import INFO
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedcert.adapters.finetune import FinetuneSettings
from fedcert.adapters.space import AdapterSpace
from fedcert.bundles import Bundle
from fedcert.certificates import Certificate
from fedcert.errors import FedcertError, PoolError
from fedcert.flower_records import content, failure_cause, reply_of, size_of
from fedcert.messages import CERTIFY, COMMIT, NEW, PLAN, TRAIN
from fedcert.pool import Pool
from fedcert.priors.base import FloatArray
from fedcert.protocol.authority import SeedAuthority
from fedcert.protocol.witness import Countersignature
from fedcert.runs.events import EventSink, NoEvents
from fedcert.runs.failures import Failure
from fedcert.strategies.certification import Certification
from fedcert.strategies.correspondence import (
    Correspondence,
    Traffic,
    measurements_of,
    phase_of,
)
from fedcert.strategies.latest import LatestBundle
from fedcert.strategies.planning import Planning
from fedcert.strategies.roster import Roster, call_roll
from fedcert.strategies.uploads import Uploads

__all__ = ["Failure", "PooledPrior", "Traffic"]


class PooledPrior(Strategy):
    """Collects one adapter per upstream client, fits a prior, and serves new clients.

    It works with Flower's own ``strategy.start(grid, ArrayRecord(), num_rounds=...)``; use
    `rounds_needed` for the number. Each round asks up to `clients_per_round` upstream clients
    that are not in the pool yet. When none is left to ask, the prior is fitted once, and new
    clients get the bundle and commit to their examples; in the round after that they get their
    seeds and return their certificates. Pool and log are on disk: a run that died goes on where
    it stopped, and no attempt is counted twice.

    Given the `latest` bundle of an earlier run, nothing is fitted unless enough is new. If that
    is clear from the start, new clients are served first, and who trains after them does so for
    a later version.

    With `planning` some upstream clients train no adapter. They get the bundle, once the prior
    is fitted and before any new client does, and the bundle that is published has the recipe
    table of the plan made from their answers.

    Parameters
    ----------
    pool : Pool
        Where accepted adapters are kept.
    space : AdapterSpace
        The coordinates, sent to the clients along with their basis.
    fit : callable
        Makes the bundle, without a plan, from the pool's matrix ``(N, d)``.
    authority : SeedAuthority
        Issues the seeds, and keeps the log of them.
    training : FinetuneSettings
        How clients train.
    seed : int
        Of the clients' training.
    clients_per_round : int (default: 64)
        Clients asked at once.
    min_pool : int (default: 20)
        Fewest adapters with which a prior is fitted.
    timeout : float (default: 600)
        Seconds to wait for nodes to say who they are.
    planning : Planning, optional
        Who plans the recipe table; without it the one of `fit` stays.
    latest : LatestBundle, optional
        The bundle of an earlier run, and when it no longer serves.
    on_bundle : callable
        Given the bundle before it is published, be it a new one or the latest.
    events : EventSink, optional
        Told about what happens, for the run's event log.

    Attributes
    ----------
    bundle : Bundle or None
        What new clients get; None until the prior is fitted.
    certificates, witnesses : dict
        Verified certificates and their countersignatures by client id.
    measurements : dict
        Numbers that clients reported about their work, by client id.
    failures : list of Failure
        Who failed, when and why.
    traffic : Traffic
        Bytes up and down.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        space: AdapterSpace,
        fit: Callable[[FloatArray], Bundle],
        authority: SeedAuthority,
        training: FinetuneSettings,
        seed: int,
        clients_per_round: int = 64,
        min_pool: int = 20,
        timeout: float = 600.0,
        planning: Planning | None = None,
        latest: LatestBundle | None = None,
        on_bundle: Callable[[Bundle], object] = lambda _bundle: None,
        events: EventSink | None = None,
    ) -> None:
        self._events = events or NoEvents()
        self._pool, self._space, self._fit = pool, space, fit
        self._uploads = Uploads(pool=pool, space=space, training=training, seed=seed)
        self._certification = Certification(authority, self._events)
        self.certificates: dict[str, Certificate] = self._certification.certificates
        self.witnesses: dict[str, Countersignature] = self._certification.witnesses
        self._letters = Correspondence(self._events)
        self.traffic: Traffic = self._letters.traffic
        self._authority, self._timeout = authority, timeout
        self._per_round, self._min_pool = clients_per_round, min_pool
        self._planning, self._latest, self._on_bundle = planning, latest, on_bundle
        self._roster: Roster | None = None
        self._keeps_latest = False
        self._unplanned: Bundle | None = None
        self.bundle: Bundle | None = None
        self.measurements: dict[str, dict[str, float]] = {}
        self.failures: list[Failure] = []

    @property
    def planners(self) -> frozenset[str]:
        """The upstream clients that plan and never train; known once the roll is called."""
        return self._uploads.planners

    def summary(self) -> None:
        """Log what the strategy is set up to do."""
        log(INFO, "\tadapter space: d = %s, rank %s", self._space.dimension, self._space.rank)
        log(INFO, "\tpool: %s adapters, at least %s needed", len(self._pool), self._min_pool)

    def roster(self, grid: Grid) -> Roster:
        """Return who is there, asking all nodes the first time."""
        if self._roster is None:
            self._roster = call_roll(grid, grid.get_node_ids(), timeout=self._timeout)
            for node, cause in self._roster.failures.items():
                self._note_failure(Failure(f"node {node}", "hello", cause))
            if self._planning is not None:
                self._uploads.set_planners_aside(
                    self._planning, self._roster, must_train=self._min_pool
                )
            expected = self.fitted_clients() | set(self._pending_of(self._roster))
            self._keeps_latest = self._latest is not None and self._latest.suffices(expected)
        return self._roster

    def rounds_needed(self, grid: Grid) -> int:
        """Return how many rounds reach every upstream client and serve the new ones.

        Two of them serve new clients: first they commit, then they certify. These are the
        last two, of which the first one also trains, or plans; but the first two if the
        latest bundle serves, and then nobody trains before they are over.
        """
        training = -(-len(self.pending(grid)) // self._per_round)
        if self.serves_latest(grid):
            return training + 2
        return max(1, training) + (2 if self.planners else 1)

    def serves_latest(self, grid: Grid) -> bool:
        """Whether nothing will be fitted in this run, however many uploads come."""
        self.roster(grid)
        return self._keeps_latest

    def fitted_clients(self) -> frozenset[str]:
        """Return whose adapters a fit has as of now."""
        return self._pool.clients()

    def _serve_latest_first(self, grid: Grid) -> bool:
        """Hand out the latest bundle if it serves; whether new clients are to go first."""
        if self.bundle is None and self._latest is not None and self.serves_latest(grid):
            self._hand_out(self._latest.bundle)
        return self.bundle is not None and bool(self._uncertified(grid))

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask upstream clients that are not in the pool yet for an adapter, or for a plan."""
        self._events.record("round", number=server_round)
        if self._serve_latest_first(grid):
            return []
        if self._unplanned is not None and self.bundle is None:
            assert self._planning is not None
            return self._ask(
                grid,
                PLAN,
                sorted(self.planners),
                self._planning.question(self._unplanned),
                self._unplanned.tensors(),
            )
        clients = self.pending(grid)[: self._per_round]
        return self._ask(grid, TRAIN, clients, self._uploads.request(), dict(self._space.basis))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Pool what came, fit the prior once no client is left to ask, and plan after that."""
        for reply in replies:
            self.receive(reply)
        self._give_up()
        metrics = MetricRecord({"pooled": len(self._pool), "failed": len(self.failures)})
        if self.bundle is not None or self._roster is None or self._pending_of(self._roster):
            return None, metrics
        if self._unplanned is not None:
            return self._hand_out(self._planned(self._unplanned)), metrics
        if self._latest is not None and self._latest.suffices(self.fitted_clients()):
            return self._hand_out(self._latest.bundle), metrics
        if len(self._pool) < self._min_pool:
            log(INFO, "\tpool too small to fit a prior")
            return None, metrics
        fitted = self._fit(self._pool.matrix())
        if self.planners:
            self._unplanned = fitted
            return None, metrics
        return self._hand_out(self._planned(fitted)), metrics

    def _planned(self, bundle: Bundle) -> Bundle:
        if self._planning is None:
            return bundle
        instead = self._latest.plan if self._latest is not None else None
        return self._planning.planned(bundle, instead=instead)

    def _hand_out(self, bundle: Bundle) -> ArrayRecord | None:
        self._on_bundle(bundle)
        self.bundle = bundle
        # In the log before the first client can commit to it.
        self._authority.publish(bundle.digest, bundle.recipes)
        self._events.record("bundle-published", digest=bundle.digest, version=bundle.version)
        record = content({}, bundle.tensors())["arrays"]
        return record if isinstance(record, ArrayRecord) else None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the bundle to new clients, or their seeds to those that have committed."""
        if self.bundle is None:
            return []
        waiting, messages = self._uncertified(grid), []
        fresh = [c for c in waiting if not self._certification.has_committed(c)]
        for client in waiting:
            if client not in fresh:
                # One after the other in their order, not in that of their answers.
                messages += self._ask_for_certificate(grid, client)
        words = {"bundle": self.bundle.manifest_bytes().decode()}
        return messages + self._ask(grid, COMMIT, fresh, words, self.bundle.tensors())

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Verify and keep the certificates."""
        for reply in replies:
            self.receive(reply)
        self._give_up()
        if not self.certificates:
            return None
        bounds = [certificate.bound for certificate in self.certificates.values()]
        return MetricRecord(
            {"certificates": len(bounds), "mean-certificate": float(np.mean(bounds))}
        )

    def receive(self, reply: Message) -> None:
        """Take one reply, as soon as it comes or at the end of a round; once only."""
        taken = self._letters.take(reply)
        if taken is None:
            return
        client, phase = taken
        try:
            words = reply_of(reply)
            self.traffic.up[client] += (size := size_of(reply.content))
            self._events.record("received", message=phase, client=client, bytes_up=size)
            if (measured := measurements_of(reply)) is not None:
                self.measurements[client] = measured
            if phase == CERTIFY and self.bundle is not None:
                self._certification.take_certificate(client, words, self.bundle)
            elif phase == COMMIT and self.bundle is not None:
                self._certification.take_commitment(client, words, self.bundle)
            elif phase == PLAN and self._planning is not None:
                self._planning.take(client, words)
            else:
                self._take_adapter(client, words, reply)
        except FedcertError as error:
            kind = "upload-refused" if isinstance(error, PoolError) else "failure"
            self._fail(client, phase, str(error), kind=kind)

    def _take_adapter(self, client: str, words: dict[str, Any], reply: Message) -> None:
        self._uploads.take(client, words, reply, self.measurements.get(client, {}))
        self._events.record("upload-accepted", client=client)

    def _uncertified(self, grid: Grid) -> list[str]:
        done = self.certificates.keys() | {f.client for f in self.failures}
        return [c for c in self.roster(grid).clients(NEW) if c not in done]

    def _ask_for_certificate(self, grid: Grid, client: str) -> list[Message]:
        try:
            grant = self._certification.grant(client)
        except FedcertError as error:
            self._fail(client, COMMIT, str(error))
            return []
        return self._ask(grid, CERTIFY, [client], {"seed": grant.to_object()}, {})

    def _fail(self, client: str, phase: str, reason: str, *, kind: str = "failure") -> None:
        cause = failure_cause(reason)
        self._note_failure(Failure(client, phase_of(phase), cause), kind=kind)
        if phase == CERTIFY:
            self._certification.failed(client, cause)

    def pending(self, grid: Grid) -> list[str]:
        """Return the upstream clients that are to train in this run, sorted."""
        return self._pending_of(self.roster(grid))

    def _pending_of(self, roster: Roster) -> list[str]:
        return self._uploads.pending(roster, failed={f.client for f in self.failures})

    def _ask(
        self,
        grid: Grid,
        kind: str,
        clients: list[str],
        words: dict[str, Any],
        arrays: dict[str, Any],
    ) -> list[Message]:
        return self._letters.ask(self.roster(grid), kind, clients, words, arrays)

    def _give_up(self) -> None:
        """Count clients that sent nothing before the round's time was up as failed.

        A seed among them stays open in the log: the client may still come back with it.
        """
        for client, phase in self._letters.give_up():
            self._note_failure(Failure(client, phase_of(phase), "no answer in time"))

    def _note_failure(self, failure: Failure, *, kind: str = "failure") -> None:
        self.failures.append(failure)
        self._events.record(kind, **asdict(failure))
