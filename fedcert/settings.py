"""The settings of a run: one validated object, read from TOML, dotted keys, or both."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import date, time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fedcert.adapters.finetune import FinetuneSettings
from fedcert.certificates import Recipe, RecipeTable
from fedcert.errors import CertificateError, SettingsError
from fedcert.models.layout import ATTENTION_PROJECTIONS
from fedcert.priors import PRIORS
from fedcert.scenarios import scenario_defaults

if TYPE_CHECKING:
    from fedcert.privacy import UploadPrivacy

__all__ = ["RunSettings", "ScenarioSettings"]

SMALLEST_FIT = 10
"""Adapters that the diffusion prior needs."""
PLANNED = "planned"
"""What stands for a recipe in the settings if upstream clients are to find it out."""


class _Section(BaseModel):
    """A table of settings: unknown keys are errors, and values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ScenarioSettings(_Section):
    """Which data, tasks and base model."""

    name: str = "digits"
    """A built-in scenario, or ``module:Class``."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the scenario, for instance ``upstream = 64``."""


class AdapterSettings(_Section):
    """Which part of the base model adapters change."""

    rank: int = Field(default=4, ge=1)
    last_layers: int = Field(default=1, ge=1)
    projections: str = ",".join(ATTENTION_PROJECTIONS)
    """Names of the linear modules to adapt, separated by commas."""


class TrainingSettings(_Section):
    """How upstream clients fine-tune."""

    steps: int = Field(default=60, ge=1)
    batch_size: int = Field(default=128, ge=1)
    learning_rate: float = Field(default=0.03, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    lora_ranks: str = ""
    """Ranks of plain LoRA, separated by commas, that upstream clients take in turn; what they
    trained is projected into the adapter space. Empty: they train in the space."""

    @field_validator("lora_ranks", mode="before")
    @classmethod
    def _spelled(cls, ranks: object) -> object:
        """Take a number or a list as well; Flower's run config has no lists."""
        listed = ranks if isinstance(ranks, list | tuple) else [ranks]
        text = ",".join(str(rank).strip() for rank in listed)
        if text and not re.fullmatch(r"[1-9]\d*( *, *[1-9]\d*)*", text):
            raise ValueError("give ranks of 1 or more, separated by commas")
        return text


class PriorSettings(_Section):
    """How the server fits the prior."""

    kind: str = "diffusion"
    """One of `fedcert.priors.PRIORS`."""
    training: Literal["pooled", "federated"] = "pooled"
    """``"federated"``: clients keep their adapters, and the denoiser is trained by federated
    averaging."""
    audit_share: float = Field(default=0.1, gt=0, lt=0.5)
    """Share of the pool that the fit never sees; it is for the memorization audit."""
    smallest_ratio: float = Field(default=0.5, ge=0)
    """Smallest ratio of nearest-pool distances, samples to held-out, that passes."""
    largest_advantage: float = Field(default=0.9, gt=0, le=1)
    """Largest upper confidence limit of the membership attacks' advantage that passes."""
    on_memorization: Literal["warn", "fail", "fallback"] = "fallback"
    """What happens when an audit does not pass; ``"fallback"`` takes the Gaussian instead if
    fewer audits object to it."""
    robust: bool = True
    """Leave copies and outliers among the uploads out of the fit."""

    def held_out(self, pool: int) -> int:
        """Return how many adapters of a pool are for the audit alone."""
        return max(1, round(self.audit_share * pool))

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, kind: str) -> str:
        if kind not in PRIORS:
            raise ValueError(f"there is no such prior; choose {', '.join(PRIORS)}")
        return kind


class PrivacySettings(_Section):
    """Local differential privacy of uploads: each client adds noise to its own."""

    epsilon: float = Field(default=0.0, ge=0)
    """Of one upload; 0 means no noise and no promise."""
    delta: float = Field(default=1e-5, gt=0, lt=1)
    """The privacy delta, not that of certificates."""
    clip: float = Field(default=3.0, gt=0)
    """C, the largest norm of an adapter; longer ones are shortened."""
    budget: float = Field(default=0.0, ge=0)
    """Largest epsilon of all releases of one client together; 0 means no limit."""


class CertificateSettings(_Section):
    """How new clients spend their labels. Fixed before any new client is served."""

    support_size: int = Field(default=64, ge=1)
    """Labeled examples of each new client, in simulation."""
    candidates: int = Field(default=1000, ge=1)
    delta: float = Field(default=0.05, gt=0, lt=1)
    recipe: str = "union"
    """Recipe for support sets below `split_from`; or ``"planned"``: upstream clients that train
    no adapter measure which recipe suits which size."""
    split_from: int = Field(default=64, ge=1)
    """From this size on, one half chooses and the other certifies; without effect on a plan."""


class PlanningSettings(_Section):
    """How recipes are planned; without effect unless ``certificate.recipe = "planned"``."""

    clients: float = Field(default=0.15, gt=0, lt=1)
    """Share of the upstream clients that plan instead of training an adapter. At least
    ``server.min_pool`` clients train in any case."""
    sizes: str = "16,32,64,128,256"
    """Sizes of support sets to plan for, separated by commas."""

    @field_validator("sizes", mode="before")
    @classmethod
    def _increasing(cls, sizes: Any) -> Any:
        if isinstance(sizes, list | tuple):
            sizes = ",".join(map(str, sizes))
        if isinstance(sizes, str) and not _are_sizes(sizes):
            raise ValueError("give sizes from 1 on in increasing order, separated by commas")
        return sizes


class SearchSettings(_Section):
    """How candidates are ranked. What is certified is counted apart from it."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """``"bfloat16"`` ranks with a copy of the base model in bfloat16."""
    compile: bool = False
    """Compile the part that all candidates run through, with a C++ compiler."""


class ClientSettings(_Section):
    """What a client's process may use."""

    cache_mib: float = Field(default=256.0, ge=0)
    """Most memory for what frozen layers made of texts; virtual clients of one process share
    it. It decides the time, not the result."""


class ServerSettings(_Section):
    """How the server runs."""

    clients_per_round: int = Field(default=64, ge=1)
    """Upstream clients asked at once; the pool is safe on disk after each of them."""
    min_pool: int = Field(default=20, ge=SMALLEST_FIT)
    """Fewest accepted adapters with which a prior is fitted."""
    timeout: float = Field(default=3600.0, gt=0)
    """Seconds to wait for the replies of one round."""
    nodes: int = Field(default=0, ge=0)
    """Nodes to wait for at the start; 0 means as many as the scenario has clients."""
    registration_timeout: float = Field(default=60.0, gt=0)
    """Seconds to wait for them; then the run begins with those that are there."""
    state: str = ""
    """Folder of the server's key, nonces, and log, an absolute path; it must outlive runs.
    Without it key and nonces follow from the run's seed, as in a simulation."""


class EvaluationSettings(_Section):
    """What a simulation measures beyond the protocol, on test examples."""

    baselines: bool = True
    """Compare the prior with Gaussian, jitter and pool resampling at equal M."""
    candidates: int = Field(default=1000, ge=1)


class RunSettings(_Section):
    """All settings of a run.

    Every section has defaults, so ``RunSettings()`` is the embedded demo.
    """

    seed: int = Field(default=0, ge=0)
    scenario: ScenarioSettings = ScenarioSettings()
    adapter: AdapterSettings = AdapterSettings()
    training: TrainingSettings = TrainingSettings()
    prior: PriorSettings = PriorSettings()
    privacy: PrivacySettings = PrivacySettings()
    certificate: CertificateSettings = CertificateSettings()
    planning: PlanningSettings = PlanningSettings()
    search: SearchSettings = SearchSettings()
    client: ClientSettings = ClientSettings()
    server: ServerSettings = ServerSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Validate nested settings.

        Raises
        ------
        SettingsError
            Naming the key that is unknown or out of range.
        """
        try:
            settings = cls.model_validate(_with_defaults(values))
            settings.recipe_table()
            settings._check_min_pool()
            settings._check_federated()
            settings._check_planning()
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise SettingsError(f"setting {key!r}: {_reason(first)}") from error
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
    def read(cls, path: Path | None, overrides: Iterable[str] = ()) -> Self:
        """Read a TOML file, if any, and apply ``key=value`` overrides.

        Values of overrides are TOML values; what is none is taken as a string.
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
        return cls.from_mapping(nested)

    def to_toml(self) -> str:
        """Write all settings, defaults included, as TOML that `read` takes back."""
        content = self.model_dump()
        lines = [f"seed = {content.pop('seed')}"]
        for section, values in content.items():
            lines += ["", f"[{section}]"]
            tables = {k: v for k, v in values.items() if isinstance(v, dict)}
            lines += [f"{k} = {_toml(v)}" for k, v in values.items() if k not in tables]
            for name, table in tables.items():
                lines += ["", f"[{section}.{name}]"]
                lines += [f"{_toml_key(k)} = {_toml(v)}" for k, v in table.items()]
        return "\n".join(lines) + "\n"

    def recipe_table(self) -> RecipeTable:
        """Return which recipe serves which n, fixed before any new client is served.

        Where recipes are planned, this is what serves if no plan comes about.
        """
        certificate = self.certificate
        terms = {"candidates": certificate.candidates, "delta": certificate.delta}
        kind = "union" if self.planned else certificate.recipe
        small = Recipe.from_config({"kind": kind, **terms})
        split = Recipe.from_config({"kind": "split", **terms})
        if certificate.split_from == 1 or certificate.recipe == "split":
            return RecipeTable(((1, split),))
        return RecipeTable(((1, small), (certificate.split_from, split)))

    @property
    def planned(self) -> bool:
        """Whether upstream clients plan the recipe table."""
        return self.certificate.recipe == PLANNED

    def planning_sizes(self) -> tuple[int, ...]:
        """Return the sizes of support sets to plan for, in increasing order."""
        return tuple(int(size) for size in self.planning.sizes.split(","))

    def _check_planning(self) -> None:
        """Raise `SettingsError` where planning clients would reveal what others do not."""
        if self.planned and self.prior.training == "federated":
            raise SettingsError(
                "setting 'certificate.recipe': 'planned' does not go with prior.training = "
                "'federated'; name a recipe"
            )
        if self.planned and self.privacy.epsilon > 0:
            raise SettingsError(
                "setting 'certificate.recipe': planning clients answer without noise, so "
                "'planned' does not go with privacy.epsilon > 0; name a recipe"
            )

    def _check_min_pool(self) -> None:
        """Raise `SettingsError` if the audit can leave too few adapters for the fit."""
        smallest = self.server.min_pool
        held = self.prior.held_out(smallest)
        if self.prior.kind == "diffusion" and smallest - held < SMALLEST_FIT:
            raise SettingsError(
                f"setting 'server.min_pool': of {smallest} adapters the audit holds {held} "
                f"back, and {smallest - held} are too few for the diffusion prior; it needs "
                f"{SMALLEST_FIT}"
            )

    def _check_federated(self) -> None:
        """Raise `SettingsError` if the federated prior is asked for what it cannot do."""
        if self.prior.training != "federated":
            return
        if self.prior.kind != "diffusion":
            raise SettingsError(
                f"setting 'prior.training': the {self.prior.kind} prior cannot be trained "
                'federated; choose prior.kind = "diffusion"'
            )
        if self.privacy.epsilon > 0:
            raise SettingsError(
                "setting 'privacy.epsilon': the federated prior adds no noise and can make no "
                'such promise; pool noisy uploads (prior.training = "pooled") instead'
            )

    def upload_privacy(self) -> UploadPrivacy | None:
        """Return the promise that clients make with their uploads, or None without one."""
        from fedcert.privacy import UploadPrivacy

        privacy = self.privacy
        if privacy.epsilon == 0:
            return None
        return UploadPrivacy(privacy.clip, privacy.epsilon, privacy.delta)

    def finetune_settings(self) -> FinetuneSettings:
        """Return the training section as the library's own type."""
        return FinetuneSettings(**self.training.model_dump(exclude={"lora_ranks"}))

    def lora_ranks(self) -> tuple[int, ...]:
        """Return the ranks of plain LoRA; empty if clients train in the adapter space."""
        return tuple(int(rank) for rank in self.training.lora_ranks.split(",") if rank)

    def projections(self) -> tuple[str, ...]:
        """Return the names of the adapted modules."""
        return tuple(name.strip() for name in self.adapter.projections.split(","))


def _are_sizes(text: str) -> bool:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        return False
    sizes = [int(part) for part in parts]
    return sizes[0] >= 1 and all(one < other for one, other in pairwise(sizes))


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


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # TOML knows every escape that JSON uses.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        pairs = (f"{_toml_key(k)} = {_toml(v)}" for k, v in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, int | float):
        return repr(value)
    raise SettingsError(f"the setting {value!r} cannot be written as TOML")


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key)


def _reason(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "there is no such setting"
    reason = error["msg"].removeprefix("Value error, ")
    return f"{reason[:1].lower()}{reason[1:]} (got {error['input']!r})"
