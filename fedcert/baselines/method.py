"""One interface for everything that personalizes and certifies, fedcert included.

A method knows what the federation knows before a new client comes (`Upstream`), gets the
client's labeled examples, and returns what it would hand out with the bound that holds for
it. The bounds are those of certificates, but nothing is signed or committed to: methods are
here to be compared.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from typing import Any, ClassVar, Self, TypeVar, cast

import numpy as np
import numpy.typing as npt

from fedcert.adapters.constants import constant_adapters
from fedcert.adapters.constants import head_bias as head_bias_in
from fedcert.adapters.finetune import FinetuneSettings
from fedcert.adapters.forward import AdaptedModel
from fedcert.certificates import SplitRecipe, binomial_upper_bound
from fedcert.certificates.replay import disjoint_parts
from fedcert.data.examples import Examples
from fedcert.errors import SettingsError
from fedcert.priors.base import FloatArray, Prior
from fedcert.search import BatchedScorer
from fedcert.search.scores import Scores

__all__ = ["FiniteMethod", "Method", "Personalized", "SplitMethod", "Traffic", "Upstream"]

T = TypeVar("T")

BYTES_PER_NUMBER = 4
"""Adapters travel in float32."""


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Personalized:
    """What a method hands out, and what it says about it.

    Attributes
    ----------
    adapters : numpy.ndarray
        Float64, shape ``(H, d)``. With H = 1 it is an adapter; otherwise each prediction
        draws one of the H afresh, and the bound is on the risk of that.
    certificate : float
        Upper bound on the risk, with probability at least 1 - delta.
    shared_seconds : float
        Time that a device would spend alone and that clients here shared, such as drawing
        candidates (default: 0).
    """

    adapters: FloatArray
    certificate: float
    shared_seconds: float = 0.0


@dataclass(frozen=True)
class Traffic:
    """Bytes that an upstream client sends in all, and that a new client receives."""

    up: int
    down: int


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Personalizes and certifies; its fields are its hyper-parameters.

    A method of your own is a frozen dataclass in one file: give it a `name`, fields with
    defaults, `personalize` and `traffic`; `variants` says what to try on tuning clients.

    Parameters
    ----------
    upstream : Upstream
        What there is before a new client comes.
    """

    name: ClassVar[str]
    runs_model: ClassVar[bool] = True
    """Whether a client has to run the base model to learn."""
    upstream: Upstream = field(repr=False, compare=False)

    @classmethod
    def variants(cls, upstream: Upstream) -> Sequence[Self]:
        """Return what to try on tuning clients, at most eight; by default the defaults."""
        return [cls(upstream=upstream)]

    def tries(self, n: int) -> bool:
        """Return whether it is worth trying with n examples; by default always."""
        del n
        return True

    def trial(self, examples: Examples, n: int) -> float:
        """Return what to expect of the method with n examples, from a tuning client's.

        By default the certificate of the first n. Whoever can do so at little cost averages
        over more of the client's examples, since chance moves a single certificate a lot.

        Parameters
        ----------
        examples : Examples
            All that the client has, the same object at each call.
        n : int
            Size of the support set, at most their number.
        """
        return self.personalize(examples.take(slice(0, n))).certificate

    def prepare(self) -> None:  # noqa: B027 - most methods have nothing to do
        """Do what the server does before a client comes, so that it is not the client's time.

        By default nothing: what is needed is made, and kept, when it is first asked for.
        """

    @abstractmethod
    def personalize(self, examples: Examples) -> Personalized:
        """Learn from a new client's n examples, in the order in which they are spent."""

    @abstractmethod
    def traffic(self) -> Traffic:
        """Return what upstream and new clients transfer."""

    def config(self) -> dict[str, Any]:
        """Return the hyper-parameters as a JSON object."""
        return {"method": self.name} | {
            entry.name: _json(getattr(self, entry.name))
            for entry in fields(self)
            if entry.name != "upstream"
        }

    def score(self, adapters: FloatArray, examples: Examples) -> Scores:
        """Return errors and losses of adapters ``(H, d)``, as certificates count them."""
        return self.upstream.scorer.score(np.atleast_2d(adapters), examples)


@dataclass(frozen=True, kw_only=True)
class FiniteMethod(Method):
    """Chooses on all n examples among adapters that owe nothing to them, and share delta.

    The bound is B(k, n, delta, 1/H) for H adapters (Langford, JMLR 6, 2005): with one of them
    there is nothing to choose, and all examples certify it.
    """

    @abstractmethod
    def adapters(self) -> FloatArray:
        """Return what can be handed out, shape ``(H, d)``."""

    def personalize(self, examples: Examples) -> Personalized:
        """Take the adapter with the fewest errors, the lowest loss among equals."""
        adapters = self.adapters()
        winner, errors, _ = self.score(adapters, examples).best()
        budget = self.upstream.delta / len(adapters)
        return Personalized(
            adapters=adapters[[winner]],
            certificate=binomial_upper_bound(errors, len(examples), budget),
        )

    def trial(self, examples: Examples, n: int) -> float:
        """Average over disjoint parts of n: one table of errors serves them all."""
        adapters = self.adapters()
        wrong = self.upstream.during_trials(
            examples, self.config(), lambda: self.score(adapters, examples).wrong
        )
        # Who wins among equals does not matter to the bound.
        errors = [
            int(wrong[:, part].sum(axis=1).min()) for part in disjoint_parts(len(examples), n)
        ]
        budget = self.upstream.delta / len(adapters)
        return float(np.mean([binomial_upper_bound(k, n, budget) for k in errors]))


@dataclass(frozen=True, kw_only=True)
class SplitMethod(Method):
    """Learns from the first part of the examples; the rest certifies at all of delta.

    Whatever the learning does, the bound is the test set bound of Langford (JMLR 6, 2005).

    Parameters
    ----------
    choose_fraction : float (default: 0.5)
        Share of the examples to learn from.
    """

    choose_fraction: float = 0.5

    @abstractmethod
    def learn(self, examples: Examples) -> FloatArray:
        """Return an adapter, float64 of shape ``(d,)``, from these examples alone."""

    def personalize(self, examples: Examples) -> Personalized:
        """Learn from the first part, and certify on the rest."""
        learned = self._recipe.choosing(len(examples)).size
        adapter = self.learn(examples.take(slice(0, learned)))
        certifying = examples.take(slice(learned, None))
        errors = int(self.score(adapter, certifying).wrong.sum())
        bound = binomial_upper_bound(errors, len(certifying), self.upstream.delta)
        return Personalized(adapters=adapter[None], certificate=bound)

    def trial(self, examples: Examples, n: int) -> float:
        """Learn from the first part of n, and average over certifying parts of all the rest.

        What is learned from as many examples with another share is not learned again.
        """
        learned = self._recipe.choosing(n).size

        def errors() -> npt.NDArray[np.bool_]:
            adapter = self.learn(examples.take(slice(0, learned)))
            wrong: npt.NDArray[np.bool_] = self.score(
                adapter, examples.take(slice(learned, None))
            ).wrong[0]
            return wrong

        key = self.config() | {"choose_fraction": None, "learned": learned}
        wrong = self.upstream.during_trials(examples, key, errors)
        size, delta = n - learned, self.upstream.delta
        counts = [int(wrong[part].sum()) for part in disjoint_parts(len(wrong), size)]
        return float(np.mean([binomial_upper_bound(k, size, delta) for k in counts]))

    @property
    def _recipe(self) -> SplitRecipe:
        return SplitRecipe(
            candidates=1, delta=self.upstream.delta, choose_fraction=self.choose_fraction
        )


def constants_of(upstream: Upstream) -> FloatArray:
    """Return one adapter for each label that always predicts it, shape ``(K, d)``.

    Raises
    ------
    SettingsError
        If the model has none.
    """
    if not len(upstream.constants):
        raise _no_bias(upstream)
    return upstream.constants


def constant_adapter(upstream: Upstream, examples: Examples) -> FloatArray:
    """Return the adapter that always predicts the first example's label, shape ``(d,)``."""
    adapter: FloatArray = constants_of(upstream)[int(examples.labels[0])]
    return adapter


def head_bias(upstream: Upstream) -> slice:
    """Return where in an adapter the bias of the head's last layer stands.

    Raises
    ------
    SettingsError
        If the model has no such bias, as a label scorer.
    """
    place = head_bias_in(upstream.model.space, upstream.model.base.num_labels)
    if place is None:
        raise _no_bias(upstream)
    return place


def _no_bias(upstream: Upstream) -> SettingsError:
    return SettingsError(
        f"the base model {upstream.model.base.name} has no head with a bias for its "
        f"{upstream.model.base.num_labels} labels, so there is no intercept to learn; leave "
        "this method out"
    )


def one_label(examples: Examples) -> bool:
    """Return whether there is at most one label, so that nothing can be learned by descent."""
    return len(np.unique(examples.labels)) < 2


def float64(vector: npt.NDArray[Any]) -> FloatArray:
    """Return a vector in the precision that scorers take."""
    return np.asarray(vector, dtype=np.float64)


# What records and caches call a hyper-parameter, where its name has changed since.
_SAVED_AS = {"proximal_mu": "pull"}


def _json(value: object) -> Any:
    if is_dataclass(value):
        return {
            _SAVED_AS.get(entry.name, entry.name): _json(getattr(value, entry.name))
            for entry in fields(value)
        }
    return value
