"""What planning clients tell of promises, and what a plan makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulations.federation import tiny_settings
from typer.testing import CliRunner

from fedcert.bundles import Bundle
from fedcert.certificates import AbstentionPromise, UnionRecipe
from fedcert.cli.app import app
from fedcert.errors import ProtocolError
from fedcert.planning import menu, replays_from_config
from fedcert.simulations.simulating import simulate
from fedcert.strategies import planning


def test_a_plan_says_how_much_will_be_answered_and_how_little_of_it_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The union, a hybrid, and the swap: all ways to come by a choice.
    monkeypatch.setattr(planning, "menu", lambda **terms: menu(**terms)[:4])
    settings = tiny_settings(
        certificate__recipe="planned",
        certificate__promises="abstention=0.3, gain",
        planning__sizes="16,32",
    )
    simulate(settings, output=tmp_path / "run", runner="inprocess")
    folder = tmp_path / "run" / "bundle"
    bundle = Bundle.load(folder)
    for row in bundle.plan.rows:
        assert set(row.promised) == {
            "abstention.answered_at_least",
            "abstention.wrong_at_most",
            "gain.at_least",
        }
    assert bundle.recipes.recipe_for(32).promises
    told = CliRunner().invoke(app, ["plan", "--bundle", str(folder), "--n", "32"])
    assert "abstention, answered at least" in told.output


@pytest.mark.parametrize(
    "promised",
    [{"abstention.wrong_at_most": 0.1}, {"gain.at_least": 0.1}, {"abstention.x": 1.0}, 3],
)
def test_other_figures_than_the_recipe_promises_are_not_believed(promised: object) -> None:
    recipe = UnionRecipe(candidates=5, delta=0.05, promises=(AbstentionPromise(share=1.0),))
    row = {"recipe": 0, "n": 16, "bound": 0.9, "mean": 0.9, "promised": promised}
    with pytest.raises(ProtocolError, match="promised"):
        replays_from_config([row], [recipe], [16])
