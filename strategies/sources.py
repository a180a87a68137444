"""Where a prior comes from: what upstream clients are asked, and what is made of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from logging import INFO
from typing import Any

from flwr.app import Message
from flwr.common.logger import log

from fedcert.adapters.finetune import FinetuneSettings
from fedcert.adapters.space import AdapterSpace
from fedcert.arrays import FloatArray
from fedcert.bundles import Bundle
from fedcert.errors import FedcertError
from fedcert.messages import TRAIN, UPSTREAM, AdapterReply, AdapterRequest
from fedcert.messages.flower import arrays_of
from fedcert.methods import Method
from fedcert.pool import Pool
from fedcert.pool.validation import largest_upload
from fedcert.priors import Prior
from fedcert.runs.failures import Failure, causes_of
from fedcert.strategies.correspondence import Request
from fedcert.strategies.phases import Phase
from fedcert.strategies.planning import Planning
from fedcert.strategies.roster import Roster

__all__ = ["NoPriorError", "NothingSource", "PooledSource", "PriorSource"]


class NoPriorError(FedcertError):
    """What came makes no prior; the latest bundle serves, if there is one."""


class PriorSource(ABC):
    """Asks upstream clients, and makes a bundle, still without a plan, of their answers.

    In every method ``roster`` says who is there, and ``failed`` who is asked no more.

    Attributes
    ----------
    phase : Phase
        In which it asks.
    shown : str
        What that phase is called where people see it.
    min_pool : int
        Fewest clients with which a prior is fitted.
    planning : Planning or None
        How the recipe table is planned, if it is.
    planners : frozenset of str
        The upstream clients that plan and never train; known once the roll is called.
    """

    phase: Phase
    shown: str
    min_pool: int
    planning: Planning | None = None
    planners: frozenset[str] = frozenset()

    def begin(self, roster: Roster) -> None:  # noqa: B027
        """Hear who is there, before anybody is asked."""

    @property
    def kept(self) -> int:
        """Adapters that are there already, of earlier runs and this one."""
        return 0

    @abstractmethod
    def summary(self) -> str:
        """Say in a line what there is."""

    def clients(self, roster: Roster) -> frozenset[str]:
        """Return whose adapters a fit has as of now: by default of all that may be asked."""
        return frozenset(roster.clients(UPSTREAM))

    def pending(self, roster: Roster, *, failed: Collection[str]) -> list[str]:
        """Return who is to be asked before there is a fit, sorted.

        By default nobody: a round begins with whoever is there.
        """
        return []

    @abstractmethod
    def rounds(self, roster: Roster, *, failed: Collection[str], fits: bool) -> int:
        """Return how many rounds it asks at most.

        Parameters
        ----------
        roster : Roster
            The clients of the run.
        failed : collection of str
            Clients that are asked nothing any more.
        fits : bool
            Whether this run is to have a new prior.

        Returns
        -------
        int
            Number of rounds.
        """

    @abstractmethod
    def request(self, roster: Roster, *, failed: Collection[str]) -> Request | None:
        """Return what is asked in the next round; None if nothing is."""

    @abstractmethod
    def take(
        self,
        client: str,
        payload: Mapping[str, Any],
        reply: Message,
        measured: Mapping[str, float],
    ) -> None:
        """Check and keep an answer.

        Parameters
        ----------
        client : str
            Whose it is.
        payload : Mapping[str, Any]
            Its JSON object.
        reply : Message
            The whole of it, with its arrays.
        measured : Mapping[str, float]
            The finite numbers that the client reported.

        Raises
        ------
        FedcertError
            If it is refused.
        """

    @abstractmethod
    def metrics(self) -> dict[str, int]:
        """Count what a round brought."""

    def shortage(self, roster: Roster, failures: Sequence[Failure]) -> str:
        """Say, before anybody works, if no prior can come of who is there; else nothing.

        Parameters
        ----------
        roster : Roster
            Who is there.
        failures : sequence of Failure
            Why others are not.
        """
        failed = {failure.client for failure in failures}
        there = len(self.clients(roster) | {*self.pending(roster, failed=failed)})
        if there >= self.min_pool:
            return ""
        causes = causes_of(failures)
        return (
            f"setting 'server.min_pool': {there} clients train, or are in the pool, and a "
            f"prior takes {self.min_pool} adapters; start more upstream nodes, or lower "
            f"it{': ' + causes if causes else ''}"
        )

    def enough(self) -> bool:
        """Whether there is enough for a fit, once nobody is left to ask."""
        return True

    @abstractmethod
    def fit(self) -> Bundle | None:
        """Make the bundle; None if it takes the answers to another request.

        Raises
        ------
        NoPriorError
            If what came makes none.
        """


class PooledSource(PriorSource):
    """Pools one adapter of each upstream client that does not plan, and fits a prior to them.

    Parameters
    ----------
    pool : Pool
        Where accepted adapters are kept.
    space : AdapterSpace
        The coordinates, sent to the clients along with their basis.
    fit : callable
        Makes the bundle, without a plan, from the pool's matrix ``(N, d)``.
    training : FinetuneSettings
        How clients train.
    seed : int
        Of the clients' training.
    clients_per_round : int
        Clients asked at once.
    min_pool : int
        Fewest adapters with which a prior is fitted.
    planning : Planning, optional
        Who plans the recipe table.
    """

    phase = Phase.TRAIN
    shown = "train upstream adapters"

    def __init__(
        self,
        *,
        pool: Pool,
        space: AdapterSpace,
        fit: Callable[[FloatArray], Bundle],
        training: FinetuneSettings,
        seed: int,
        clients_per_round: int,
        min_pool: int,
        planning: Planning | None = None,
    ) -> None:
        self._pool, self._space, self._fit = pool, space, fit
        self._asked = AdapterRequest(space.to_config(), training.to_config(), seed)
        self._per_round, self.min_pool = clients_per_round, min_pool
        self.planning = planning

    def begin(self, roster: Roster) -> None:
        """Choose who plans; the pool remembers, since such a client must not train later."""
        if self.planning is None:
            return
        self.planners = self.planning.clients_among(
            roster.clients(UPSTREAM),
            pooled=self._pool.clients(),
            must_train=self.min_pool,
            known=self._pool.planners(),
            willing=roster.planners,
        )
        self._pool.set_aside(self.planners)

    @property
    def kept(self) -> int:
        """Adapters in the pool."""
        return len(self._pool)

    def summary(self) -> str:
        """Say how many adapters there are."""
        return f"pool: {self.kept} adapters, at least {self.min_pool} needed"

    def clients(self, roster: Roster) -> frozenset[str]:
        """Return whose adapters are in the pool, be they there or not."""
        return self._pool.clients()

    def pending(self, roster: Roster, *, failed: Collection[str]) -> list[str]:
        """Return the clients that are to train and have not, nor failed; sorted."""
        # In one query: asking the pool about each client would open it once for each.
        done = {*failed} | self._pool.clients() | self.planners
        return [client for client in roster.clients(UPSTREAM) if client not in done]

    def rounds(self, roster: Roster, *, failed: Collection[str], fits: bool) -> int:
        """Return how many rounds reach every upstream client; a fit takes one in any case."""
        count = -(-len(self.pending(roster, failed=failed)) // self._per_round)
        return max(1, count) if fits else count

    def request(self, roster: Roster, *, failed: Collection[str]) -> Request | None:
        """Ask the next clients for an adapter."""
        clients = self.pending(roster, failed=failed)[: self._per_round]
        return Request(TRAIN, clients, self._asked, dict(self._space.basis))

    def take(
        self,
        client: str,
        payload: Mapping[str, Any],
        reply: Message,
        measured: Mapping[str, float],
    ) -> None:
        """Check an upload and pool it."""
        upload = AdapterReply.from_object(payload)
        self._pool.add(
            client,
            arrays_of(reply.content, most=largest_upload(self._space)),
            space_digest=str(upload.space),
            examples=int(measured.get("num-examples", 0)),
            loss=float(measured.get("loss", float("nan"))),
            residual=float(measured.get("residual", 0.0)),
            mu=upload.mu,
        )

    def metrics(self) -> dict[str, int]:
        """Count the adapters in the pool."""
        return {"pooled": self.kept}

    def enough(self) -> bool:
        """Whether the pool is large enough for a prior."""
        if self.kept >= self.min_pool:
            return True
        log(INFO, "\tpool too small to fit a prior")
        return False

    def fit(self) -> Bundle:
        """Fit the prior to the pool."""
        return self._fit(self._pool.matrix())


class NothingSource(PriorSource):
    """Asks nobody anything: new clients learn from what they have.

    Parameters
    ----------
    method : Method
        Says what is published.
    space : AdapterSpace
        The coordinates of adapters.
    publish : callable
        Makes the bundle from the prior and the notes about it.
    """

    phase = Phase.FIT
    shown = "publish what new clients start from"
    min_pool = 0

    def __init__(
        self,
        method: Method,
        *,
        space: AdapterSpace,
        publish: Callable[[Prior, dict[str, Any]], Bundle],
    ) -> None:
        self._method, self._space, self._publish = method, space, publish

    def summary(self) -> str:
        """Say that nobody is asked."""
        return f"{self._method.title}: upstream clients are asked nothing"

    def clients(self, roster: Roster) -> frozenset[str]:
        """Return nobody."""
        return frozenset()

    def rounds(self, roster: Roster, *, failed: Collection[str], fits: bool) -> int:
        """Return one, in which the bundle is made."""
        return 1 if fits else 0

    def request(self, roster: Roster, *, failed: Collection[str]) -> None:
        """Ask nothing."""

    def take(
        self,
        client: str,
        payload: Mapping[str, Any],
        reply: Message,
        measured: Mapping[str, float],
    ) -> None:
        """Refuse whatever comes."""
        raise FedcertError("nothing was asked")

    def metrics(self) -> dict[str, int]:
        """Count nothing."""
        return {}

    def fit(self) -> Bundle:
        """Publish what the method starts new clients from."""
        prior = self._method.published(self._space, {})
        choice = f"{self._method.title}: no upstream client was asked"
        return self._publish(prior, {"choice": choice, "pool": 0})
