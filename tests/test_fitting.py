"""Fitting with screening, audits, and what happens when an audit does not pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from priors.pools import gaussian_pool

from fedcert.canonical import canonical_json
from fedcert.errors import PriorError
from fedcert.fitting import fit_prior
from fedcert.settings.sections import PriorSettings


def _settings(**changes: Any) -> PriorSettings:
    return PriorSettings(
        **({"kind": "gaussian", "audit_share": 0.25, "robust": False} | changes)
    )


def test_a_gaussian_on_an_honest_pool_passes_without_a_word() -> None:
    fitted = fit_prior(gaussian_pool(128), settings=_settings(), seed=0)
    assert (fitted.warnings, fitted.complaints, fitted.instead_of) == ((), (), None)
    notes = fitted.notes()
    assert notes["pool"] == 128
    assert notes["left_out"] == {}
    assert notes["membership_passed"] is True
    assert notes["nearest_pool_passed"] is True
    canonical_json(notes)


@pytest.mark.parametrize("kind", ["pool", "jitter"])
def test_a_prior_that_gives_its_pool_away_is_replaced(kind: str) -> None:
    fitted = fit_prior(gaussian_pool(128), settings=_settings(kind=kind), seed=0)
    assert fitted.prior.kind == "gaussian"
    assert fitted.instead_of is not None
    assert fitted.instead_of.prior.kind == kind
    assert fitted.complaints == ()
    assert len(fitted.warnings) == 1
    assert f"the {kind} prior does not pass its audits" in fitted.warnings[0]
    assert f"since the {kind} prior does not pass" in fitted.notes()["choice"]


def test_with_warn_it_stays() -> None:
    settings = _settings(kind="pool", on_memorization="warn")
    fitted = fit_prior(gaussian_pool(128), settings=settings, seed=0)
    assert (fitted.prior.kind, fitted.instead_of) == ("pool", None)
    assert len(fitted.complaints) == 2
    assert "at 0.00 times the distance of held-out adapters" in fitted.warnings[0]
    assert "up to 1.00 for all that" in fitted.warnings[0]
    assert fitted.notes()["membership_passed"] is False


def test_a_warning_says_what_a_failed_audit_means_and_what_to_do() -> None:
    settings = _settings(kind="pool", on_memorization="warn")
    [warning] = fit_prior(gaussian_pool(128), settings=settings, seed=0).warnings
    assert "picks the member's 100% of the time" in warning
    assert "privacy.central_epsilon bounds it" in warning
    # The attack is no better than guessing, and few held-out adapters leave more open.
    settings = _settings(largest_advantage=0.45, on_memorization="warn")
    fitted = fit_prior(gaussian_pool(128), settings=settings, seed=0)
    worst = replace(fitted.membership.worst, advantage=0.3, lower=0.0, upper=0.5)
    unsure = replace(fitted, membership=replace(fitted.membership, attacks=(worst,)))
    assert "a larger prior.audit_share, would say whether" in unsure.warnings[0]
    passing = replace(fitted.membership, attacks=(replace(worst, upper=0.4),))
    assert replace(fitted, membership=passing).remedy == ""


def test_with_fail_it_is_an_error() -> None:
    settings = _settings(kind="jitter", on_memorization="fail")
    with pytest.raises(
        PriorError, match=r"the jitter prior does not pass its audits: .*attack"
    ):
        fit_prior(gaussian_pool(128), settings=settings, seed=0)


def test_with_fail_too_few_held_out_adapters_are_an_error() -> None:
    settings = _settings(audit_share=0.02, on_memorization="fail")
    with pytest.raises(PriorError, match="1 held-out adapters are too few to show"):
        fit_prior(gaussian_pool(64), settings=settings, seed=0)
    settings = _settings(audit_share=0.02)
    fitted = fit_prior(gaussian_pool(64), settings=settings, seed=0)
    assert fitted.notes()["membership_passed"] is None


def test_a_gaussian_that_fails_as_well_is_taken_if_less_is_wrong_with_it() -> None:
    settings = _settings(kind="pool", largest_advantage=0.45)
    fitted = fit_prior(_wide(160), settings=settings, seed=0)
    assert fitted.prior.kind == "gaussian"
    assert len(fitted.warnings) == 2
    assert "the gaussian prior does not pass its audits" in fitted.warnings[1]


def test_a_gaussian_that_fails_alike_changes_nothing() -> None:
    """Means and directions give members away, and both priors publish them."""
    settings = _settings(kind="jitter", largest_advantage=0.45, smallest_ratio=0.0)
    fitted = fit_prior(_wide(160), settings=settings, seed=0)
    assert (fitted.prior.kind, fitted.instead_of) == ("jitter", None)
    assert len(fitted.warnings) == 1


def _wide(count: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    latents = generator.standard_normal((count, 6))
    return latents @ generator.standard_normal((6, 1500)) + 3 * generator.standard_normal(
        (count, 1500)
    )


def test_hostile_uploads_are_left_out_and_counted() -> None:
    pool = gaussian_pool(128)
    pool[5] *= 50
    pool[17] = pool[16]
    fitted = fit_prior(pool, settings=_settings(robust=True), seed=0)
    assert set(fitted.screening.dropped) == {5, 17}
    assert len(fitted.fitted_on) + len(fitted.held_out) == 126
    assert fitted.notes()["pool"] == 128
    assert sum(fitted.notes()["left_out"].values()) == 2
    assert fitted.warnings == (
        "WARNING: 2 of 128 uploads left out of the fit: 1 at an unusual distance from the "
        "center, 1 the same as another upload",
    )
    plain = fit_prior(pool, settings=_settings(), seed=0)
    assert plain.screening.dropped == {}
    assert len(plain.fitted_on) + len(plain.held_out) == 128


def test_held_out_adapters_touch_neither_fit_nor_screening() -> None:
    pool, settings = gaussian_pool(128), _settings(robust=True)
    held = fit_prior(pool, settings=_settings(), seed=0).held_out
    changed = pool.copy()
    changed[(pool[:, None] == held).all(axis=2).any(axis=1)] *= 30
    first, second = (fit_prior(p, settings=settings, seed=0) for p in (pool, changed))
    assert first.prior.digest == second.prior.digest
    np.testing.assert_array_equal(first.fitted_on, second.fitted_on)


def test_a_held_out_part_of_outliers_alone_still_serves() -> None:
    pool = gaussian_pool(64)
    held = fit_prior(pool, settings=_settings(audit_share=0.01), seed=0).held_out
    pool[(pool == held).all(axis=1)] *= 1e3
    fitted = fit_prior(pool, settings=_settings(audit_share=0.01, robust=True), seed=0)
    assert len(fitted.held_out) == 1
