"""What every prior must do; each variant inherits this suite."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest

from fedcert.errors import PriorError
from fedcert.priors import Prior, prior_from_parts

from .pools import DIMENSION, gaussian_pool

SEED = "0123456789abcdef" * 4
OTHER = "f" + SEED[1:]


def rebuilt(prior: Prior) -> Prior:
    """Return the prior as a bundle reads it again, whose settings are JSON."""
    return prior_from_parts(prior.kind, json.loads(json.dumps(prior.config())), prior.tensors())


class PriorContract(ABC):
    """The suite; `least` is how many adapters a fit needs."""

    kind: ClassVar[str]
    least: ClassVar[int]

    @classmethod
    @abstractmethod
    def fit(cls, pool: np.ndarray, *, seed: int = 0) -> Prior:
        """Fit the prior, fast."""

    @pytest.fixture(scope="class")
    @classmethod
    def prior(cls) -> Prior:
        return cls.fit(gaussian_pool(32))

    def test_dimension_and_kind(self, prior: Prior) -> None:
        assert prior.dimension == DIMENSION
        assert prior.kind == self.kind
        samples = prior.sample(SEED, count=3)
        assert samples.shape == (3, DIMENSION)
        assert samples.dtype == np.float64
        assert np.isfinite(samples).all()
        assert prior.sample(SEED, count=0).shape == (0, DIMENSION)

    @pytest.mark.parametrize("chunk", [1, 3, 16])
    def test_a_candidate_depends_on_seed_and_index_alone(
        self, prior: Prior, chunk: int
    ) -> None:
        whole = prior.sample(SEED, start=5, count=20)
        parts = [
            prior.sample(SEED, start=start, count=min(chunk, 25 - start))
            for start in range(5, 25, chunk)
        ]
        np.testing.assert_allclose(np.concatenate(parts), whole, rtol=0, atol=1e-12)

    def test_other_seeds_give_other_candidates(self, prior: Prior) -> None:
        first, second = prior.sample(SEED, count=20), prior.sample(OTHER, count=20)
        assert np.any(first != second, axis=1).sum() > 10
        assert len(np.unique(first, axis=0)) > 10

    def test_samples_have_the_moments_of_the_pool(self, prior: Prior) -> None:
        pool, samples = gaussian_pool(32), prior.sample(SEED, count=1500)
        # Four standard errors of the larger spread that jitter and diffusion may have.
        assert np.all(
            np.abs(samples.mean(axis=0) - pool.mean(axis=0)) < 0.15 * pool.std(axis=0)
        )
        ratio = samples.std(axis=0) / pool.std(axis=0)
        assert 0.85 < ratio.min() < ratio.max() < 1.5

    def test_its_center_is_the_mean_of_the_pool(self, prior: Prior) -> None:
        center = prior.center()
        assert (center.shape, center.dtype) == ((DIMENSION,), np.float64)
        np.testing.assert_allclose(center, gaussian_pool(32).mean(axis=0), atol=1e-9)

    def test_its_axes_are_as_long_as_candidates_vary(self, prior: Prior) -> None:
        axes, samples = prior.axes(), prior.sample(SEED, count=1500)
        assert (axes.dtype, axes.shape[1]) == (np.float64, DIMENSION)
        ratio = np.sqrt(np.square(axes).sum(axis=0)) / samples.std(axis=0)
        assert 0.65 < ratio.min() < ratio.max() < 1.25

    def test_whoever_changes_a_center_changes_nobody_else_s(self, prior: Prior) -> None:
        before = prior.digest
        prior.center()[:] = 7.0
        assert prior.digest == before

    def test_the_same_pool_and_seed_give_the_same_prior(self, prior: Prior) -> None:
        assert self.fit(gaussian_pool(32)).digest == prior.digest
        assert self.fit(gaussian_pool(32, seed=1)).digest != prior.digest

    def test_fitting_leaves_the_pool_alone(self) -> None:
        pool = gaussian_pool(16)
        self.fit(pool)
        np.testing.assert_array_equal(pool, gaussian_pool(16))

    def test_parts_make_an_equal_prior(self, prior: Prior) -> None:
        again = rebuilt(prior)
        assert type(again) is type(prior)
        assert again.digest == prior.digest
        np.testing.assert_array_equal(again.center(), prior.center())
        np.testing.assert_array_equal(
            again.sample(SEED, count=10), prior.sample(SEED, count=10)
        )

    def test_a_changed_array_is_another_prior(self, prior: Prior) -> None:
        for name, array in prior.tensors().items():
            changed = array.copy()
            changed.flat[0] = changed.flat[0] + 1
            tensors = prior.tensors() | {name: changed}
            assert _digest_or_refusal(self.kind, prior.config(), tensors) != prior.digest

    def test_a_changed_setting_is_another_prior(self, prior: Prior) -> None:
        for name, value in prior.config().items():
            config = prior.config() | {name: 1.5 * value if isinstance(value, float) else 7}
            assert _digest_or_refusal(self.kind, config, prior.tensors()) != prior.digest

    @pytest.mark.parametrize(
        ("kind", "text"),
        [
            ("oracle", "unknown prior 'oracle'; this version knows diffusion, gau"),
            (None, "unknown prior None"),
        ],
    )
    def test_a_kind_that_nobody_knows_is_refused(
        self, prior: Prior, kind: Any, text: str
    ) -> None:
        with pytest.raises(PriorError, match=text):
            prior_from_parts(kind, prior.config(), prior.tensors())

    def test_a_missing_array_is_refused(self, prior: Prior) -> None:
        for name in prior.tensors():
            tensors = {k: t for k, t in prior.tensors().items() if k != name}
            with pytest.raises(PriorError, match=f"the {self.kind} prior is damaged"):
                prior_from_parts(self.kind, prior.config(), tensors)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_a_pool_that_is_not_finite_is_refused(self, bad: float) -> None:
        pool = gaussian_pool(16)
        pool[3, 4] = bad
        with pytest.raises(PriorError, match="a finite matrix with one adapter per row"):
            self.fit(pool)

    def test_a_pool_that_is_no_matrix_is_refused(self) -> None:
        with pytest.raises(PriorError, match="a finite matrix with one adapter per row"):
            self.fit(np.ones(30))

    def test_too_few_adapters_are_refused(self) -> None:
        text = f"{self.least - 1} adapters are too few .* it needs {self.least}"
        with pytest.raises(PriorError, match=text):
            self.fit(gaussian_pool(self.least - 1))
        self.fit(gaussian_pool(self.least))


def _digest_or_refusal(
    kind: str, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> str:
    try:
        return prior_from_parts(kind, config, tensors).digest
    except PriorError as error:
        return str(error)
