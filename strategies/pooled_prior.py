"""The strategy `PooledPrior`: pool adapters, fit a prior, hand out bundles and seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

from fedcert.adapters.finetune import FinetuneSettings
from fedcert.adapters.space import AdapterSpace
from fedcert.arrays import FloatArray
from fedcert.bundles import Bundle
from fedcert.pool import Pool
from fedcert.protocol.authority import SeedAuthority
from fedcert.runs.events import Events
from fedcert.settings.run_config import settings_and_output
from fedcert.strategies.planning import Planning
from fedcert.strategies.prior_strategy import PriorStrategy
from fedcert.strategies.publishing import Publisher
from fedcert.strategies.registration import Registration
from fedcert.strategies.run import Run
from fedcert.strategies.sources import PooledSource

__all__ = ["PooledPrior"]


class PooledPrior(PriorStrategy):
    """Collects one adapter per upstream client, fits a prior, and serves new clients.

    `for_config` makes one from a run's settings, and `start` runs it. Each round asks up to
    `clients_per_round` upstream clients that are not in the pool yet. When none is left to
    ask, the prior is fitted once. `PriorStrategy` says what comes then, and what the
    attributes are.

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
    timeout : float (default: 3600)
        Seconds to wait for the replies of a round.
    planning : Planning, optional
        Who plans the recipe table; without it the one of `fit` stays.
    publisher, registration, events
        As in `PriorStrategy`.
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
        timeout: float = 3600.0,
        planning: Planning | None = None,
        publisher: Publisher | None = None,
        registration: Registration | None = None,
        events: Events | None = None,
    ) -> None:
        source = PooledSource(
            pool=pool,
            space=space,
            fit=fit,
            training=training,
            seed=seed,
            clients_per_round=clients_per_round,
            min_pool=min_pool,
            planning=planning,
        )
        super().__init__(
            source,
            space=space,
            authority=authority,
            timeout=timeout,
            publisher=publisher,
            registration=registration,
            events=events,
        )

    @classmethod
    def for_config(cls, config: Mapping[str, Any], *, events: Events | None = None) -> Self:
        """Make the strategy that a run's configuration asks for.

        Parameters
        ----------
        config : Mapping[str, Any]
            Flower's run config: settings by dotted names, and ``output``, the absolute path
            of the run folder. What is there goes on.
        events : Events, optional
            The stream of what happens.

        Raises
        ------
        SettingsError
            If the scenario or a setting does not fit.
        """
        settings, output = settings_and_output(config)
        run = Run.of(settings, output=output, events=events)
        return cls(**run.pooling(cls.__name__))
