"""One interface for everything that personalizes and certifies, fedcert included.

A method knows what the federation knows before a new client comes (`Upstream`), gets the
client's labeled examples, and returns what it would hand out with the bound that holds for
it. The bounds are those of certificates, but nothing is signed or committed to: methods are
here to be compared.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from fedcert.arrays import FloatArray
from fedcert.certificates import SplitRecipe, binomial_upper_bound
from fedcert.certificates.replay import disjoint_parts
from fedcert.data.examples import Examples
from fedcert.methods.traffic import Traffic
from fedcert.search.scores import Scores
from fedcert.simulations.benchmarks.comparison.upstream import Upstream

__all__ = ["FiniteMethod", "Method", "Personalized", "SplitMethod", "one_label"]


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


def one_label(examples: Examples) -> bool:
    """Return whether there is at most one label, so that nothing can be learned by descent."""
    return len(np.unique(examples.labels)) < 2


def _json(value: Any) -> Any:
    """Return a hyper-parameter as JSON; settings say it themselves."""
    return value.to_config() if hasattr(value, "to_config") else value
