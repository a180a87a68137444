"""What every method is given before a new client comes, and what methods share of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar, cast

from fedcert.adapters.constants import constant_adapters, head_bias
from fedcert.adapters.finetune import FinetuneSettings
from fedcert.adapters.forward import AdaptedModel
from fedcert.arrays import FloatArray
from fedcert.data.examples import Examples
from fedcert.errors import SettingsError
from fedcert.priors.base import Prior
from fedcert.search import BatchedScorer
from fedcert.search.scores import Scores

__all__ = ["Upstream"]

T = TypeVar("T")

_BYTES_PER_NUMBER = 4  # adapters travel in float32


def _compute(_identity: object, compute: Callable[[], FloatArray]) -> FloatArray:
    return compute()


@dataclass(frozen=True, kw_only=True, eq=False)
class Upstream:
    """What there is before a new client comes; every method gets the same.

    Attributes
    ----------
    model : AdaptedModel
        The task's model.
    clients : Mapping[str, Examples]
        Training examples of the upstream clients, for federated training. They stay with
        them: only adapters go to the server.
    pool : numpy.ndarray
        The adapters that the same clients uploaded, shape ``(N, d)``.
    prior : Prior
        Fitted to the pool.
    training : FinetuneSettings
        How the clients trained their adapters; what methods try lies around it.
    delta : float
        Probability with which each bound may fail.
    candidates : int
        M of the recipes that search.
    steel_candidates : int
        M of STEEL as published.
    seed : int
        Of all training and drawing.
    remember : callable
        Returns an array for an identity, a JSON value: computed by the callable that it is
        given, or known from before (default: compute).
    """

    model: AdaptedModel
    clients: Mapping[str, Examples]
    pool: FloatArray
    prior: Prior
    training: FinetuneSettings
    delta: float
    candidates: int
    steel_candidates: int
    seed: int
    remember: Callable[[object, Callable[[], FloatArray]], FloatArray] = _compute
    drawn: dict[int, tuple[FloatArray, float]] = field(default_factory=dict, init=False)
    """Candidates of the prior that clients share, and the seconds it took, by their number."""
    scored: dict[tuple[int, int], tuple[Examples, Scores, float]] = field(
        default_factory=dict, init=False, repr=False
    )
    """Scores of candidates on the last few support sets, which recipes share."""
    _known: dict[str, FloatArray] = field(default_factory=dict, init=False, repr=False)
    _trials: dict[int, tuple[Examples, dict[str, Any]]] = field(
        default_factory=dict, init=False, repr=False
    )

    @cached_property
    def scorer(self) -> BatchedScorer:
        """Count errors as certificates do: a prediction too close to call is wrong."""
        return BatchedScorer(self.model, margin_tolerance=1e-4)

    @cached_property
    def constants(self) -> FloatArray:
        """One adapter for each label that always predicts it; none if no bias can do that."""
        return constant_adapters(self.model.space, self.model.base.num_labels)

    @property
    def dimension(self) -> int:
        """d, the number of coordinates of an adapter."""
        return self.model.space.dimension

    @property
    def adapter_bytes(self) -> int:
        """What an adapter takes as it travels."""
        return self.dimension * _BYTES_PER_NUMBER

    @property
    def head_bias(self) -> slice:
        """Where in an adapter the bias of the head's last layer stands.

        Raises
        ------
        SettingsError
            If the model has no such bias, as a label scorer.
        """
        place = head_bias(self.model.space, self.model.base.num_labels)
        if place is None:
            raise SettingsError(
                f"the base model {self.model.base.name} has no head with a bias for its "
                f"{self.model.base.num_labels} labels, so there is no intercept to learn; "
                "leave this method out"
            )
        return place

    def during_trials(self, examples: Examples, key: object, compute: Callable[[], T]) -> T:
        """Compute what several variants or sizes need of one tuning client's examples, once.

        It is forgotten when examples of another client come.

        Parameters
        ----------
        examples : Examples
            The tuning client's examples.
        key : object
            Tells apart what is computed from them.
        compute : callable
            Computes it.

        Returns
        -------
        T
            The value of `compute`, maybe from an earlier call.
        """
        if id(examples) not in self._trials:
            self._trials.clear()
            # The examples are kept along, so that their id stays their own.
            self._trials[id(examples)] = examples, {}
        known = self._trials[id(examples)][1]
        if repr(key) not in known:
            known[repr(key)] = compute()
        return cast("T", known[repr(key)])

    def once(
        self, identity: Mapping[str, Any], compute: Callable[[], FloatArray]
    ) -> FloatArray:
        """Compute an array that several methods or clients share, once."""
        key = repr(sorted(identity.items()))
        if key not in self._known:
            self._known[key] = self.remember(dict(identity), compute)
        return self._known[key]
