"""A noised mean: what it hides, and that a bundle under it holds nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulations.federation import CLIENTS, UPSTREAM, Federation, tiny_settings

from fedcert.bundles import Bundle
from fedcert.errors import FedcertError, RefusalError, SettingsError
from fedcert.fitting import noised_mean
from fedcert.priors import PointPrior
from fedcert.privacy import MeanPrivacy, delta_of, epsilon_of
from fedcert.randomness import keyed_generator
from fedcert.settings import RunSettings
from fedcert.strategies.prior_strategy import PriorStrategy

PRIVACY = MeanPrivacy(clip=2.0, epsilon=4.0, delta=1e-5)
POOL = 3 * keyed_generator("adapters").standard_normal((20, 9))
CENTRAL: dict[str, Any] = {
    "privacy__central_epsilon": 8.0,
    "certificate__recipe": "default",
}


def test_replacing_an_adapter_moves_the_mean_by_at_most_what_the_noise_is_for() -> None:
    far = 1e6 * np.eye(9)[0]
    moved = 0.0
    for row in range(len(POOL)):
        one, other = POOL.copy(), POOL.copy()
        one[row], other[row] = far, -far
        released = [PRIVACY.release(p, generator=keyed_generator("same")) for p in (one, other)]
        moved = max(moved, float(np.linalg.norm(released[0] - released[1])))
    # Opposite long adapters reach the sensitivity: half of it would be too small.
    assert moved == pytest.approx(2 * PRIVACY.clip / len(POOL), rel=1e-4)
    assert delta_of(moved / PRIVACY.noise_deviation(len(POOL)), 4.0) <= 1e-5 * 1.001


def test_the_noise_is_as_large_as_it_says() -> None:
    zeros = np.zeros((50, 100_000))
    released = PRIVACY.release(zeros, generator=keyed_generator("noise"))
    assert released.std() == pytest.approx(PRIVACY.noise_deviation(50), rel=0.02)
    assert PRIVACY.noise_deviation(100) == pytest.approx(PRIVACY.noise_deviation(50) / 2)


@pytest.mark.parametrize("pool", [np.zeros((0, 3)), np.array([[1.0, np.nan]]), np.zeros(3)])
def test_what_cannot_be_clipped_is_not_published(pool: np.ndarray) -> None:
    with pytest.raises(SettingsError, match="finite adapters"):
        PRIVACY.release(pool, generator=keyed_generator("x"))


def _mean(**changes: Any) -> tuple[PointPrior, dict[str, Any]]:
    terms: dict[str, Any] = {"privacy": PRIVACY, "budget": 4.0, "before": ()}
    return noised_mean(POOL, generator=keyed_generator("x"), **(terms | changes))


def test_published_means_add_up_to_the_budget() -> None:
    _, notes = _mean()
    assert notes["privacy"]["epsilon"] == pytest.approx(4.0)
    with pytest.raises(RefusalError, match=r"1 noised means .* above the budget of 4"):
        _mean(before=(PRIVACY.mu,))
    _, notes = _mean(before=(PRIVACY.mu,), budget=7.0)
    together = epsilon_of(2**0.5 * PRIVACY.mu, 1e-5)
    assert 4 < together < 7
    assert notes["privacy"]["epsilon"] == pytest.approx(together, rel=1e-5)
    assert notes["privacy"]["releases"] == [PRIVACY.mu, PRIVACY.mu]
    assert f"e^{together:.3g}" in notes["privacy"]["words"]


def test_the_prior_is_the_published_adapter() -> None:
    prior, _ = _mean()
    released = PRIVACY.release(POOL, generator=keyed_generator("x"))
    np.testing.assert_array_equal(prior.center(), released)
    np.testing.assert_array_equal(prior.sample("ab" * 32, count=3), [released] * 3)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("certificate.recipe", "planned"),
        ("certificate.recipe", "union"),
        ("prior.training", "federated"),
        ("prior.keep", 0.5),
        ("training.tuned", True),
        ("privacy.epsilon", 1.0),
    ],
)
def test_what_would_publish_more_is_refused(key: str, value: object) -> None:
    flat = {"privacy.central_epsilon": 8.0, "certificate.recipe": "default", key: value}
    with pytest.raises(SettingsError, match=rf"does not go with {key} = .*; choose"):
        RunSettings.from_flat(flat)


def test_no_losses_are_told_beside_noised_uploads() -> None:
    flat = {"privacy.epsilon": 100.0, "certificate.recipe": "union", "training.tuned": True}
    with pytest.raises(SettingsError, match=r"training\.tuned.*choose false"):
        RunSettings.from_flat(flat)


# A run


def _serve(folder: Path, **changes: Any) -> PriorStrategy:
    return Federation(folder, tiny_settings(**(CENTRAL | changes))).serve().strategy


def _published(folder: Path) -> Bundle:
    return Bundle.load(folder / "bundle")


def test_a_bundle_holds_the_noised_mean_and_nothing_else_of_the_uploads(tmp_path: Path) -> None:
    strategy = _serve(tmp_path / "run")
    bundle = _published(tmp_path / "run")
    assert isinstance(bundle.prior, PointPrior)
    # All that is not known before the first upload, but for their number and the center.
    assert set(bundle.tensors()) - {f"space.{name}" for name in bundle.space.basis} == {
        "prior.center"
    }
    assert set(bundle.notes) == {"choice", "pool", "privacy", "version"}
    assert [recipe.kind for _, recipe in bundle.recipes.rows] == ["default", "posterior_split"]
    assert {c.recipe.kind for c in strategy.certificates.values()} == {"default"}
    assert bundle.notes["privacy"]["epsilon"] == pytest.approx(8.0)
    # Other uploads, and everything but the center stays: it depends on nothing else.
    settings = tiny_settings(**CENTRAL, training__steps=2)
    Federation(tmp_path / "other", settings).serve()
    other = _published(tmp_path / "other")
    assert other.prior.config() == bundle.prior.config()
    assert json.dumps(dict(other.notes)) == json.dumps(dict(bundle.notes))


def test_a_tuned_default_is_certified_from_the_second_size_on(tmp_path: Path) -> None:
    strategy = _serve(tmp_path / "run", certificate__split_from=16)
    recipes = {c.recipe.kind for c in strategy.certificates.values()}
    assert recipes == {"posterior_split"}


def test_a_second_version_needs_a_budget(tmp_path: Path) -> None:
    first = _serve(tmp_path / "run").bundle
    assert first is not None
    # Other words of the promise ask for another bundle.
    with pytest.raises(FedcertError):
        _serve(tmp_path / "run", privacy__clip=2.0)
    assert _published(tmp_path / "run").digest == first.digest
    second = _serve(tmp_path / "run", privacy__clip=2.0, privacy__budget=20.0).bundle
    assert second is not None
    assert len(second.notes["privacy"]["releases"]) == 2
    assert 8 < second.notes["privacy"]["epsilon"] < 20


def test_a_lost_version_is_made_again_and_no_other_one(tmp_path: Path) -> None:
    """The message about a version without its provenance says to move it away."""
    run = tmp_path / "run"
    first = _serve(run).bundle
    assert first is not None
    _lose_the_latest(run)
    again = _serve(run).bundle
    assert again is not None
    np.testing.assert_array_equal(again.prior.center(), first.prior.center())
    assert len(again.notes["privacy"]["releases"]) == 1
    # Another mean of the same clients would be a second release.
    _lose_the_latest(run)
    with pytest.raises(FedcertError, match="1 noised means of this pool have been published"):
        _serve(run, privacy__clip=2.0)


def test_noise_that_is_secret_is_drawn_once(tmp_path: Path) -> None:
    changes = {"server__state": str(tmp_path / "server")}
    centers = []
    for folder in ("one", "one", "two"):
        bundle = _serve(tmp_path / folder, **changes).bundle
        assert bundle is not None
        centers.append(bundle.prior.center())
        _lose_the_latest(tmp_path / folder)
    np.testing.assert_array_equal(centers[0], centers[1])
    assert np.all(centers[0] != centers[2])


def _lose_the_latest(run: Path) -> None:
    for folder in ("bundle", "bundles", "pool/versions"):
        path = run / folder
        if path.is_symlink():
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)


def test_a_promise_and_plain_bundles_do_not_share_a_folder(tmp_path: Path) -> None:
    _serve(tmp_path / "promised")
    with pytest.raises(FedcertError):
        _serve(tmp_path / "promised", privacy__central_epsilon=0.0)
    _serve(tmp_path / "plain", privacy__central_epsilon=0.0)
    with pytest.raises(FedcertError):
        _serve(tmp_path / "plain")
    assert not isinstance(_published(tmp_path / "plain").prior, PointPrior)


def test_all_of_the_pool_is_in_the_mean(tmp_path: Path) -> None:
    bundle = _serve(tmp_path / "run", privacy__central_epsilon=1e6).bundle
    assert bundle is not None
    federation = Federation(tmp_path / "plain", tiny_settings(privacy__clip=3.0))
    pool = federation.serve().strategy.source._pool.matrix()
    assert len(pool) == UPSTREAM < len(CLIENTS)
    shortened = [row * min(1, 3 / np.linalg.norm(row)) for row in pool]
    np.testing.assert_allclose(bundle.prior.center(), np.mean(shortened, axis=0), atol=0.01)
