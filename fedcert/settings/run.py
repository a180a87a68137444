"""The settings of a run: one validated object, read from TOML, dotted keys, or both."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, ValidationError, field_validator

from fedcert.adapters.finetune import FinetuneSettings
from fedcert.adapters.space import AdapterSpace
from fedcert.devices import AUTO, check_device
from fedcert.errors import CertificateError, SettingsError, did_you_mean
from fedcert.extensions import import_extensions
from fedcert.methods import METHODS, Method
from fedcert.scenarios import absolute_options, scenario_defaults
from fedcert.settings.certificates import CertificateSettings
from fedcert.settings.methods import method_from
from fedcert.settings.sections import (
    PLANNED,
    SMALLEST_AVERAGE,
    AdapterSettings,
    AveragingSettings,
    ClientSettings,
    EvaluationSettings,
    PersonalSettings,
    PlanningSettings,
    PriorSettings,
    PrivacySettings,
    ScenarioSettings,
    SearchSettings,
    Section,
    ServerSettings,
    TrainingSettings,
    WarmStartSettings,
)
from fedcert.settings.together import check_together
from fedcert.settings.toml import toml_key, toml_of

if TYPE_CHECKING:
    from fedcert.models.base import BaseModel
    from fedcert.privacy import MeanPrivacy, UploadPrivacy
    from fedcert.warm_start import TrunkTraining

__all__ = ["RunSettings"]

_TUNERS = 4


class RunSettings(Section):
    """All settings of a run.

    Every section has defaults, so ``RunSettings()`` is the embedded demo.
    """

    seed: int = Field(default=0, ge=0)
    device: str = AUTO
    """Where the server, virtual clients, and nodes without a ``device`` of their own compute:
    ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"mps"``."""
    imports: str = ""
    """Modules of your own, separated by commas, that register priors, recipes, or methods.
    Every process of the run imports them."""
    method: str = "prior"
    """How the federation learns, and how new clients are personalized: one of
    `fedcert.methods.METHODS`, where methods of your own register."""
    scenario: ScenarioSettings = ScenarioSettings()
    adapter: AdapterSettings = AdapterSettings()
    training: TrainingSettings = TrainingSettings()
    averaging: AveragingSettings = AveragingSettings()
    personal: PersonalSettings = PersonalSettings()
    warm_start: WarmStartSettings = WarmStartSettings()
    prior: PriorSettings = PriorSettings()
    privacy: PrivacySettings = PrivacySettings()
    certificate: CertificateSettings = CertificateSettings()
    planning: PlanningSettings = PlanningSettings()
    search: SearchSettings = SearchSettings()
    client: ClientSettings = ClientSettings()
    server: ServerSettings = ServerSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        try:
            return check_device(device)
        except SettingsError as error:
            raise ValueError(str(error)) from error

    @field_validator("method")
    @classmethod
    def _known_method(cls, method: str) -> str:
        if method not in METHODS:
            raise ValueError(
                f"there is no such method; choose {', '.join(METHODS)}, or name the module "
                f"that registers yours in the setting imports{did_you_mean(method, METHODS)}"
            )
        return method

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Validate nested settings.

        Raises
        ------
        SettingsError
            Naming the key that is unknown or out of range.
        """
        filled = _with_defaults(values)
        if isinstance(filled.get("imports"), str):
            # First: a prior or a recipe may be named below that is known only then.
            import_extensions(_listed(filled["imports"]))
        try:
            settings = cls.model_validate(filled)
            check_together(settings)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise SettingsError(
                f"setting {key!r}: {_reason(first)}{cls._near_miss(first)}"
            ) from error
        except CertificateError as error:
            raise SettingsError(f"setting 'certificate': {error}") from error
        return settings

    @classmethod
    def from_flat(cls, values: Mapping[str, Any]) -> Self:
        """Validate settings with dotted keys, as Flower's run config has them.

        Dashes and underscores in a key mean the same, and empty strings mean "not given".
        """
        nested: dict[str, Any] = {}
        for key, value in values.items():
            if value != "":
                _set(nested, key, value)
        return cls.from_mapping(nested)

    @classmethod
    def read(
        cls,
        path: Path | None,
        overrides: Iterable[str] = (),
        *,
        otherwise: Mapping[str, Any] | None = None,
    ) -> Self:
        """Read a TOML file, if any, and apply ``key=value`` overrides.

        Parameters
        ----------
        path : Path or None
            The file.
        overrides : iterable of str
            Their values are TOML values; what is none is taken as a string.
        otherwise : Mapping, optional
            Values by dotted key, for where neither says anything, or 0.

        Returns
        -------
        RunSettings
            Validated.
        """
        nested: dict[str, Any] = {}
        if path is not None:
            try:
                nested = tomllib.loads(path.read_text(encoding="utf-8"))
            except OSError as error:
                raise SettingsError(f"{path}: cannot be read ({error.strerror})") from error
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise SettingsError(f"{path}: not valid TOML: {error}") from error
        for override in overrides:
            key, separator, text = override.partition("=")
            if not separator or not key.strip():
                raise SettingsError(f"override {override!r} is not of the form key=value")
            _set(nested, key.strip(), _toml_value(text.strip()))
        for dotted, value in (otherwise or {}).items():
            section, _, leaf = dotted.partition(".")
            if not (isinstance(nested.get(section), dict) and nested[section].get(leaf)):
                _set(nested, dotted, value)
        return cls.from_mapping(nested)

    def with_absolute_paths(self) -> Self:
        """Return the same settings for processes that work in another folder than this one."""
        options = absolute_options(self.scenario.name, self.scenario.options)
        scenario = self.scenario.model_copy(update={"options": options})
        return self.model_copy(update={"scenario": scenario})

    @classmethod
    def _near_miss(cls, error: Any) -> str:
        """Say what there is instead of a setting that does not exist."""
        if error["type"] != "extra_forbidden":
            return ""
        fields = cls.model_fields
        *sections, key = (str(part) for part in error["loc"])
        if sections:
            fields = fields[sections[0]].annotation.model_fields  # type: ignore[union-attr]
        where = f" in [{sections[0]}]" if sections else ""
        return f"; there is {', '.join(fields)}{where}{did_you_mean(key, fields)}"

    def to_toml(self) -> str:
        """Write all settings, defaults included, as TOML that `read` takes back."""
        content = self.model_dump()
        lines = [
            f"{name} = {toml_of(content.pop(name))}"
            for name in ("seed", "device", "imports", "method")
        ]
        for section, values in content.items():
            lines += ["", f"[{section}]"]
            tables = {k: v for k, v in values.items() if isinstance(v, dict)}
            lines += [f"{k} = {toml_of(v)}" for k, v in values.items() if k not in tables]
            for name, table in tables.items():
                lines += ["", f"[{section}.{name}]"]
                lines += [f"{toml_key(k)} = {toml_of(v)}" for k, v in table.items()]
        return "\n".join(lines) + "\n"

    def import_extensions(self) -> None:
        """Import the modules of `imports`, in a process that got the settings ready made.

        Raises
        ------
        SettingsError
            If one of them cannot be imported.
        """
        import_extensions(_listed(self.imports))

    def method_of(self, training: FinetuneSettings | None = None) -> Method:
        """Return the method with its settings.

        Parameters
        ----------
        training : FinetuneSettings, optional
            How clients train here, if `training.parts` leaves that to the base model.

        Raises
        ------
        SettingsError
            If the method does not take them.
        """
        return method_from(
            METHODS[self.method],
            training or self.finetune_settings(),
            averaging=self.averaging,
            personal=self.personal,
        )

    @property
    def planned(self) -> bool:
        """Whether upstream clients plan the recipe table; a method may bring its recipe."""
        return self.certificate.recipe == PLANNED and self.method == "prior"

    @property
    def federated_prior(self) -> bool:
        """Whether a prior is fitted from sums."""
        return self.method == "prior" and self.prior.training == "federated"

    def fewest_adapters(self, upstream: int) -> int:
        """Return the fewest adapters for a prior, with so many upstream clients; 0: unknown."""
        asks = METHODS[self.method].asks
        if asks != "adapters":
            return {"nothing": 0, "rounds": self.server.min_pool or SMALLEST_AVERAGE}[asks]
        # Sums over few clients would say much about each of them.
        return self.server.fewest(0 if self.federated_prior else upstream)

    def planning_sizes(self) -> tuple[int, ...]:
        """Return the sizes of support sets to plan for, in increasing order."""
        return tuple(int(size) for size in self.planning.sizes.split(","))

    def upload_privacy(self) -> UploadPrivacy | None:
        """Return the promise that clients make with their uploads, or None without one."""
        from fedcert.privacy import UploadPrivacy

        privacy = self.privacy
        if privacy.epsilon == 0:
            return None
        return UploadPrivacy(privacy.clip, privacy.epsilon, privacy.delta)

    def mean_privacy(self) -> MeanPrivacy | None:
        """Return the promise that the server makes with its bundle, or None without one."""
        from fedcert.privacy import MeanPrivacy

        privacy = self.privacy
        if privacy.central_epsilon == 0:
            return None
        return MeanPrivacy(privacy.clip, privacy.central_epsilon, privacy.delta)

    def finetune_settings(self) -> FinetuneSettings:
        """Return the training section as the library's own type."""
        said = self.training.model_dump(exclude={"lora_ranks", "parts", "tuned"})
        return FinetuneSettings(**said, head_only=self.training.parts == "head")

    def trunk_training(self) -> TrunkTraining:
        """Return how clients train the trunk of a warm start."""
        from fedcert.warm_start import TrunkTraining

        warm = self.warm_start
        return TrunkTraining(
            personal=replace(self.finetune_settings(), steps=warm.personal_steps),
            parts=warm.personal,
            steps=warm.steps,
            batch_size=warm.batch_size,
            learning_rate=warm.learning_rate,
            total=warm.rounds * warm.steps,
            held_out=warm.held_out,
        )

    def tuning_clients(self, upstream: Sequence[str]) -> tuple[str, ...]:
        """Return the upstream clients by whose examples the training is tuned, if it is.

        They train adapters as others do, but no trunk: the rate would be tuned to what it has
        seen.
        """
        return tuple(upstream[:_TUNERS]) if self.training.tuned else ()

    def lora_ranks(self) -> tuple[int, ...]:
        """Return the ranks of plain LoRA; empty if clients train in the adapter space."""
        return tuple(int(rank) for rank in self.training.lora_ranks.split(",") if rank)

    def projections(self) -> tuple[str, ...]:
        """Return the names of the adapted modules."""
        return tuple(name.strip() for name in self.adapter.projections.split(","))

    def space_of(self, base: BaseModel) -> AdapterSpace:
        """Return the adapter space that the adapter section describes for a base model."""
        return AdapterSpace.of(
            base,
            rank=self.adapter.rank,
            last_layers=self.adapter.last_layers,
            projections=self.projections(),
            tied=self.adapter.tied,
        )


def _with_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what the scenario recommends, wherever nothing else was asked for."""
    filled, scenario = dict(values), values.get("scenario")
    name = scenario.get("name") if isinstance(scenario, Mapping) else None
    # The embedded default recommends nothing, and takes a while to import.
    recommended = scenario_defaults(name) if isinstance(name, str) and name != "digits" else {}
    for section, defaults in recommended.items():
        given = filled.get(section, {})
        if isinstance(given, Mapping):
            filled[section] = {**defaults, **given}
    return filled


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _set(nested: dict[str, Any], dotted: str, value: Any) -> None:
    *sections, leaf = dotted.replace("-", "_").split(".")
    table = nested
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise SettingsError(f"setting {dotted!r}: {section!r} is a value, not a section")
    table[leaf] = value


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _reason(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "there is no such setting"
    if error["type"] == "model_type":
        section = error["loc"][-1]
        return f"this is a section, [{section}] with keys below it (got {error['input']!r})"
    reason = error["msg"].removeprefix("Value error, ")
    return f"{reason[:1].lower()}{reason[1:]} (got {error['input']!r})"
