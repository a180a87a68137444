"""The strategy `WarmStart`: rounds in which upstream clients improve the base model."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import cast

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedcert.adapters.space import AdapterSpace
from fedcert.errors import FedcertError, RunError, SettingsError
from fedcert.messages import BASE, UPSTREAM, WARM, BaseRequest, Payload, WarmRequest
from fedcert.messages.flower import failure_cause
from fedcert.models.base import BaseModel
from fedcert.named_arrays import prefixed
from fedcert.pool.locking import only_one
from fedcert.runs.events import Events
from fedcert.runs.failures import causes_of
from fedcert.settings.sections import WarmStartSettings
from fedcert.strategies.correspondence import Correspondence, Request
from fedcert.strategies.observed_grid import ObservedGrid
from fedcert.strategies.planning import Planning
from fedcert.strategies.roster import Roster, call_roll
from fedcert.strategies.trunk_privacy import PrivateRounds, TrunkPrivacy
from fedcert.strategies.trunk_rounds import Answer, Figures, TrunkRounds
from fedcert.strategies.warmed import Warmed
from fedcert.warm_start import Trunk, TrunkTraining, merge
from fedcert.warm_start.outer import ServerOptimizer
from fedcert.warm_start.progress import WarmProgress

__all__ = ["WarmStart"]


class WarmStart(Strategy):
    """Averages how far clients moved a common trunk, and makes a new base model of it.

    Each round goes to some of the upstream clients, by a seed and their stable ids. What they
    send is checked, shortened if it is much longer than the others, and averaged with capped
    weights, one client at a time. After the last round the trunk is merged into the weights,
    and every node makes the same base model of the last trunk: `Trunk.add_to` gives the same
    bits everywhere, and the digest proves it. Planners, and clients by which training was
    tuned, are in no trunk.

    The trunk is on the disk after each round, and a run that died goes on after it.

    Parameters
    ----------
    base : BaseModel
        As it is before.
    space : AdapterSpace
        Of the clients' personal adapters; sent along with its basis.
    settings : WarmStartSettings
        Rounds, clients, and the server's optimizer.
    training : TrunkTraining
        How clients train.
    folder : Path
        Where progress and the new base model are kept.
    seed : int
        Draws A, clients, and batches.
    planning : Planning, optional
        Who plans the recipe table afterwards.
    must_train : int (default: 0)
        Clients that are left to train an adapter in any case.
    tuners : collection of str
        Clients by whose examples the training was tuned.
    timeout : float (default: 3600)
        Seconds to wait for the replies of a round.
    privacy : TrunkPrivacy, optional
        What is promised about clients, where the settings ask for it. Then rounds are dealt
        out among those who are there at the first one, and moves are shortened to a fixed norm.
    events : Events, optional
        The stream of what happens.

    Raises
    ------
    SettingsError
        If the settings ask for a promise, and none is given.
    RunError
        If the folder holds a warm start with other settings.
    """

    def __init__(
        self,
        *,
        base: BaseModel,
        space: AdapterSpace,
        settings: WarmStartSettings,
        training: TrunkTraining,
        folder: Path,
        seed: int,
        planning: Planning | None = None,
        must_train: int = 0,
        tuners: Collection[str] = (),
        timeout: float = 3600.0,
        privacy: TrunkPrivacy | None = None,
        events: Events | None = None,
    ) -> None:
        if settings.epsilon and privacy is None:
            raise SettingsError(
                "setting 'warm_start.epsilon': a WarmStart of your own takes the promise, too: "
                "privacy = TrunkPrivacy.of(settings)"
            )
        self._base, self._space, self._settings = base, space, settings
        self._training, self._seed, self._timeout = training, seed, timeout
        self._planning, self._must_train = planning, must_train
        self._tuners = frozenset(tuners)
        self._folder, self._events = folder, events or Events()
        self.trunk = Trunk.of(base, rank=settings.rank, seed=seed)
        self._identity = {
            "trunk": self.trunk.to_config(),
            "space": space.to_config(),
            "training": training.to_config(),
            "settings": settings.identity(),
            "seed": seed,
            **({"privacy delta": privacy.promise.delta} if privacy else {}),
        }
        self.progress = WarmProgress.read(self._file, self.trunk, self._identity)
        parts = settings, self.progress, self.trunk, seed, folder
        self._rounds = TrunkRounds(*parts)
        if privacy is not None:
            self._rounds = PrivateRounds(*parts, privacy=privacy)
        self._optimizer = ServerOptimizer(
            settings.server_rate, settings.momentum, settings.nesterov, self.progress.moments
        )
        self._letters = Correspondence(self._events)
        self._roster: Roster | None = None
        self._answers: dict[str, Answer] = {}
        self._bytes: tuple[int, int] = (0, 0)

    @property
    def _file(self) -> Path:
        return self._folder / "trunk.safetensors"

    def summary(self) -> None:
        """Do nothing: events say what happens."""

    def run(self, grid: Grid) -> Warmed:
        """Do the rounds that are left, and let every node make the new base model.

        Parameters
        ----------
        grid : Grid
            Flower's way to the nodes.

        Returns
        -------
        Warmed
            The new base model, and how it came about.

        Raises
        ------
        RunError
            If no client could train in some round, or another run is at work in the folder.
        """
        with only_one(self._folder / "lock", what=f"the warm start in {self._folder}"):
            roster = self._call(grid)
            left = self._settings.rounds - len(self.progress.rounds)
            if left > 0:
                self._choose(roster)
                self._rounds.begin()
                expected = self._settings.clients_per_round or len(self._trainers(roster))
                self._events.phase("warm up the base model", left * expected)
                watched = cast(Grid, ObservedGrid(grid, self._receive))
                self.start(watched, ArrayRecord(), num_rounds=left, timeout=self._timeout)
            return self._finish(grid, roster)

    # Rounds

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the trunk to the clients of the next round."""
        roster = self._called
        number = len(self.progress.rounds) + 1
        self._events.record("round", number=number, total=self._settings.rounds)
        self._answers, self._bytes = {}, self._counted()
        names = self._rounds.drawn(self._trainers(roster), roster.nodes)
        if not names:
            raise RunError(f"no upstream client is left to train the trunk{self._causes()}")
        self._rounds.publish()
        words = WarmRequest(
            trunk=self.trunk.to_config(),
            space=self._space.to_config(),
            training=self._training.to_config(),
            done=(number - 1) * self._training.steps,
            seed=self._seed,
        )
        arrays_sent = prefixed("basis.", self._space.basis)
        arrays_sent |= prefixed("trunk.", self.progress.tensors)
        return self._letters.ask(roster, Request(WARM, names, words, arrays_sent))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average what came, move the trunk, and write it down."""
        for reply in replies:
            self._receive(reply)
        self._letters.give_up()
        if not self._answers:
            number = len(self.progress.rounds) + 1
            raise RunError(f"no client could train the trunk in round {number}{self._causes()}")
        mean, said = self._rounds.mean(self._answers, self._trainers(self._called))
        self.progress.tensors = self._optimizer.step(self.progress.tensors, mean)
        self._note_round(said)
        self._answers = {}
        return None, MetricRecord({**said})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask nothing: clients report the loss before their joint steps as they train."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Return None: nothing was asked."""

    def _note_round(self, said: Figures) -> None:
        up, down = (
            now - before for now, before in zip(self._counted(), self._bytes, strict=True)
        )
        if self._settings.epsilon:
            # Who failed is no figure of a private round: what all who were asked would send.
            up = int(said["clients"]) * sum(t.nbytes for t in self.progress.tensors.values())
        progress = self.progress
        progress.moments = self._optimizer.moments
        progress.rounds.append({**said, "bytes_up": up, "bytes_down": down})
        # Before anybody sees the trunk: what a run that died has not written, it did not send.
        progress.save(self._file, self._identity)

    # Replies

    def _receive(self, reply: Message) -> None:
        """Check a reply, once only."""
        taken = self._letters.take(reply)
        if taken is None:
            return
        client, kind = taken
        try:
            self._letters.read(client, kind, reply)
            if kind == WARM:
                said = self._letters.measurements.get(client, {})
                self._answers[client] = Answer.checked(reply, said, self.trunk)
        except FedcertError as error:
            cause = failure_cause(str(error))
            self._letters.note_failure(client, kind, cause, refused=not reply.has_error())
        self._events.advance()

    def _counted(self) -> tuple[int, int]:
        traffic = self._letters.traffic
        return sum(traffic.up.values()), sum(traffic.down.values())

    # Who is there

    @property
    def _called(self) -> Roster:
        """The roster, once `run` called the roll."""
        if self._roster is None:
            raise RunError("the roll was not called yet: begin with the strategy's `run`")
        return self._roster

    def _call(self, grid: Grid) -> Roster:
        self._events.phase("call the roll")
        nodes = grid.get_node_ids()
        self._roster = call_roll(grid, nodes, timeout=self._timeout, events=self._events)
        return self._roster

    def _choose(self, roster: Roster) -> None:
        """Decide who stays out of the trunk, before anybody trains; that does not change."""
        progress, planners = self.progress, frozenset[str]()
        if self._planning is not None:
            planners = self._planning.clients_among(
                roster.clients(UPSTREAM),
                pooled=progress.clients,
                must_train=self._must_train,
                known=progress.planners,
                willing=roster.planners,
            )
        progress.planners = sorted({*progress.planners, *planners})
        self._rounds.choose(self._trainers(roster))
        progress.save(self._file, self._identity)

    def _trainers(self, roster: Roster) -> list[str]:
        apart = {*self.progress.planners} | self._tuners | self._letters.failed
        return [name for name in roster.clients(UPSTREAM) if name not in apart]

    def _causes(self) -> str:
        listed = causes_of(self._letters.failures)
        return f": {listed}" if listed else ""

    # The new base model

    def _finish(self, grid: Grid, roster: Roster) -> Warmed:
        self._events.phase("merge the trunk")
        self._rounds.publish()
        promise = self._rounds.promise()
        about = {
            "rounds": len(self.progress.rounds),
            "clients": len(self.progress.clients),
            "trunk": {"rank": self.trunk.rank, "seed": self.trunk.seed},
            "settings": self._settings.model_dump(),
            "training": self._training.to_config(),
            **({"privacy": promise} if promise else {}),
        }
        folder, digest = merge(
            Path(self._base.name), self.trunk, self.progress.tensors, self._folder, about=about
        )
        self._events.record("base-merged", digest=digest, before=self._base.digest)
        request = BaseRequest(self.trunk.to_config(), digest, about)
        self._hand_out(grid, roster, request)
        return Warmed(
            folder,
            self._base.digest,
            digest,
            frozenset(self.progress.clients),
            frozenset(self.progress.planners),
            self.progress.rounds,
            self._letters.failures,
            self._letters.traffic,
            promise,
        )

    def _hand_out(self, grid: Grid, roster: Roster, request: Payload) -> None:
        """Let every node make the new base model; one that does not gets no further anyway."""
        names = sorted(roster.nodes)
        self._events.phase("hand out the base model", len(names))
        asked = Request(BASE, names, request, self.progress.tensors)
        messages = self._letters.ask(roster, asked)
        watched = ObservedGrid(grid, self._receive)
        for reply in watched.send_and_receive(messages, timeout=self._timeout):
            self._receive(reply)
        self._letters.give_up()
