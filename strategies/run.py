"""A run's settings, opened: the parts of its strategy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedcert.adapters.constants import constant_adapters
from fedcert.adapters.finetune import FinetuneSettings
from fedcert.adapters.shared_layers import head_size
from fedcert.adapters.space import AdapterSpace
from fedcert.arrays import FloatArray
from fedcert.bundles import Bundle
from fedcert.certificates import RecipeTable
from fedcert.data.prompts import PromptInputs
from fedcert.data.text import TextInputs
from fedcert.devices import describe_device, resolve_device
from fedcert.errors import PoolError, SettingsError
from fedcert.fitting import FittedPrior, fit_prior
from fedcert.methods import AveragingMethod, DefaultAdapter
from fedcert.models.base import BaseModel
from fedcert.planning import Posterior
from fedcert.pool import Pool
from fedcert.priors import Prior
from fedcert.protocol.authority import SeedAuthority
from fedcert.runs.events import Events
from fedcert.scenarios import Scenario, load_scenario
from fedcert.search.learning import has_linear_head
from fedcert.settings import RunSettings
from fedcert.settings.recipes import method_recipes
from fedcert.strategies.averaging import AveragingSource
from fedcert.strategies.federated_prior import FederatedSource
from fedcert.strategies.planning import planning_of
from fedcert.strategies.prior_strategy import PriorStrategy
from fedcert.strategies.publishing import Publisher
from fedcert.strategies.registration import Registration
from fedcert.strategies.sources import NothingSource, PriorSource
from fedcert.strategies.warmed import Warmed

__all__ = ["Run"]


class Run:
    """What the settings of a run name, opened: the parts of its strategy.

    Attributes
    ----------
    scenario : Scenario
        Data, tasks and base model.
    base : BaseModel
        The loaded base model.
    space : AdapterSpace
        The coordinates of adapters.
    fitted : FittedPrior or None
        The prior with its evidence, once one was fitted to the pool.
    method : Method
        How the federation learns.
    """

    def __init__(
        self,
        settings: RunSettings,
        output: Path,
        scenario: Scenario,
        events: Events,
        warmed: Warmed | None = None,
    ) -> None:
        if settings.warm_start.rounds and warmed is None:
            raise SettingsError(
                "setting 'warm_start.rounds': a warm start comes before this; call "
                "fedcert.strategies.warm_up.warm_up first, or set it to 0"
            )
        self._settings, self._events, self.scenario = settings, events, scenario
        self._device = resolve_device(settings.device)
        events.record("device", device=describe_device(self._device))
        self._barred = warmed.clients if warmed else frozenset[str]()
        self.base = scenario.load_base(
            warmed.folder if warmed else None, device=self._device, on_step=events.note
        )
        scenario.inputs.bound_to(self.base)  # what does not fit costs no client any work
        self._pool, self.space = _pool_of(
            output / "pool", self.base, settings.space_of(self.base)
        )
        if warmed:
            self._pool.set_aside(warmed.planners)
        self._authority = _authority(settings, output)
        self._publisher = Publisher(
            output,
            settings,
            scenario=scenario,
            base=self.base,
            space=self.space,
            pool=self._pool,
            # A simulated server witnesses nothing; another one may serve the same bundle.
            server=self._authority.public_key if settings.server.state else None,
            trunk=warmed.privacy if warmed else None,
        )
        self.fitted: FittedPrior | None = None
        self._output = output
        self.method = settings.method_of(self._finetune_settings()).fitted_to(self.base)
        self.method.check(self.space)
        _check_head(settings, method_recipes(settings, self.method), self.space)

    @staticmethod
    def of(
        settings: RunSettings,
        *,
        output: Path,
        events: Events | None = None,
        warmed: Warmed | None = None,
    ) -> Run:
        """Load the scenario and its base model, and open the run folder.

        Parameters
        ----------
        settings : RunSettings
            What to do.
        output : Path
            The run folder.
        events : Events, optional
            The stream of what happens.
        warmed : Warmed, optional
            What `warm_up` returned, where the settings ask for a warm start.

        Returns
        -------
        Run
            The run, of which nothing has happened yet.
        """
        events = events or Events()
        scenario = load_scenario(settings.scenario.name, settings.scenario.options)
        for note in scenario.notes:
            events.note(f"NOTE: {note}")
        return Run(settings, output, scenario, events, warmed)

    @property
    def _posterior(self) -> Posterior | None:
        """What of posteriors is worth its time, if the settings leave it open."""
        if self.space.names_head:
            # Names say most, and the head from names that the menu has says the rest.
            return None
        texts = {TextInputs.kind, PromptInputs.kind}
        return "mode" if self.scenario.inputs.kind in texts else "mean"

    @property
    def pools(self) -> bool:
        """Whether the settings ask for a pool of adapters."""
        return self.method.asks == "adapters" and not self._settings.federated_prior

    def unpooled(self) -> PriorStrategy:
        """Make the strategy for settings that pool no adapters."""
        if self._settings.federated_prior:
            source: PriorSource = FederatedSource(
                space=self.space, publish=self._publisher.from_sums, **self._training()
            )
        else:
            source = self._averaging()
        return PriorStrategy(source, **self._common())

    def _averaging(self) -> PriorSource:
        if not isinstance(self.method, AveragingMethod):
            return NothingSource(self.method, space=self.space, publish=self._published)
        return AveragingSource(
            method=self.method,
            space=self.space,
            publish=self._published,
            seed=self._settings.seed,
            folder=self._output / "averaging",
            min_pool=self._fewest,
            has_bundle=lambda: self._publisher.latest is not None,
        )

    def _published(self, prior: Prior, notes: Mapping[str, Any]) -> Bundle:
        """Make the bundle of a method that has a recipe of its own."""
        noted = {**notes, "method": self.method.to_config()}
        return self._publisher.from_sums(
            prior, noted, recipes=method_recipes(self._settings, self.method)
        )

    def pooling(self, strategy: str) -> dict[str, Any]:
        """Return what a strategy that pools adapters takes: arguments of `PooledPrior`.

        Raises
        ------
        SettingsError
            If the settings ask for what pools no adapters.
        """
        if not self.pools:
            named, choice = ("prior.training", "pooled")
            if not self._settings.federated_prior:
                named, choice = "method", "prior"
            raise SettingsError(
                f'setting {named!r}: the strategy {strategy} pools adapters; choose "{choice}"'
            )
        constants = constant_adapters(self.space, len(self.scenario.labels))
        return {
            "pool": self._pool,
            "fit": self._fit,
            "clients_per_round": self._settings.server.clients_per_round,
            "planning": planning_of(
                self._settings,
                constants,
                local_head=has_linear_head(self.space),
                posterior=self._posterior,
                training=self._finetune_settings(),
                barred=self._barred,
            ),
            **self._training(),
            **self._common(),
        }

    def _training(self) -> dict[str, Any]:
        return {
            "training": self._finetune_settings(),
            "seed": self._settings.seed,
            "min_pool": self._fewest,
        }

    def _common(self) -> dict[str, Any]:
        settings = self._settings
        return {
            "space": self.space,
            "authority": self._authority,
            "timeout": settings.server.timeout,
            "publisher": self._publisher,
            "registration": Registration.of(settings, self.scenario),
            "events": self._events,
        }

    def _finetune_settings(self) -> FinetuneSettings:
        """Return how clients train, the parts that suit the base model included."""
        asked, training = self._settings.training, self._settings.finetune_settings()
        alone = head_size(self.base) > 0
        if asked.parts == "head" and not alone:
            raise SettingsError(
                "setting 'training.parts': the base model has no head on embeddings that could "
                'be trained alone; choose "all"'
            )
        return replace(training, head_only=alone) if asked.parts == "auto" else training

    @property
    def _fewest(self) -> int:
        return Registration.of(self._settings, self.scenario).needed

    def _fit(self, pool: FloatArray) -> Bundle:
        settings = self._settings
        privacy = settings.mean_privacy()
        if privacy is not None:
            return self._publisher.from_mean(pool, privacy)
        if self.method.kind == DefaultAdapter.kind:
            return self._publisher.from_average(pool, method_recipes(settings, self.method))
        self.fitted = fit_prior(
            pool, settings=settings.prior, seed=settings.seed, device=self._device
        )
        for warning in self.fitted.warnings:
            self._events.note(warning)
        return self._publisher.from_pool(self.fitted)


def _pool_of(folder: Path, base: BaseModel, space: AdapterSpace) -> tuple[Pool, AdapterSpace]:
    """Open the run's pool; one from before knows the base model by its weights alone."""
    try:
        return Pool(folder, space), space
    except PoolError as refused:
        older = replace(space, base_digest=base.weights)
        try:
            return Pool(folder, older), older
        except PoolError:
            raise refused from None


def _check_head(
    settings: RunSettings, recipes: RecipeTable | None, space: AdapterSpace
) -> None:
    """Raise `SettingsError` if new clients would train a head that is none to train alone."""
    rules = [] if recipes is None else [recipe for _, recipe in recipes.rows]
    trained = {name for rule in rules for name in getattr(rule, "refinements", ())}
    if trained & {"local_head", "tuned_head"} and not has_linear_head(space):
        asked = "personal.tuned_head" if settings.personal.tuned_head else "method"
        raise SettingsError(
            f"setting {asked!r}: new clients would train a head alone, which takes one linear "
            "layer, with a bias, or a head from the labels' names; this base model has another"
        )


def _authority(settings: RunSettings, output: Path) -> SeedAuthority:
    """Open the server's log: that of all runs, or one of this simulation alone."""
    state = settings.server.state
    if not state:
        return SeedAuthority.simulated(output / "protocol", settings.seed)
    if not Path(state).is_absolute():
        raise SettingsError(f"server.state = {state!r} is not an absolute path")
    return SeedAuthority(Path(state))
