"""The shape of `results.json`, as the report reads it.

Only what cannot be reported without is required; everything else may be missing or null,
and unknown keys are ignored, so that a newer run can be read by an older report.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fedcert.errors import FedcertError
from fedcert.reports.formats import clean_text

__all__ = [
    "RESULTS_FORMAT",
    "BoundByN",
    "Client",
    "Communication",
    "Data",
    "Failure",
    "Local",
    "Nearest",
    "PlannedSize",
    "Prior",
    "Profile",
    "Projection",
    "Promised",
    "Results",
    "SizeAlone",
    "WarmRound",
    "WarmStart",
    "read_results",
]

RESULTS_FORMAT = "fedcert.results/1"

_T = TypeVar("_T")
_K = TypeVar("_K")
_V = TypeVar("_V")


def _clean(value: object) -> object:
    return clean_text(value) if isinstance(value, str) else value


def _as_text(value: object) -> object:
    # Versions and machine facts may be numbers or null; the footer only prints them.
    return clean_text("" if value is None else str(value))


# Null means empty wherever a collection is expected: runs write it for skipped sections.
Rows = Annotated[tuple[_T, ...], BeforeValidator(lambda rows: () if rows is None else rows)]
Table = Annotated[dict[_K, _V], BeforeValidator(lambda rows: {} if rows is None else rows)]
Text = Annotated[str, BeforeValidator(_clean)]
AnyText = Annotated[str, BeforeValidator(_as_text)]
Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]
Point = tuple[float, float]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Promised(_Record):
    """What a certificate was asked to promise beside its bound, and what became of it."""

    asked: Text
    given: bool
    figures: Table[Text, float] = {}


class Client(_Record):
    """One new client's outcome."""

    client: Text
    n: int = Field(ge=0)
    bound: Share
    recipe: Text | None = None
    candidates: int | None = None
    errors: Amount | None = None
    certified_on: int | None = None
    test_error: Share | None = None
    test_examples: int | None = None
    seconds: Amount | None = None
    certificate: Text | None = None
    page: Text | None = None
    delta: Share | None = None
    verified: bool | None = None
    local_bound: Share | None = None
    local_error: Share | None = None
    elsewhere_error: Share | None = None
    errors_by_label: Table[Text, tuple[int, int]] = {}
    promises: Rows[Promised] = ()


class BoundByN(_Record):
    """The mean certificate of one recipe at one number of support examples."""

    recipe: Text
    n: int = Field(ge=1)
    bound: Share
    test_error: Share | None = None


class SizeAlone(_Record):
    """What clients get on their own at one number of support examples."""

    n: int = Field(ge=1)
    bound: Share
    test_error: Share | None = None


class Local(_Record):
    """What new clients get from their labels without a federation, in the mean."""

    by_n: Rows[SizeAlone] = ()


class Data(_Record):
    """The clients' examples: a digest of all, and by role how many there are of each label."""

    digest: Text | None = None
    examples: Table[Text, int] = {}
    labels: Table[Text, Table[Text, int]] = {}


class PlannedSize(_Record):
    """What planning clients lead one to expect of the planned recipe at one size."""

    n: int = Field(ge=1)
    recipe: Text
    mean: Share
    low: Share
    high: Share
    clients: int = Field(default=1, ge=1)
    tail: Share | None = None


class Projection(_Record):
    """Adapters in the first two principal directions."""

    pool: Rows[Point] = ()
    held_out: Rows[Point] = ()
    samples: Rows[Point] = ()


class Nearest(_Record):
    """The memorization gate: how near samples come to the adapters of the pool."""

    samples: Rows[Amount] = ()
    held_out: Rows[Amount] = ()
    ratio: Amount | None = None
    threshold: Amount | None = None
    passed: bool | None = None


class Prior(_Record):
    """What the server fitted to the pool."""

    kind: Text | None = None
    adapter_dimension: int | None = None
    latent_dimension: int | None = None
    pool_size: int | None = None
    choice: Text | None = None
    projection: Projection | None = None
    nearest: Nearest | None = None


class BestOf(_Record):
    """The risk on unseen tasks of the best of `m` candidates."""

    m: int = Field(ge=1)
    risk: Share
    se: Amount | None = None


class Profile(_Record):
    """The best-of-M risks of one prior."""

    prior: Text
    best_of: Rows[BestOf] = ()


class Communication(_Record):
    """Bytes on the wire."""

    upload_bytes_per_client: Amount | None = None
    download_bytes_per_new_client: Amount | None = None
    upload_bytes: Amount | None = None
    download_bytes: Amount | None = None


class WarmRound(_Record):
    """One round of a warm start."""

    clients: int = Field(ge=0)
    loss: Amount | None = None


class WarmPrivacy(_Record):
    """What a warm start promises about the clients that trained the base model."""

    words: Text


class WarmStart(_Record):
    """How the base model was improved before adapters were harvested."""

    before: Text
    after: Text
    rounds: Rows[WarmRound] = ()
    clients: int = Field(ge=0)
    bytes_up: Amount | None = None
    bytes_down: Amount | None = None
    privacy: WarmPrivacy | None = None


class Timing(_Record):
    """The wall-clock time of one phase."""

    phase: Text
    seconds: Amount


class Failure(_Record):
    """One deduplicated cause, how many clients it hit, and the first few of them."""

    cause: Text
    phase: Text | None = None
    clients: int = Field(default=1, ge=0)
    named: Rows[Text] = ()


class Results(_Record):
    """Everything that the report shows."""

    scenario: Text
    clients: tuple[Client, ...]
    description: Text | None = None
    seed: AnyText = ""
    method: Text = "prior"
    command: Text | None = None
    machine: Table[Text, AnyText] = {}
    versions: Table[Text, AnyText] = {}
    labels: Rows[AnyText] = ()
    chance: Share | None = None
    delta: Share | None = None
    finished: Text | None = None
    local: Local | None = None
    data: Data | None = None
    bound_by_n: Rows[BoundByN] = ()
    plan: Rows[PlannedSize] = ()
    prior: Prior | None = None
    profiles: Rows[Profile] = ()
    communication: Communication | None = None
    warm_start: WarmStart | None = None
    timings: Rows[Timing] = ()
    failures: Rows[Failure] = ()
    statement: Text | None = None
    assumptions: Rows[Text] = ()
    digests: Table[Text, AnyText] = {}
    bundle_version: AnyText = ""
    peak_rss_mib: Amount | None = None

    @property
    def chance_error(self) -> float | None:
        """The error of guessing: as given, else 1 - 1/K for K labels, else unknown."""
        if self.chance is not None or len(self.labels) < 2:
            return self.chance
        return 1 - 1 / len(self.labels)


def read_results(results: Mapping[str, Any]) -> Results:
    """Check a results dictionary and give it a shape.

    Raises
    ------
    FedcertError
        If the format is another one, a required key is missing, or a value cannot be
        shown; the message names the key.
    """
    if not isinstance(results, Mapping):
        kind = type(results).__name__
        raise FedcertError(f"results must be a dictionary of {RESULTS_FORMAT}, not a {kind}")
    _check_keys(results)
    try:
        return Results.model_validate(dict(results))
    except ValidationError as error:
        raise FedcertError(_explain(error)) from error


def _check_keys(results: Mapping[str, Any]) -> None:
    for key in ("format", "scenario", "clients"):
        if key not in results:
            raise FedcertError(
                f"results lack the required key {key!r}: pass all of a run's results.json"
            )
    if results["format"] != RESULTS_FORMAT:
        raise FedcertError(
            f"results have 'format' {results['format']!r}, but this version of fedcert "
            f"reports on {RESULTS_FORMAT!r}: use the version that wrote them"
        )


def _explain(error: ValidationError) -> str:
    """Name the first bad value; the rest are usually copies of the same mistake."""
    problems = error.errors(include_url=False)
    where = ".".join(str(step) for step in problems[0]["loc"])
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"results have a bad value at '{where}': {problems[0]['msg']}{more}"
