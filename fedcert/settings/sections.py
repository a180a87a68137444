"""The sections of a run's settings, each a table in TOML with defaults for every key."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from fedcert.errors import did_you_mean
from fedcert.models.layout import ATTENTION_PROJECTIONS
from fedcert.priors import PRIORS

__all__ = [
    "PLANNED",
    "SMALLEST_AVERAGE",
    "SMALLEST_FEDERATION",
    "SMALLEST_FIT",
    "AdapterSettings",
    "AveragingSettings",
    "ClientSettings",
    "EvaluationSettings",
    "PersonalSettings",
    "PlanningSettings",
    "PriorSettings",
    "PrivacySettings",
    "ScenarioSettings",
    "SearchSettings",
    "Section",
    "ServerSettings",
    "TrainingSettings",
    "WarmStartSettings",
]

SMALLEST_FIT = 10
"""Adapters that the diffusion prior needs."""
SMALLEST_FEDERATION = 4
"""Upstream clients without which there is no prior of any kind; one is for the audit."""
SMALLEST_AVERAGE = 2
"""Upstream clients without which nothing is averaged: one alone would upload its own."""
_USUAL_POOL, _USUAL_SHARE = 20, 0.75
PLANNED = "planned"
"""What stands for a recipe in the settings if upstream clients are to find it out."""


class Section(BaseModel):
    """A table of settings: unknown keys are errors, and values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_truth(cls, value: Any, info: ValidationInfo) -> Any:
        wanted = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and wanted in (int, float):
            raise ValueError("a number is wanted here")
        return value


class ScenarioSettings(Section):
    """Which data, tasks and base model."""

    name: str = "digits"
    """A built-in scenario, or ``module:Class``."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the scenario, for instance ``upstream = 64``."""


class AdapterSettings(Section):
    """Which part of the base model adapters change."""

    rank: int = Field(default=4, ge=1)
    last_layers: int = Field(default=1, ge=1)
    projections: str = ",".join(ATTENTION_PROJECTIONS)
    """Names of the linear modules to adapt, separated by commas."""
    tied: int = Field(default=0, ge=0)
    """How many numbers all adapted modules share, in the place of ``rank ** 2`` of each; 0 ties
    nothing. An adapter then has so many numbers and its head."""


class TrainingSettings(Section):
    """How upstream clients fine-tune."""

    steps: int = Field(default=60, ge=1)
    batch_size: int = Field(default=128, ge=1)
    learning_rate: float = Field(default=0.03, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    parts: Literal["all", "head", "auto"] = "all"
    """``"head"``: train the head on a sentence encoder's embeddings, and leave its layers as
    they are. Then a search runs the layers once for all candidates. ``"auto"``: so where the
    base model is a sentence encoder and clients share their labels."""
    tuned: bool = False
    """In a simulation, choose learning rate and weight decay before anybody trains, by the loss
    of a few upstream clients on examples of their own that they do not train on."""
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


class AveragingSettings(Section):
    """The rounds of methods that average something; without effect on the others."""

    rounds: int = Field(default=30, ge=1)
    clients: int = Field(default=16, ge=0)
    """Upstream clients drawn for each round; 0 takes all."""
    steps: int = Field(default=20, ge=1)
    """Steps that a client trains in a round."""
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=0.0, ge=0)
    """Of a client in a round; 0 takes that of ``training``."""
    pull: float = Field(default=0.03, ge=0)
    """Weight of half the squared distance from the shared adapter in a client's loss, of the
    methods whose clients are pulled to it."""
    head_steps: int = Field(default=20, ge=1)
    """Steps that a client trains its own head in a round, of the methods whose heads are."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further keyword arguments of the method, for one of your own."""


class PersonalSettings(Section):
    """How a new client learns from what a method shares; without effect on ``"prior"``."""

    steps: int = Field(default=0, ge=0)
    """Steps of fine-tuning; 0 takes those of ``training``."""
    learning_rate: float = Field(default=0.0, ge=0)
    """Of fine-tuning; 0 takes that of ``training``."""
    pull: float = Field(default=-1.0, ge=-1)
    """Weight of half the squared distance from the shared adapter in the loss. -1 takes what
    suits the method: ``averaging.pull`` for those that pull, or else the weight decay of
    ``training``."""
    keep: float = Field(default=0.0, ge=0, lt=1)
    """Share of the shared adapter in the new client's: more of it forgets less of what the
    federation knows, and personalizes less."""
    choose: float = Field(default=0.5, gt=0, lt=1)
    """Share of a new client's examples that it learns from; the others certify."""
    tuned_head: bool = False
    """Whether the shared adapter with its head alone tuned is a finalist beside what the method
    learns. Where labels have names an adapter has no head, and fine-tuning leaves the names.
    Methods that learn nothing, or a head already, stay as they are."""


class WarmStartSettings(Section):
    """Rounds in which clients improve the base model before anybody harvests an adapter.

    All of them train a *trunk* together, B of a LoRA on every linear module of the layers; each
    has an adapter of its own the while, which it keeps to itself. In the end the trunk becomes
    part of the base model's weights. docs/flower.md says how.
    """

    rounds: int = Field(default=0, ge=0)
    """0 is off."""
    clients_per_round: int = Field(default=16, ge=0)
    """Clients drawn for a round; 0 takes all."""
    share: float = Field(default=0.5, gt=0, lt=1)
    """Share of each client's examples that train the trunk. They do not train its adapter."""
    rank: int = Field(default=8, ge=1)
    """Rank of the trunk."""
    personal: Literal["adapter", "head"] = "adapter"
    """What each client has for itself the while: a whole adapter, or its head alone."""
    personal_steps: int = Field(default=10, ge=1)
    """Steps of the personal part alone, as in ``training`` otherwise, before the joint ones."""
    held_out: float = Field(default=0.0, ge=0, lt=1)
    """Share of the trunk's examples that the personal steps do not see, other ones in each
    round; joint steps take these alone. For personal parts that fit their examples by heart,
    and leave the trunk nothing to learn from these."""
    steps: int = Field(default=12, ge=1)
    """Joint steps of a client in a round."""
    batch_size: int = Field(default=32, ge=1)
    """Examples of a joint step."""
    learning_rate: float = Field(default=1e-2, gt=0)
    """Of the trunk on the clients; it falls along a cosine over all rounds."""
    server_rate: float = Field(default=1.0, gt=0)
    """What the mean of the clients' moves is multiplied with."""
    momentum: float = Field(default=0.0, ge=0, lt=1)
    """Of the server, from round to round."""
    nesterov: bool = False
    """Whether the server's momentum looks ahead."""
    weights: Literal["examples", "tail", "equal"] = "examples"
    """``"examples"``: clients count by how many they have. ``"tail"``: those count more whose
    loss stays high after adaptation. Nobody counts more than three mean clients. ``"equal"``:
    all count alike."""
    epsilon: float = Field(default=0.0, ge=0)
    """Of all rounds together, for the base model that is published; 0 means no noise and no
    promise. The server adds the noise, and ``privacy.delta`` is the delta."""
    clip: float = Field(default=1.0, gt=0)
    """With `epsilon`, the largest norm of how far a client moves the trunk; longer moves are
    shortened."""

    def identity(self) -> dict[str, Any]:
        """Return what a trunk follows from: what came later counts where it is used."""
        unused = set() if self.epsilon else {"epsilon", "clip"}
        return self.model_dump(exclude=unused | (set() if self.held_out else {"held_out"}))


class PriorSettings(Section):
    """How the server fits the prior."""

    kind: str = "diffusion"
    """One of `fedcert.priors.PRIORS`, where priors of your own register."""
    training: Literal["pooled", "federated"] = "pooled"
    """``"federated"``: clients keep their adapters, and the denoiser is trained by federated
    averaging."""
    audit_share: float = Field(default=0.1, gt=0, lt=0.5)
    """Share of the pool that the fit never sees; it is for the memorization audit."""
    smallest_ratio: float = Field(default=0.5, ge=0)
    """Smallest ratio of nearest-pool distances, samples to held-out, that passes."""
    largest_advantage: float = Field(default=0.9, gt=0, le=1)
    """Largest upper confidence limit of the membership attacks' advantage that passes. 0.9 is
    an alarm and no promise: given a member's adapter and another, such an attack picks the
    member's 19 times in 20."""
    on_memorization: Literal["warn", "fail", "fallback"] = "fallback"
    """What happens when an audit does not pass; ``"fallback"`` takes the Gaussian instead if
    fewer audits object to it."""
    robust: bool = True
    """Leave copies and outliers among the uploads out of the fit."""
    keep: float = Field(default=0.0, ge=0, lt=1)
    """Share of the pool's mean adapter in every candidate: more of it forgets less of what the
    federation knows, and personalizes less."""

    def held_out(self, pool: int) -> int:
        """Return how many adapters of a pool are for the audit alone."""
        return max(1, round(self.audit_share * pool))

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, kind: str) -> str:
        if kind not in PRIORS:
            raise ValueError(
                f"there is no such prior; choose {', '.join(PRIORS)}, or name the module that "
                f"registers yours in the setting imports{did_you_mean(kind, PRIORS)}"
            )
        return kind


class PrivacySettings(Section):
    """Differential privacy: noise on each upload, or the server's on what it publishes."""

    epsilon: float = Field(default=0.0, ge=0)
    """Of one upload; 0 means no noise and no promise."""
    delta: float = Field(default=1e-5, gt=0, lt=1)
    """The privacy delta, not that of certificates."""
    clip: float = Field(default=3.0, gt=0)
    """C, the largest norm of an adapter; longer ones are shortened."""
    budget: float = Field(default=0.0, ge=0)
    """Largest epsilon of all releases of one client together; 0 means that of one release."""
    central_epsilon: float = Field(default=0.0, ge=0)
    """Of one bundle, which then holds the adapters' mean with noise of the server's, and no
    other thing that depends on uploads; 0 means no such noise. Clients trust the server."""


class PlanningSettings(Section):
    """How recipes are planned; without effect unless ``certificate.recipe = "planned"``."""

    clients: float = Field(default=0.15, gt=0, lt=1)
    """Share of the upstream clients that plan instead of training an adapter. At least
    ``server.min_pool`` clients train in any case."""
    most: int = Field(default=0, ge=0)
    """Most clients that plan; 0 for no limit. Each replays every recipe, which takes longer
    than training, and a mean over few says enough."""
    sizes: str = "16,32,64,128,256"
    """Sizes of support sets to plan for, separated by commas."""
    posterior: Literal["auto", "mean", "mode"] = "auto"
    """What of posteriors is tried: means, each of which scores thousands of candidates, or
    modes, which gradients find. ``"auto"``: modes on texts, where candidates take long, means
    on other inputs, and neither for adapters whose head comes of names."""
    objective: Literal["mean", "tail"] = "mean"
    """What recipes are chosen by: the planning clients' mean certificate, or (``"tail"``) that
    of the worst quarter of them."""

    @field_validator("sizes", mode="before")
    @classmethod
    def _increasing(cls, sizes: object) -> object:
        """Take a number or a list as well, as for ``lora_ranks``."""
        listed = sizes if isinstance(sizes, list | tuple) else [sizes]
        text = ",".join(map(str, listed))
        if not _are_sizes(text):
            raise ValueError("give sizes from 1 on in increasing order, separated by commas")
        return text


class SearchSettings(Section):
    """How candidates are ranked. What is certified is counted apart from it."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """``"bfloat16"`` ranks with a copy of the base model in bfloat16, where a recipe pays for
    its choice; what a verifier chooses again is ranked in float32."""
    compile: bool = False
    """Compile the part that all candidates run through, with a C++ compiler."""


class ClientSettings(Section):
    """What a client's process may use."""

    cache_mib: float = Field(default=256.0, ge=0)
    """Most memory for what frozen layers made of texts; virtual clients of one process share
    it. It decides the time, not the result."""
    cache_disk_mib: float = Field(default=0.0, ge=0)
    """Most of the disk for what that memory has no place for, in a file without a name that
    ends with the process; worth it with a large base model."""
    gpus: float = Field(default=0.0, ge=0, le=1)
    """Share of a GPU for each process of virtual clients; 0 finds out how many processes its
    memory takes. A share in which the base model does not fit is refused."""


class ServerSettings(Section):
    """How the server runs."""

    clients_per_round: int = Field(default=64, ge=1)
    """Upstream clients asked at once; the pool is safe on disk after each of them."""
    min_pool: int = Field(default=0, ge=0)
    """Fewest accepted adapters with which a prior is fitted. 0: 20, or in a federation with
    fewer upstream clients three quarters of them, but not below 4."""
    refit_after: float = Field(default=0.25, ge=0)
    """New adapters after which the prior is fitted again: a number from 1 on, or below 1 the
    share of those behind the latest bundle. Until then that bundle serves as it is."""
    timeout: float = Field(default=3600.0, gt=0)
    """Seconds to wait for the replies of one round."""
    nodes: int = Field(default=0, ge=0)
    """Nodes to wait for at the start; 0 means as many as the scenario has clients."""
    registration_timeout: float = Field(default=60.0, gt=0)
    """Seconds to wait for them; then the run begins with those that are there."""
    state: str = ""
    """Folder of the server's key, nonces, and log, an absolute path; it must outlive runs.
    Without it key and nonces follow from the run's seed, as in a simulation."""

    @field_validator("min_pool")
    @classmethod
    def _enough(cls, min_pool: int) -> int:
        if 0 < min_pool < SMALLEST_FIT:
            raise ValueError(
                f"input should be greater than or equal to {SMALLEST_FIT}, or 0 for what suits "
                "the federation"
            )
        return min_pool

    def fewest(self, upstream: int) -> int:
        """Return the fewest adapters for a prior in a federation of so many upstream clients.

        Where nobody knows how many there are, 0 stands for many.
        """
        if self.min_pool:
            return self.min_pool
        share = math.ceil(_USUAL_SHARE * upstream) if upstream else _USUAL_POOL
        return min(_USUAL_POOL, max(SMALLEST_FEDERATION, share))


class EvaluationSettings(Section):
    """What a simulation measures beyond the protocol, on test examples."""

    baselines: bool = True
    """Compare the prior with Gaussian, jitter and pool resampling at equal M."""
    candidates: int = Field(default=1000, ge=1)
    clients: int = Field(default=20, ge=1)
    """Most new clients on whose examples recipes are replayed and priors compared, and of whom
    fewer examples than theirs are certified without the federation. What all of them are
    certified for, and would be without it, is measured in any case."""


def _are_sizes(text: str) -> bool:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        return False
    sizes = [int(part) for part in parts]
    return sizes[0] >= 1 and all(one < other for one, other in pairwise(sizes))
