"""The strategy behind all others here: from upstream clients to certificates, in phases."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from logging import INFO
from typing import cast

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedcert.adapters.space import AdapterSpace
from fedcert.bundles import Bundle
from fedcert.certificates import Certificate
from fedcert.errors import FedcertError, PoolError, RunError
from fedcert.messages import CERTIFY, COMMIT, NEW, PLAN, TRAIN
from fedcert.messages.flower import content, failure_cause
from fedcert.protocol.authority import SeedAuthority
from fedcert.protocol.witness import Countersignature
from fedcert.runs.events import Events
from fedcert.runs.failures import Failure
from fedcert.strategies.certification import Certification
from fedcert.strategies.correspondence import Correspondence, Request, Traffic
from fedcert.strategies.latest import LatestBundle
from fedcert.strategies.observed_grid import ObservedGrid
from fedcert.strategies.phases import SHOWN, Phase
from fedcert.strategies.publishing import Publisher
from fedcert.strategies.registration import Registration
from fedcert.strategies.result import PriorResult
from fedcert.strategies.roster import Roster, call_roll
from fedcert.strategies.sources import NoPriorError, PriorSource

__all__ = ["PriorStrategy"]


class PriorStrategy(Strategy):
    """Takes a prior from a source, and serves new clients with certificates.

    `start` runs all of it, phase by phase (`Phase`): the roll is called; the source asks
    upstream clients and fits the prior; planning clients, if there are any, replay recipes;
    new clients get the bundle and commit to their examples, and in the round after that they
    get their seeds and return their certificates. Pool and log are on disk: a run that died
    goes on where it stopped, and no attempt is counted twice.

    If it is clear from the start that the latest bundle of an earlier run serves, new clients
    are served first, and who trains after them does so for a later version.

    Parameters
    ----------
    source : PriorSource
        Asks upstream clients, and makes the bundle.
    space : AdapterSpace
        The coordinates of adapters.
    authority : SeedAuthority
        Issues the seeds, and keeps the log of them.
    timeout : float (default: 3600)
        Seconds to wait for the replies of a round.
    publisher : Publisher, optional
        The run folder: keeps bundles and certificates, and knows the latest bundle.
    registration : Registration, optional
        How many nodes `start` waits for.
    events : Events, optional
        The stream of what happens.

    Attributes
    ----------
    phase : Phase
        What the run is at.
    bundle : Bundle or None
        What new clients get; None until the prior is fitted.
    certificates, witnesses, failures, measurements, traffic
        As in `PriorResult`, so far.
    """

    def __init__(
        self,
        source: PriorSource,
        *,
        space: AdapterSpace,
        authority: SeedAuthority,
        timeout: float = 3600.0,
        publisher: Publisher | None = None,
        registration: Registration | None = None,
        events: Events | None = None,
    ) -> None:
        self.phase = Phase.ROLL_CALL
        self.source = source
        self._space, self._authority, self._timeout = space, authority, timeout
        self._publisher, self._registration = publisher, registration
        self._events = events or Events()
        self._certification = Certification(authority, self._events, publisher)
        self.certificates: dict[str, Certificate] = self._certification.certificates
        self.witnesses: dict[str, Countersignature] = self._certification.witnesses
        self._letters = Correspondence(self._events)
        self.traffic: Traffic = self._letters.traffic
        self.measurements: dict[str, dict[str, float]] = self._letters.measurements
        self.failures: list[Failure] = self._letters.failures
        self._roster: Roster | None = None
        self._no_prior = ""
        self.bundle: Bundle | None = None

    @property
    def planners(self) -> frozenset[str]:
        """The upstream clients that plan and never train; known once the roll is called."""
        return self.source.planners

    @property
    def _latest(self) -> LatestBundle | None:
        return None if self._publisher is None else self._publisher.latest

    def summary(self) -> None:
        """Log what it is set up to do."""
        space = self._space
        tied = f", {space.tied} numbers for all modules" if space.tied else ""
        log(INFO, "\tadapter space: d = %s, rank %s%s", space.dimension, space.rank, tied)
        log(INFO, "\t%s", self.source.summary())

    # The whole of it

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord | None = None,
        num_rounds: int | None = None,
        timeout: float | None = None,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> PriorResult:
        """Run all phases: Flower's own loop, on a grid that tells of each reply as it comes.

        Parameters
        ----------
        grid : Grid
            Flower's way to the nodes.
        initial_arrays : ArrayRecord, optional
            Not used: there is no global model to begin with.
        num_rounds : int, optional
            By default as many as it takes, and it is an error if they do not do the job.
        timeout : float, optional
            Seconds to wait for the replies of a round, if not those of the strategy.
        train_config, evaluate_config, evaluate_fn
            As in Flower's `Strategy.start`.

        Returns
        -------
        PriorResult
            Flower's `Result` with bundle, certificates, and failures.

        Raises
        ------
        RunError
            If the run could not do its job, or another one is at work in the same folder.
        BundleError, PoolError
            If what is there is damaged, or was made for other labels.
        """
        with self._publisher.reserved() if self._publisher else nullcontext():
            if self._registration is not None:
                first, kept = self._latest is None, self.source.kept
                self._registration.wait(grid, self._events, pooled=kept, must_fit=first)
            rounds = self.rounds_needed(grid) if num_rounds is None else num_rounds
            if self._registration is not None and self._latest is None:
                short = self.source.shortage(self.roster(grid), self.failures)
                self._registration.check(short, self._events)
            self._events.record("round", number=0, total=rounds)
            if not isinstance(grid, ObservedGrid):
                grid = cast(Grid, ObservedGrid(grid, self.receive))
            result = super().start(
                grid,
                ArrayRecord() if initial_arrays is None else initial_arrays,
                num_rounds=rounds,
                timeout=self._timeout if timeout is None else timeout,
                train_config=train_config,
                evaluate_config=evaluate_config,
                evaluate_fn=evaluate_fn,
            )
        outcome = PriorResult(
            **vars(result),
            bundle=self.bundle,
            certificates=self.certificates,
            witnesses=self.witnesses,
            failures=self.failures,
            measurements=self.measurements,
            traffic=self.traffic,
            no_prior=self._no_prior,
        )
        if num_rounds is None:
            new = len(self.roster(grid).clients(NEW))
            outcome.check_done(new_clients=new, min_pool=self.source.min_pool)
        return outcome

    # Roll call

    def roster(self, grid: Grid) -> Roster:
        """Return who is there, asking all nodes the first time."""
        if self._roster is None:
            self._events.phase(SHOWN[Phase.ROLL_CALL])
            nodes = grid.get_node_ids()
            self._roster = call_roll(grid, nodes, timeout=self._timeout, events=self._events)
            for node, cause in self._roster.failures.items():
                self._letters.note_failure(f"node {node}", "hello", cause)
            self.source.begin(self._roster)
            if not self._latest_serves():
                self._enter(self.source.phase)
        return self._roster

    @property
    def _called(self) -> Roster:
        """The roster, once the roll was called.

        Raises
        ------
        RunError
            If it was not: nobody is known to be there.
        """
        if self._roster is None:
            raise RunError("the roll was not called yet: begin with the strategy's `start`")
        return self._roster

    def _latest_serves(self) -> bool:
        """Whether nothing will be fitted in this run, however many uploads come."""
        if self._latest is None:
            return False
        clients = self.source.clients(self._called) | {*self._pending()}
        return self._latest.suffices(clients)

    def rounds_needed(self, grid: Grid) -> int:
        """Return how many rounds reach every upstream client and serve the new ones.

        In two of them new clients commit, then certify. These are the last two, of which the
        first one also trains, or plans; but the first two if the latest bundle serves.
        """
        roster, fits = self.roster(grid), self.phase is not Phase.ROLL_CALL
        asking = self.source.rounds(roster, failed=self._letters.failed, fits=fits)
        return asking + (1 if fits and not self.planners else 2)

    def _pending(self) -> list[str]:
        return self.source.pending(self._called, failed=self._letters.failed)

    def _enter(self, phase: Phase) -> None:
        """Go on to a phase, and tell it if there is something to do in it."""
        if phase is self.phase:
            return
        self.phase = phase
        shown = self.source.shown if phase is self.source.phase else SHOWN.get(phase)
        counts = {
            Phase.TRAIN: len(self._pending()),
            Phase.PLAN: len(self.planners),
            Phase.COMMIT: len(self._called.clients(NEW)),
        }
        steps = counts.get(phase)
        if shown is not None and steps != 0:
            self._events.phase(shown, steps)

    # Train, fit, and plan

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask what the source wants to know, or planning clients to plan."""
        self._events.record("round", number=server_round)
        roster = self.roster(grid)
        if self.phase is Phase.ROLL_CALL:
            assert self._latest is not None  # it serves
            self._publish(self._latest.bundle)
            if not self._uncertified() and self._pending():
                self._enter(self.source.phase)
        request: Request | None = None
        if self.phase is Phase.PLAN and self.source.planning is not None:
            request = self.source.planning.request(self.planners)
        elif self.phase is self.source.phase:
            request = self.source.request(roster, failed=self._letters.failed)
        return [] if request is None else self._letters.ask(roster, request)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Take what came, fit the prior once no client is left to ask, and plan after that."""
        self._receive_all(replies)
        metrics = MetricRecord({**self.source.metrics(), "failed": len(self.failures)})
        if self.bundle is not None or self._roster is None:
            return None, metrics
        bundle = None
        if self.phase is Phase.PLAN:
            bundle = self._planned()
        elif self._gathered():
            bundle = self._fitted()
        return None if bundle is None else self._publish(bundle), metrics

    def _gathered(self) -> bool:
        """Whether nobody is left to ask before a fit."""
        return not self._pending() and (self._latest_serves() or self.source.enough())

    def _fitted(self) -> Bundle | None:
        """Return the bundle that new clients get, unless there is more to ask."""
        if self._latest is not None and self._latest_serves():
            return self._latest.bundle  # too few uploads came for another one
        self._enter(Phase.FIT)
        try:
            bundle = self.source.fit()
        except NoPriorError as error:
            self._no_prior, latest = str(error), self._latest
            serves = latest is not None and not latest.outdated
            self._events.note(f"WARNING: {error}{'; the bundle before serves' * serves}")
            return latest.bundle if latest is not None and serves else None
        if bundle is None or self.source.planning is None:
            return bundle
        self.source.planning.begin(bundle)
        if not self.planners:
            return self._planned()
        self._enter(Phase.PLAN)
        return None

    def _planned(self) -> Bundle:
        assert self.source.planning is not None
        instead = self._latest.plan if self._latest is not None else None
        if instead is not None and not self.source.planning.answered:
            self._events.note("WARNING: no client planned: the plan of the bundle before stays")
        return self.source.planning.planned(instead=instead)

    def _publish(self, bundle: Bundle) -> ArrayRecord:
        """Put a bundle on the disk and into the log, before a client can commit to it."""
        if self.source.planning is not None and bundle.plan is None:
            self._events.note(
                "WARNING: no client planned (see planning.clients), so the recipe table of the "
                "settings stays"
            )
        if self._publisher is not None:
            self._publisher.keep(bundle, clients=self.source.clients(self._called))
        self._enter(Phase.COMMIT)
        self.bundle = bundle
        self._authority.publish(bundle.digest, bundle.recipes)
        self._events.record("bundle-published", digest=bundle.digest, version=bundle.version)
        return cast(ArrayRecord, content({}, bundle.tensors())["arrays"])

    # Commit, and certify

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the bundle to new clients, or their seeds to those that have committed."""
        if self.phase is Phase.COMMIT and self.bundle is not None:
            request = self._certification.request(self.bundle, self._uncertified())
            return self._letters.ask(self.roster(grid), request)
        clients = self._uncertified() if self.phase is Phase.CERTIFY else []
        # One after the other in their order, not in that of their answers.
        return [seed for client in clients for seed in self._seeds(self.roster(grid), client)]

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Verify and keep the certificates."""
        self._receive_all(replies)
        if self.phase is Phase.COMMIT:
            self._enter(Phase.CERTIFY)
        elif self.phase is Phase.CERTIFY and self._pending():
            self._enter(self.source.phase)  # for a later version
        return self._certification.metrics()

    def _uncertified(self) -> list[str]:
        done = self.certificates.keys() | self._letters.failed
        return [c for c in self._called.clients(NEW) if c not in done]

    def _seeds(self, roster: Roster, client: str) -> list[Message]:
        try:
            return self._letters.ask(roster, self._certification.grant(client))
        except FedcertError as error:
            self._fail(client, COMMIT, error)
            return []

    # Replies

    def receive(self, reply: Message) -> None:
        """Take a reply, once only; what came of it is on disk when this returns."""
        taken = self._letters.take(reply)
        if taken is None:
            return
        client, kind = taken
        done = kind != COMMIT  # whoever has committed is not done yet
        try:
            self._take(client, kind, reply)
        except FedcertError as error:
            self._fail(client, kind, error)
            done = True
        if done:
            self._events.advance()

    def _receive_all(self, replies: Iterable[Message]) -> None:
        """Take the replies of a round; who sent none in time has failed."""
        for reply in replies:
            self.receive(reply)
        self._letters.give_up()

    def _take(self, client: str, kind: str, reply: Message) -> None:
        payload = self._letters.read(client, kind, reply)
        if kind == CERTIFY and self.bundle is not None:
            self._certification.take_certificate(client, payload, self.bundle)
        elif kind == COMMIT and self.bundle is not None:
            self._certification.take_commitment(client, payload, self.bundle)
        elif kind == PLAN and self.source.planning is not None:
            self.source.planning.take(client, payload)
        else:
            self.source.take(client, payload, reply, self.measurements.get(client, {}))
            if kind == TRAIN:
                self._events.record("upload-accepted", client=client)

    def _fail(self, client: str, kind: str, error: FedcertError) -> None:
        cause, refused = failure_cause(str(error)), isinstance(error, PoolError)
        self._letters.note_failure(client, kind, cause, refused=refused)
        if kind == CERTIFY:
            self._certification.failed(client, cause)
