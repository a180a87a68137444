"""Clipping and noise, and the client's ledger."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedcert.errors import RefusalError, SettingsError
from fedcert.privacy import ReleaseLedger, UploadPrivacy, clipped, delta_of
from fedcert.privacy.ledger import Release
from fedcert.randomness import keyed_generator

PRIVACY = UploadPrivacy(clip=2.0, epsilon=4.0, delta=1e-5)


def test_replacing_any_adapter_moves_the_upload_by_at_most_the_sensitivity() -> None:
    generator = keyed_generator("sensitivity")
    for _ in range(50):
        one, other = 10 ** generator.uniform(-3, 5, (2, 1)) * generator.standard_normal((2, 9))
        moved = PRIVACY.release(one, generator=keyed_generator("same")) - PRIVACY.release(
            other, generator=keyed_generator("same")
        )
        assert np.linalg.norm(moved) <= PRIVACY.sensitivity * (1 + 1e-12)
    # It is reached by opposite adapters: half of it would be too small.
    far = 100 * np.eye(9)[0]
    assert np.linalg.norm(clipped(far, 2.0) - clipped(-far, 2.0)) == pytest.approx(4.0)


def test_the_noise_keeps_the_promise() -> None:
    assert delta_of(PRIVACY.sensitivity / PRIVACY.noise_deviation, 4.0) <= 1e-5
    released = PRIVACY.release(np.zeros(200_000), generator=keyed_generator("noise"))
    assert released.std() == pytest.approx(PRIVACY.noise_deviation, rel=0.01)
    assert abs(released.mean()) < 0.02 * PRIVACY.noise_deviation
    assert UploadPrivacy(2.0, 1.0, 1e-5).noise_deviation > PRIVACY.noise_deviation


def test_short_adapters_are_not_stretched() -> None:
    short = np.array([0.3, -0.4])
    np.testing.assert_array_equal(clipped(short, 2.0), short)
    np.testing.assert_allclose(clipped(10 * short, 2.0), 4 * short)
    np.testing.assert_array_equal(clipped(np.zeros(3), 2.0), np.zeros(3))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_cannot_be_clipped_is_not_released(bad: float) -> None:
    with pytest.raises(SettingsError, match="cannot be made private"):
        PRIVACY.release(np.array([1.0, bad]), generator=keyed_generator("x"))


@pytest.mark.parametrize("changes", [(0.0, 1.0, 1e-5), (1.0, 0.0, 1e-5), (1.0, 1.0, 0.0)])
def test_impossible_terms_are_refused(changes: tuple[float, float, float]) -> None:
    with pytest.raises(SettingsError, match=r"must|above 0"):
        UploadPrivacy(*changes)


def test_the_ledger_adds_up_and_survives(tmp_path: Path) -> None:
    path = tmp_path / "state" / "ledger.json"
    ledger = ReleaseLedger(path)
    assert ledger.spent(1e-5) == 0.0
    ledger.spend(Release("a", PRIVACY.mu), budgets=[])
    assert ledger.spent(1e-5) == pytest.approx(4.0, rel=1e-6)
    ledger.spend(Release("b", PRIVACY.mu), budgets=[])
    again = ReleaseLedger(path)
    assert [release.purpose for release in again.releases] == ["a", "b"]
    # Two releases cost more than one, and less than twice as much.
    assert 5.5 < again.spent(1e-5) < 7.0


def test_the_budget_is_kept(tmp_path: Path) -> None:
    ledger = ReleaseLedger(tmp_path / "ledger.json")
    ledger.spend(Release("a", PRIVACY.mu), budgets=[(9.0, 1e-5), (4.0, 1e-5)])
    with pytest.raises(RefusalError, match=r"with one more its epsilon would be .*budget of 4"):
        ledger.spend(Release("b", PRIVACY.mu), budgets=[(9.0, 1e-5), (4.0, 1e-5)])
    assert len(ReleaseLedger(tmp_path / "ledger.json").releases) == 1


@pytest.mark.parametrize("content", ["{", "[1]", '[{"purpose": "a"}]', '{"a": 1}'])
def test_a_damaged_ledger_releases_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "ledger.json"
    path.write_text(content)
    with pytest.raises(RefusalError, match="is damaged"):
        ReleaseLedger(path)
