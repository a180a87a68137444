"""The settings of a run: one validated object, read from TOML, dotted keys, or both."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import date, time
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fedcert.adapters.finetune import FinetuneSettings
from fedcert.certificates import Recipe, RecipeTable
from fedcert.errors import CertificateError, SettingsError
from fedcert.models.layout import ATTENTION_PROJECTIONS
from fedcert.priors import PRIORS
from fedcert.scenarios import scenario_defaults

__all__ = ["RunSettings", "ScenarioSettings"]

SMALLEST_FIT = 10
"""Adapters that the diffusion prior needs."""


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


class PriorSettings(_Section):
    """How the server fits the prior."""

    kind: str = "diffusion"
    """One of `fedcert.priors.PRIORS`."""
    audit_share: float = Field(default=0.1, gt=0, lt=0.5)
    """Share of the pool that the fit never sees; it is for the memorization audit."""
    smallest_ratio: float = Field(default=0.5, ge=0)
    """Smallest ratio of nearest-pool distances, samples to held-out, that passes."""
    on_memorization: Literal["warn", "fail"] = "warn"
    """What happens when the audit does not pass."""

    def held_out(self, pool: int) -> int:
        """Return how many adapters of a pool are for the audit alone."""
        return max(1, round(self.audit_share * pool))

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, kind: str) -> str:
        if kind not in PRIORS:
            raise ValueError(f"there is no such prior; choose {', '.join(PRIORS)}")
        return kind


class CertificateSettings(_Section):
    """How new clients spend their labels. Fixed before any new client is served."""

    support_size: int = Field(default=64, ge=1)
    """Labeled examples of each new client, in simulation."""
    candidates: int = Field(default=1000, ge=1)
    delta: float = Field(default=0.05, gt=0, lt=1)
    recipe: str = "union"
    """Recipe for support sets below `split_from`."""
    split_from: int = Field(default=64, ge=1)
    """From this size on, one half chooses and the other certifies."""


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
    certificate: CertificateSettings = CertificateSettings()
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
        """Return which recipe serves which n, fixed before any new client is served."""
        certificate = self.certificate
        terms = {"candidates": certificate.candidates, "delta": certificate.delta}
        small = Recipe.from_config({"kind": certificate.recipe, **terms})
        split = Recipe.from_config({"kind": "split", **terms})
        if certificate.split_from == 1 or certificate.recipe == "split":
            return RecipeTable(((1, split),))
        return RecipeTable(((1, small), (certificate.split_from, split)))

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

    def finetune_settings(self) -> FinetuneSettings:
        """Return the training section as the library's own type."""
        return FinetuneSettings(**self.training.model_dump())

    def projections(self) -> tuple[str, ...]:
        """Return the names of the adapted modules."""
        return tuple(name.strip() for name in self.adapter.projections.split(","))


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
