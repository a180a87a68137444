"""The strategy `PooledPrior`: pool adapters, fit a prior, hand out bundles and seeds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from logging import INFO, WARNING
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedcert.adapters.finetune import FinetuneSettings
from fedcert.adapters.space import AdapterSpace
from fedcert.bundle import Bundle
from fedcert.certificates import Certificate, verify_record
from fedcert.errors import CertificateError, FedcertError, ProtocolError
from fedcert.flower_records import arrays_of, content, failure_cause, reply_of, size_of
from fedcert.messages import CERTIFY, COMMIT, METRICS, NEW, PLAN, TRAIN, UPSTREAM
from fedcert.pool import Pool
from fedcert.priors.base import FloatArray
from fedcert.protocol.authority import SeedAuthority
from fedcert.protocol.commitment import Commitment
from fedcert.protocol.witness import Countersignature
from fedcert.strategies.planning import Planning
from fedcert.strategies.roster import Roster, call_roll
from fedcert.verification import check_bundle

__all__ = ["Failure", "PooledPrior", "Traffic"]


@dataclass(frozen=True)
class Failure:
    """Why a client did not do its part."""

    client: str
    phase: str
    cause: str


@dataclass
class Traffic:
    """Bytes of records, as the server counts them.

    Attributes
    ----------
    up, down : Counter
        Bytes by client id, from the clients and to them.
    """

    up: Counter[str] = field(default_factory=Counter)
    down: Counter[str] = field(default_factory=Counter)


class PooledPrior(Strategy):
    """Collects one adapter per upstream client, fits a prior, and serves new clients.

    It works with Flower's own ``strategy.start(grid, ArrayRecord(), num_rounds=...)``; use
    `rounds_needed` for the number. Each round asks up to `clients_per_round` upstream
    clients that are not in the pool yet. When none is left to ask, the prior is fitted once,
    and new clients get the bundle and commit to their examples; in the round after that they
    get their seeds and return their certificates. Pool and log are on disk: a run that died
    goes on where it stopped, and no attempt is counted twice.

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
        Who plans the recipe table, and among what; without it the one of `fit` stays.
    on_bundle : callable
        Given the bundle before it is published.

    Attributes
    ----------
    bundle : Bundle or None
        What new clients get; None until the prior is fitted.
    certificates : dict
        Verified certificates by client id.
    witnesses : dict
        Countersignatures of the certificates, likewise.
    measurements : dict
        Numbers that clients reported about their work, by client id.
    failures : list of Failure
        Who failed, when and why.
    planners : frozenset of str
        The upstream clients that plan; known once the roll is called.
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
        on_bundle: Callable[[Bundle], object] = lambda _bundle: None,
    ) -> None:
        self._pool, self._space, self._fit = pool, space, fit
        self._authority = authority
        self._training, self._seed = training, seed
        self._per_round, self._min_pool, self._timeout = (
            clients_per_round,
            min_pool,
            timeout,
        )
        self._planning, self._on_bundle = planning, on_bundle
        self._roster: Roster | None = None
        self.planners: frozenset[str] = frozenset()
        self._unplanned: Bundle | None = None
        self._outstanding: list[tuple[str, Message]] = []
        self._asked: dict[str, tuple[str, str]] = {}
        self._taken: set[str] = set()
        self.bundle: Bundle | None = None
        self._commitments: dict[str, Commitment] = {}
        self.certificates: dict[str, Certificate] = {}
        self.witnesses: dict[str, Countersignature] = {}
        self.measurements: dict[str, dict[str, float]] = {}
        self.failures: list[Failure] = []
        self.traffic = Traffic()

    def summary(self) -> None:
        """Log what the strategy is set up to do."""
        log(
            INFO,
            "\tadapter space: d = %s, rank %s",
            self._space.dimension,
            self._space.rank,
        )
        log(INFO, "\tpool: %s adapters so far, at least %s needed",
            len(self._pool), self._min_pool)  # fmt: skip

    def roster(self, grid: Grid) -> Roster:
        """Return who is there, asking all nodes the first time."""
        if self._roster is None:
            self._roster = call_roll(grid, grid.get_node_ids(), timeout=self._timeout)
            for node, cause in self._roster.failures.items():
                self.failures.append(Failure(f"node {node}", "hello", cause))
            if self._planning is not None:
                self.planners = self._planning.clients_among(
                    self._roster.clients(UPSTREAM),
                    pooled=(entry.client for entry in self._pool.entries()),
                    must_train=self._min_pool,
                )
        return self._roster

    def rounds_needed(self, grid: Grid) -> int:
        """Return how many rounds reach every upstream client and serve the new ones.

        The last two serve new clients: first they commit, then they certify. All rounds but
        the last one train; if there are planning clients, the last but one has them plan.
        """
        training = max(1, -(-len(self._pending(grid)) // self._per_round))
        return training + (2 if self.planners else 1)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask upstream clients that are not in the pool yet for an adapter, or for a plan."""
        if self._unplanned is not None and self.bundle is None:
            assert self._planning is not None
            return self._ask(
                grid,
                PLAN,
                sorted(self.planners),
                self._planning.question(self._unplanned),
                self._unplanned.tensors(),
            )
        words = {
            "space": self._space.to_config(),
            "training": asdict(self._training),
            "seed": self._seed,
        }
        basis = dict(self._space.basis)
        clients = self._pending(grid)[: self._per_round]
        return self._ask(grid, TRAIN, clients, words, basis)

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
        if len(self._pool) < self._min_pool:
            log(
                INFO,
                "\tpool too small to fit a prior: %s of %s",
                len(self._pool),
                self._min_pool,
            )
            return None, metrics
        fitted = self._fit(self._pool.matrix())
        if self.planners:
            self._unplanned = fitted
            return None, metrics
        return self._hand_out(self._planned(fitted)), metrics

    def _planned(self, bundle: Bundle) -> Bundle:
        """Put the plan into the bundle, if there is one."""
        if self._planning is None:
            return bundle
        plan = self._planning.plan()
        if plan is None:
            log(WARNING, "\tno client planned: the recipe table of the settings stays")
            return bundle
        return bundle.with_plan(plan)

    def _hand_out(self, bundle: Bundle) -> ArrayRecord | None:
        self._on_bundle(bundle)
        self.bundle = bundle
        # In the log before the first client can commit to it.
        self._authority.publish(bundle.digest, bundle.recipes)
        record = content({}, bundle.tensors())["arrays"]
        return record if isinstance(record, ArrayRecord) else None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the bundle to new clients, or their seeds to those that have committed."""
        if self.bundle is None:
            return []
        messages = []
        for client in self._uncertified(grid):
            if client in self._commitments:
                # One after the other in their order, not in that of their answers.
                messages += self._ask_for_certificate(grid, client)
        words = {"bundle": self.bundle.manifest_bytes().decode()}
        fresh = [c for c in self._uncertified(grid) if c not in self._commitments]
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
        asked = reply.metadata.reply_to_message_id
        if asked not in self._asked:
            # Flower gives a message its id only when it is sent.
            self._asked.update(
                (message.metadata.message_id, (client, message.metadata.message_type))
                for client, message in self._outstanding
            )
        if asked not in self._asked or asked in self._taken:
            return
        self._taken.add(asked)
        client, phase = self._asked[asked]
        try:
            words = reply_of(reply)
            self.traffic.up[client] += size_of(reply.content)
            self._note_measurements(client, reply)
            if phase == CERTIFY:
                self._take_certificate(client, words)
            elif phase == COMMIT:
                self._take_commitment(client, words)
            elif phase == PLAN and self._planning is not None:
                self._planning.take(client, words)
            else:
                self._take_adapter(client, words, reply)
        except FedcertError as error:
            self._fail(client, phase, str(error))

    def _take_adapter(self, client: str, words: dict[str, Any], reply: Message) -> None:
        measured = self.measurements.get(client, {})
        self._pool.add(
            client,
            arrays_of(reply.content),
            space_digest=str(words.get("space")),
            examples=int(measured.get("num-examples", 0)),
            loss=float(measured.get("loss", float("nan"))),
            residual=float(measured.get("residual", 0.0)),
        )

    def _uncertified(self, grid: Grid) -> list[str]:
        done = self.certificates.keys() | {f.client for f in self.failures}
        return [c for c in self.roster(grid).clients(NEW) if c not in done]

    def _ask_for_certificate(self, grid: Grid, client: str) -> list[Message]:
        try:
            grant = self._authority.issue(self._commitments[client])
        except FedcertError as error:
            self._fail(client, COMMIT, str(error))
            return []
        return self._ask(grid, CERTIFY, [client], {"seed": grant.to_object()}, {})

    def _take_commitment(self, client: str, words: dict[str, Any]) -> None:
        commitment = Commitment.from_object(words.get("commitment"))
        if commitment.client != client:
            raise ProtocolError(f"it sent the commitment of {commitment.client!r}")
        if self.bundle is None or commitment.bundle != self.bundle.digest:
            raise ProtocolError("it committed to another bundle than the one that it got")
        self._commitments[client] = commitment

    def _fail(self, client: str, phase: str, reason: str) -> None:
        cause = failure_cause(reason)
        self.failures.append(Failure(client, _short(phase), cause))
        if phase == CERTIFY and client in self._commitments:
            # A seed was issued: how the attempt ended belongs into the log.
            with suppress(ProtocolError):
                self._authority.abort(self._commitments[client].root, cause)

    def _take_certificate(self, client: str, words: dict[str, Any]) -> None:
        certificate = Certificate.from_json(str(words.get("certificate")))
        report = verify_record(certificate)
        if report.passed and self.bundle is not None:
            report = report.extended(check_bundle(certificate, self.bundle))
        if certificate.client != client:
            raise CertificateError(f"it sent the certificate of {certificate.client!r}")
        if not report.passed:
            reasons = "; ".join(check.detail for check in report.failures)
            raise CertificateError(f"its certificate does not verify: {reasons}")
        self.witnesses[client] = self._authority.countersign(certificate)
        self.certificates[client] = certificate

    def _note_measurements(self, client: str, reply: Message) -> None:
        record = reply.content.get(METRICS)
        if isinstance(record, MetricRecord):
            self.measurements[client] = {
                name: float(value)
                for name, value in record.items()
                if isinstance(value, int | float) and math.isfinite(value)
            }

    def _pending(self, grid: Grid) -> list[str]:
        return self._pending_of(self.roster(grid))

    def _pending_of(self, roster: Roster) -> list[str]:
        done = {failure.client for failure in self.failures} | self.planners
        return [c for c in roster.clients(UPSTREAM) if c not in done and c not in self._pool]

    def _ask(
        self,
        grid: Grid,
        message_type: str,
        clients: list[str],
        words: dict[str, Any],
        arrays: dict[str, Any],
    ) -> list[Message]:
        """Make one message per client; a list, since Flower's grid iterates twice."""
        nodes = self.roster(grid).nodes
        records = content(words, arrays)
        size = size_of(records)
        messages = []
        for client in clients:
            message = Message(records, dst_node_id=nodes[client], message_type=message_type)
            self.traffic.down[client] += size
            messages.append(message)
        self._outstanding += zip(clients, messages, strict=True)
        return messages

    def _give_up(self) -> None:
        """Count clients that sent nothing before the round's time was up as failed.

        A seed among them stays open in the log: the client may still come back with it.
        """
        for client, message in self._outstanding:
            if message.metadata.message_id not in self._taken:
                phase = _short(message.metadata.message_type)
                self.failures.append(Failure(client, phase, "no answer in time"))
        self._outstanding = []


def _short(message_type: str) -> str:
    names = {
        TRAIN: "training",
        PLAN: "planning",
        COMMIT: "commitment",
        CERTIFY: "certification",
    }
    return names.get(message_type, message_type)
