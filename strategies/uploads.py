"""The server's part for upstream clients: who trains, what it is sent, and what is taken."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from flwr.app import Message

from fedcert.adapters.finetune import FinetuneSettings
from fedcert.adapters.space import AdapterSpace
from fedcert.flower_records import arrays_of
from fedcert.messages import MU, UPSTREAM
from fedcert.pool import Pool
from fedcert.pool.validation import largest_upload
from fedcert.strategies.planning import Planning
from fedcert.strategies.roster import Roster

__all__ = ["Uploads"]


class Uploads:
    """Fills the pool: one adapter of each upstream client that does not plan.

    Parameters
    ----------
    pool : Pool
        Where accepted adapters are kept.
    space : AdapterSpace
        The coordinates, sent to the clients along with their basis.
    training : FinetuneSettings
        How clients train.
    seed : int
        Of the clients' training.

    Attributes
    ----------
    planners : frozenset of str
        The upstream clients of this run that plan and never train.
    """

    def __init__(
        self, *, pool: Pool, space: AdapterSpace, training: FinetuneSettings, seed: int
    ) -> None:
        self._pool, self._space = pool, space
        self._training, self._seed = training, seed
        self.planners: frozenset[str] = frozenset()

    def set_planners_aside(
        self, planning: Planning, roster: Roster, *, must_train: int
    ) -> None:
        """Choose who plans; the pool remembers, since such a client must not train later."""
        self.planners = planning.clients_among(
            roster.clients(UPSTREAM),
            pooled=self._pool.clients(),
            must_train=must_train,
            known=self._pool.planners(),
        )
        self._pool.set_aside(self.planners)

    def pending(self, roster: Roster, *, failed: Collection[str]) -> list[str]:
        """Return the clients that are to train and have not, nor failed; sorted."""
        # In one query: asking the pool about each client would open it once for each.
        done = {*failed} | self._pool.clients() | self.planners
        return [client for client in roster.clients(UPSTREAM) if client not in done]

    def request(self) -> dict[str, Any]:
        """Return what a client is told, beside the basis of the space."""
        return {
            "space": self._space.to_config(),
            "training": asdict(self._training),
            "seed": self._seed,
        }

    def take(
        self,
        client: str,
        words: Mapping[str, Any],
        reply: Message,
        measured: Mapping[str, float],
    ) -> None:
        """Check an upload and pool it.

        Raises
        ------
        FedcertError
            If its arrays are too large to be decoded, or damaged.
        PoolError
            If it is refused.
        """
        self._pool.add(
            client,
            arrays_of(reply.content, most=largest_upload(self._space)),
            space_digest=str(words.get("space")),
            examples=int(measured.get("num-examples", 0)),
            loss=float(measured.get("loss", float("nan"))),
            residual=float(measured.get("residual", 0.0)),
            mu=words.get(MU),
        )
