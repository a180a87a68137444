"""Conditional priors: a shift of the candidates that a condition predicts, plus the rest.

A condition says something about a client's task before any of its certifying examples is
looked at: a description in words, embedded, or statistics of other examples. The prior is a
ridge regression of latents on conditions, with a prior of any kind on what the regression
leaves. How far to trust conditions is chosen by leave-one-out errors, and not to trust them at
all is among the choices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt

from fedcert.canonical import digest_json, digest_tensors
from fedcert.data.examples import Examples
from fedcert.errors import PriorError, RefusalError
from fedcert.priors.base import FloatArray, Prior, check_pool
from fedcert.priors.latent import LatentSpace
from fedcert.priors.nesting import nested_config, nested_prior, nested_tensors

__all__ = ["Condition", "ConditionalPrior"]

# Penalties per adapter; conditions are standardized, so 1 halves what they explain.
_PENALTIES = np.logspace(-2, 3, 21)
# Standard errors by which leave-one-out errors must fall before conditions are believed.
_CONVINCING = 2.0


class Ledger(Protocol):
    """Where a client writes down what its examples are spent on."""

    def keyed(self, *words: str) -> str:
        """Return a digest of words that nobody else can compute."""

    def spend(self, examples: Examples, purpose: str, *, claim: str) -> None:
        """Spend examples, or raise `RefusalError` if one of them is spent.

        Parameters
        ----------
        examples : Examples
            The examples to spend.
        purpose : str
            What they are spent on, in plain words.
        claim : str
            Digest of the use; the same use may come again.
        """


@dataclass(frozen=True)
class Condition:
    """What a client says about its task; make one with `from_text` or `from_examples`.

    Attributes
    ----------
    vector : numpy.ndarray
        Float64, shape ``(p,)``.
    source : str
        ``"text"`` or ``"examples"``.
    text : str
        The description; empty for examples.
    inputs : frozenset of str
        Digests of the inputs that it was computed from; empty for a text.
    """

    vector: FloatArray
    source: Literal["text", "examples"]
    text: str = ""
    inputs: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.vector.ndim != 1 or not np.isfinite(self.vector).all():
            raise PriorError("a condition must be a vector of finite numbers")
        if not (self.text if self.source == "text" else self.inputs):
            raise PriorError(
                "a condition must say what it was computed from, or nobody could tell whether "
                "it was the certifying examples; use Condition.from_text or from_examples"
            )

    @classmethod
    def from_text(cls, text: str, embed: Callable[[str], npt.NDArray[Any]]) -> Self:
        """Embed a description of the task."""
        return cls(np.asarray(embed(text), dtype=np.float64), "text", text=text)

    @classmethod
    def from_examples(
        cls,
        examples: Examples,
        describe: Callable[[Examples], npt.NDArray[Any]],
        *,
        ledger: Ledger,
    ) -> Self:
        """Compute statistics of examples, which are spent by that.

        Parameters
        ----------
        examples : Examples
            Examples that only the condition may depend on.
        describe : callable
            Computes numbers from them, shape ``(p,)``.
        ledger : Ledger
            Where the client keeps what it has spent.

        Returns
        -------
        Condition
            The condition, with digests of the examples behind it.

        Raises
        ------
        RefusalError
            If an example is spent on something else, a certificate for instance.
        """
        claim = ledger.keyed("condition", examples.multiset_digest(""))
        ledger.spend(examples, "computing a condition", claim=claim)
        return cls(
            np.asarray(describe(examples), dtype=np.float64),
            "examples",
            inputs=frozenset(examples.input_digests("")),
        )

    @property
    def digest(self) -> str:
        """Identity of the condition: its source and its numbers."""
        return digest_json(
            {"source": self.source, "vector": digest_tensors({"vector": self.vector})}
        )

    def check(self, examples: Examples) -> None:
        """Make sure that the condition was not computed from a support set.

        Raises
        ------
        RefusalError
            If it was, as far as can be seen: an example is among those that it was computed
            from, or stands in its text.
        """
        shared = sum(digest in self.inputs for digest in examples.input_digests(""))
        said = _collapsed(self.text)
        shared += sum(
            isinstance(item, str) and bool(item.strip()) and _collapsed(item) in said
            for item in examples.inputs
        )
        if shared:
            raise RefusalError(
                f"{shared} of the {len(examples)} examples went into the condition; a prior "
                "that has seen an example cannot be certified on it. Take a condition from a "
                "description of the task or from other examples"
            )


def _collapsed(text: str) -> str:
    return " ".join(text.split()).casefold()


class ConditionalPrior(Prior):
    """Candidates shifted by what a condition predicts.

    Without a condition it draws around the pool's mean. In a bundle, use `Bundle.given`.

    Parameters
    ----------
    rest : Prior
        The prior of adapters less what their conditions predict.
    center, scale : numpy.ndarray
        Mean and standard deviation of the pool's conditions, shape ``(p,)``.
    slope : numpy.ndarray
        Shift of an adapter per standard deviation of each condition, shape ``(p, d)``.
    condition : numpy.ndarray or None
        The condition, shape ``(p,)``.
    """

    kind = "conditional"

    def __init__(
        self,
        rest: Prior,
        *,
        center: FloatArray,
        scale: FloatArray,
        slope: FloatArray,
        condition: FloatArray | None = None,
    ) -> None:
        self._rest, self._center, self._scale, self._slope = rest, center, scale, slope
        self._condition = condition
        shift = np.zeros(rest.dimension)
        if condition is not None:
            shift = ((condition - center) / scale) @ slope
        self._shift = shift

    @classmethod
    def fit(cls, pool: FloatArray, *, seed: int) -> Self:
        """Refuse: there is nothing to condition on; see `fit_conditional`."""
        raise PriorError("a conditional prior needs a condition for every adapter of the pool")

    @classmethod
    def fit_conditional(
        cls, pool: FloatArray, conditions: FloatArray, *, rest: type[Prior], seed: int
    ) -> Self:
        """Fit the regression, and a prior to what it leaves.

        Parameters
        ----------
        pool, conditions : numpy.ndarray
            Adapters ``(N, d)`` and their clients' conditions ``(N, p)``.
        rest : type of Prior
            The kind of prior for what the regression leaves.
        seed : int
            Seed of that prior's fit.

        Returns
        -------
        ConditionalPrior
            A prior that takes a condition (`given`).

        Raises
        ------
        PriorError
            If there is not one finite condition per adapter.
        """
        pool = check_pool(pool, at_least=4)
        conditions = np.asarray(conditions, dtype=np.float64)
        if conditions.ndim != 2 or len(conditions) != len(pool):
            raise PriorError(
                f"{len(pool)} adapters need a matrix of as many conditions, one per row"
            )
        if not np.isfinite(conditions).all():
            raise PriorError("a condition holds NaN or an infinity")
        latent = LatentSpace.of(pool)
        center, scale = conditions.mean(axis=0), conditions.std(axis=0)
        scale = np.where(scale > 1e-12 * (1 + np.abs(center)), scale, np.inf)
        latents = latent.encode(pool)
        weights, left = _ridge((conditions - center) / scale, latents)
        to_adapters = latent.std[:, None] * latent.directions * latent.scale
        # What is left of an adapter is judged by a regression that has not seen it: fitted to
        # its own residuals, the prior would be too narrow for new clients.
        residuals = pool - (latents - left) @ to_adapters
        scale = np.where(np.isinf(scale), 1.0, scale)
        return cls(
            rest.fit(residuals, seed=seed),
            center=center,
            scale=scale,
            slope=weights @ to_adapters,
        )

    def given(self, condition: FloatArray) -> Self:
        """Return the prior for one client.

        Raises
        ------
        PriorError
            If the condition has another length than those of the pool.
        """
        if condition.shape != self._center.shape:
            raise PriorError(
                f"the condition has {condition.size} numbers; this prior's have "
                f"{self._center.size}: it comes from another encoder"
            )
        return type(self)(
            self._rest,
            center=self._center,
            scale=self._scale,
            slope=self._slope,
            condition=condition,
        )

    @property
    def dimension(self) -> int:
        """d, the number of coordinates of an adapter."""
        return self._rest.dimension

    @property
    def noise_width(self) -> int:
        """That of the prior of the rest."""
        return self._rest.noise_width

    def transform(self, noise: FloatArray) -> FloatArray:
        """Shift what the prior of the rest makes of the noise."""
        return self._rest.transform(noise) + self._shift

    def center(self) -> FloatArray:
        """Shift the center of the prior of the rest."""
        return self._rest.center() + self._shift

    def config(self) -> dict[str, Any]:
        """Return kind and settings of the prior of the rest."""
        return nested_config(self._rest)

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return the regression, the condition if there is one, and the rest's arrays."""
        own = {"center": self._center, "scale": self._scale, "slope": self._slope}
        if self._condition is not None:
            own["condition"] = self._condition
        return own | nested_tensors(self._rest)

    @classmethod
    def from_parts(
        cls, config: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]
    ) -> Self:
        """Rebuild from `config` and `tensors`."""
        return cls(
            nested_prior(config, tensors),
            center=tensors["center"],
            scale=tensors["scale"],
            slope=tensors["slope"],
            condition=tensors.get("condition"),
        )


def _ridge(conditions: FloatArray, latents: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Regress centered latents ``(N, q)`` on standardized conditions ``(N, p)``.

    The penalty has the lowest leave-one-out error, in closed form (Allen's PRESS, 1974). If
    that is not convincingly below the error without conditions, nothing is regressed.

    Returns
    -------
    tuple of numpy.ndarray
        Weights ``(p, q)`` and leave-one-out residuals ``(N, q)``.
    """
    count = len(latents)
    left, values, right = np.linalg.svd(conditions, full_matrices=False)
    along = left.T @ latents
    alone = latents / (1 - 1 / count)
    best, weights, residuals = np.inf, np.zeros((conditions.shape[1], latents.shape[1])), alone
    for penalty in _PENALTIES * count:
        kept = values**2 / (values**2 + penalty)
        leverage = (left**2 @ kept) + 1 / count
        press = (latents - left @ (kept[:, None] * along)) / (1 - leverage)[:, None]
        error = float(np.sum(press**2))
        if error < best:
            shrunk = (values / (values**2 + penalty))[:, None] * along
            best, weights, residuals = error, right.T @ shrunk, press
    gains = np.sum(alone**2, axis=1) - np.sum(residuals**2, axis=1)
    if gains.mean() <= _CONVINCING * gains.std(ddof=1) / count**0.5:
        return np.zeros_like(weights), latents
    return weights, residuals
