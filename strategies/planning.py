"""The server's part in planning: who plans, what is asked, and the plan from the answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fedcert.adapters.finetune import FinetuneSettings
from fedcert.arrays import FloatArray
from fedcert.bundles import Bundle
from fedcert.certificates import Recipe
from fedcert.messages import PLAN, PlanReply, PlanRequest
from fedcert.planning import Objective, Plan, Posterior, Replayed, menu, replays_from_config
from fedcert.protocol.seeds import recipe_for_attempt
from fedcert.randomness import derive_seed
from fedcert.settings import RunSettings
from fedcert.strategies.correspondence import Request

__all__ = ["Planning", "planning_of"]


class Planning:
    """Gathers what planning clients replay, and makes the plan from it.

    Parameters
    ----------
    share : float
        Share of the upstream clients that plan instead of training an adapter.
    sizes : sequence of int
        Sizes of support sets to plan for, in increasing order.
    recipes : sequence of Recipe
        What is tried.
    seed : int
        Chooses the planning clients.
    most : int (default: 0)
        Most clients that plan; 0 for no limit.
    objective : str (default: "mean")
        ``"tail"``: recipes are chosen for the worst quarter of the planning clients.
    barred : collection of str
        Clients that must not plan: the base model has learned from them.
    """

    def __init__(
        self,
        *,
        share: float,
        sizes: Sequence[int],
        recipes: Sequence[Recipe],
        seed: int,
        most: int = 0,
        objective: Objective = "mean",
        barred: Collection[str] = (),
    ) -> None:
        self._barred = frozenset(barred)
        self._share, self._seed, self._most = share, seed, most
        self._objective: Objective = objective
        self._sizes, self._recipes = tuple(sizes), tuple(recipes)
        self._replays: dict[str, list[Replayed]] = {}
        self._draft: Bundle | None = None

    def clients_among(
        self,
        upstream: Sequence[str],
        *,
        pooled: Collection[str],
        must_train: int,
        known: Collection[str] = (),
        willing: Collection[str] = (),
    ) -> frozenset[str]:
        """Choose the planning clients, before anything is trained.

        A client's rank depends on the seed and its own id alone, so a run that goes on after
        a crash chooses the same ones. Those that were chosen in an earlier run stay, and
        others join them as the federation grows.

        Parameters
        ----------
        upstream : sequence of str
            Every upstream client that is there.
        pooled : collection of str
            Those whose adapters the server has, of all runs: they cannot plan any more.
        must_train : int
            Clients that are left to train in any case.
        known : collection of str
            Those that were chosen in earlier runs, be they there or not.
        willing : collection of str
            Those that say they would rather plan: they join before any other.

        Returns
        -------
        frozenset of str
            Ids of the planning clients.
        """
        trained = {*pooled} | self._barred
        known = {*known} - trained
        everyone = {*upstream} | trained | known
        count = min(round(self._share * len(everyone)), len(everyone) - must_train)
        count = min(count, self._most or count)
        free = sorted(
            {*upstream} - trained - known,
            key=lambda client: (
                client not in willing,
                derive_seed("planning client", self._seed, client),
            ),
        )
        joining = free[: max(0, count - len(known))]
        return frozenset(joining) | (known & {*upstream})

    def begin(self, draft: Bundle) -> None:
        """Take the bundle that planning clients replay the recipes with; it has no plan."""
        self._draft = draft

    def request(self, planners: Collection[str]) -> Request:
        """Return what planning clients are asked."""
        draft = self._begun()
        question = PlanRequest(
            draft.manifest_bytes().decode(),
            [recipe.to_config() for recipe in self._recipes],
            list(self._sizes),
        )
        return Request(PLAN, sorted(planners), question, draft.tensors())

    def take(self, client: str, payload: Mapping[str, Any]) -> None:
        """Keep a client's answer.

        Raises
        ------
        ProtocolError
            If it cannot be the answer to `request`.
        """
        # Clients replay what a new client's first attempt would certify.
        replayed = [recipe_for_attempt(recipe, 1) for recipe in self._recipes]
        self._replays[client] = replays_from_config(
            PlanReply.from_object(payload).replays, replayed, self._sizes
        )

    @property
    def answered(self) -> bool:
        """Whether any client planned."""
        return bool(self._replays)

    def plan(self) -> Plan | None:
        """Return the plan, or None if nobody answered."""
        if not self.answered:
            return None
        # In an order of their own: that of the answers differs from run to run.
        replays = [self._replays[client] for client in sorted(self._replays)]
        return Plan.of(self._recipes, replays, objective=self._objective)

    def planned(self, *, instead: Plan | None) -> Bundle:
        """Put the plan into the bundle that this began with.

        Parameters
        ----------
        instead : Plan or None
            That of the bundle before, which holds if nobody answered: it, too, was made
            without a look at a new client's example. Without it the table stays.
        """
        draft, plan = self._begun(), self.plan() or instead
        return draft if plan is None else draft.with_plan(plan)

    def _begun(self) -> Bundle:
        assert self._draft is not None  # planning follows a fit
        return self._draft


def planning_of(
    settings: RunSettings,
    constants: FloatArray,
    *,
    local_head: bool,
    posterior: Posterior | None,
    training: FinetuneSettings,
    barred: Collection[str],
) -> Planning | None:
    """Make the planning that a run's settings ask for.

    Parameters
    ----------
    settings : RunSettings
        The run's.
    constants : numpy.ndarray
        Adapters that always say one label, shape ``(K, d)``.
    local_head : bool
        Whether the base model has a head that could be trained alone.
    posterior : {"mean", "mode"} or None
        What of posteriors is tried if the settings leave it open.
    training : FinetuneSettings
        How clients train here.
    barred : collection of str
        Clients that must not plan.

    Returns
    -------
    Planning or None
        None if nothing is planned.
    """
    if not settings.planned:
        return None
    certificate, asked = settings.certificate, settings.planning.posterior
    return Planning(
        share=settings.planning.clients,
        most=settings.planning.most,
        objective=settings.planning.objective,
        sizes=settings.planning_sizes(),
        recipes=menu(
            candidates=certificate.candidates,
            **certificate.shares(),
            constants=len(constants),
            local_head=local_head,
            posterior=posterior if asked == "auto" else asked,
            training=training,
            randomized=certificate.randomized,
            first_share=certificate.first_share,
        ),
        seed=settings.seed,
        barred=barred,
    )
