"""A warm start that promises something about its clients: what it publishes, and how often."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from simulations.federation import CLIENTS, UPSTREAM, Federation, tiny_settings

from fedcert.errors import RunError, SettingsError
from fedcert.messages import METRICS, REPLY, WARM
from fedcert.messages.flower import arrays_of, content
from fedcert.privacy import epsilon_of
from fedcert.privacy.gaussian import composed, mu_of
from fedcert.settings import RunSettings
from fedcert.strategies.warm_start import WarmStart
from fedcert.strategies.warm_up import warm_up
from fedcert.strategies.warmed import Warmed
from fedcert.verification import verify
from fedcert.warm_start import PROVENANCE

PRIVATE: dict[str, Any] = {
    "warm_start__rounds": 3,
    "warm_start__clients_per_round": 7,
    "warm_start__steps": 1,
    "warm_start__personal_steps": 1,
    "warm_start__rank": 2,
    "warm_start__weights": "equal",
    "warm_start__epsilon": 8.0,
    "warm_start__clip": 0.1,
    "training__steps": 4,
}


def warmed(folder: Path, **changes: Any) -> tuple[Federation, Warmed]:
    federation = Federation(folder, tiny_settings(**PRIVATE | changes))
    return federation, warm_up(federation.grid, federation.settings, output=folder)


def test_what_is_published_says_what_it_promises(tmp_path: Path) -> None:
    federation, done = warmed(tmp_path)
    promise = json.loads((done.folder / PROVENANCE).read_text())["privacy"]
    assert promise == done.privacy == done.to_config()["privacy"]
    assert (promise["epsilon"], promise["delta_p"]) == (pytest.approx(8.0), 1e-5)
    # 14 clients, three rounds of 7: some are in two of them, nobody in three.
    asked = Counter(client for kind, client in federation.clients.asked if kind == WARM)
    assert max(asked.values()) == promise["rounds_of_a_client"] == 2
    assert sum(asked.values()) == 21
    deviation = 2 * 0.1 / 7 * 2**0.5 / mu_of(8.0, 1e-5)
    assert promise["noise_deviation"] == pytest.approx(deviation, rel=1e-5)
    # Losses and lengths of clients' moves would be releases of their own.
    assert all({*row} == {"clients", "bytes_up", "bytes_down"} for row in done.rounds)


def test_a_simulation_repeats_and_a_server_with_a_state_keeps_its_noise(tmp_path: Path) -> None:
    digests = [warmed(tmp_path / name)[1].digest for name in ("one", "other")]
    assert digests[0] == digests[1]
    state = str(tmp_path / "state")
    secret = [
        warmed(tmp_path / name, server__state=state)[1].digest for name in ("mine", "yours")
    ]
    assert len({*digests, *secret}) == 3


def test_a_client_that_fails_changes_nothing_but_its_own_part(tmp_path: Path) -> None:
    settings = tiny_settings(**PRIVATE)
    asked, rounds = [], []
    for name in ("all there", "one out of order"):
        federation = Federation(tmp_path / name, settings)
        if name != "all there":
            federation.on(WARM, CLIENTS[0], lambda _: content({"failed": "no disk"}, key=REPLY))
        done = warm_up(federation.grid, settings, output=tmp_path / name)
        asked.append([client for kind, client in federation.clients.asked if kind == WARM])
        # That it trained nothing is not told: who was asked counts as trained.
        assert done.clients == {*CLIENTS[:UPSTREAM]}
        assert [row["clients"] for row in done.rounds] == [7, 7, 7]
        rounds.append(done.to_config()["rounds"])
    assert asked[0] == asked[1]
    # No figure of a round tells who failed, the bytes that came in neither.
    assert rounds[0] == rounds[1]


def test_however_far_a_client_says_it_moved_it_counts_no_more(tmp_path: Path) -> None:
    """Replace one client's answer: the trunk moves by 2 C / N, as the noise is for."""
    settings = tiny_settings(
        **PRIVATE | {"warm_start__rounds": 1, "warm_start__clients_per_round": 0}
    )
    trunks = []
    for sign in (1, -1):
        federation = Federation(tmp_path / str(sign), settings)

        def twisted(message: Message, federation: Any = federation, sign: int = sign) -> Any:
            context = Context(1, 1, {"partition-id": 0}, RecordDict(), {})
            honest = federation.clients._honest(message, context)
            far = {
                name: np.full_like(array, sign * 1e4)
                for name, array in arrays_of(honest.content).items()
            }
            records = content({}, far, key=REPLY)
            records[METRICS] = honest.content[METRICS]
            return records

        federation.on(WARM, CLIENTS[0], twisted)
        warm_up(federation.grid, settings, output=tmp_path / str(sign))
        trunks.append(_trunk(tmp_path / str(sign)))
    moved = np.sqrt(
        sum(np.square(trunks[0][name] - trunks[1][name]).sum() for name in trunks[0])
    )
    assert moved == pytest.approx(2 * 0.1 / UPSTREAM, rel=1e-3)


def test_a_run_that_died_goes_on_at_no_cost_and_one_begun_anew_is_refused(
    tmp_path: Path,
) -> None:
    settings = tiny_settings(**PRIVATE)
    whole = warmed(tmp_path / "whole")[1]
    died = Federation(tmp_path / "died", settings)
    honest, asked = died.clients.honest, 0

    def counted(message: Message, context: Any) -> Message:
        nonlocal asked
        if message.metadata.message_type == WARM and (asked := asked + 1) > 9:
            raise KeyboardInterrupt
        return honest(message, context)

    died.clients.honest = counted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        warm_up(died.grid, settings, output=tmp_path / "died")
    account = tmp_path / "died" / "warm-start" / "releases.json"
    [before] = json.loads(account.read_bytes())
    _, gone_on = warmed(tmp_path / "died")
    assert gone_on.digest == whole.digest
    assert gone_on.privacy == whole.privacy
    assert json.loads(account.read_bytes()) == [before | {"rounds": 3}]
    # Whoever removes the trunk asks the same clients once more.
    (tmp_path / "died" / "warm-start" / "trunk.safetensors").unlink()
    with pytest.raises(RunError, match=r"1 private warm starts .* above the budget of 8\."):
        warmed(tmp_path / "died")
    (tmp_path / "died" / "warm-start" / "trunk.safetensors").unlink()
    _, again = warmed(tmp_path / "died", privacy__budget=20.0)
    together = epsilon_of(composed(mu_of(8.0, 1e-5), mu_of(8.0, 1e-5)), 1e-5)
    assert again.privacy is not None
    assert again.privacy["epsilon"] == pytest.approx(together, rel=1e-5)
    account.write_text("{")
    (tmp_path / "died" / "warm-start" / "trunk.safetensors").unlink()
    with pytest.raises(RunError, match=r"releases\.json .* is damaged"):
        warmed(tmp_path / "died")


def test_rounds_that_were_published_are_not_made_again_from_an_older_trunk(
    tmp_path: Path,
) -> None:
    """A backup of the trunk must not buy a second draw of noise for the same rounds."""
    federation = Federation(tmp_path, tiny_settings(**PRIVATE))
    honest, kept = federation.clients.honest, []
    trunk = tmp_path / "warm-start" / "trunk.safetensors"

    def copying(message: Message, context: Any) -> Message:
        if message.metadata.message_type == WARM:
            kept.append(trunk.read_bytes())
        return honest(message, context)

    federation.clients.honest = copying  # type: ignore[method-assign]
    warm_up(federation.grid, federation.settings, output=tmp_path)
    last = trunk.read_bytes()
    for older, rounds in ((kept[0], 0), (kept[7], 1), (kept[14], 2)):
        trunk.write_bytes(older)
        with pytest.raises(RunError, match=rf"after {rounds} rounds, .* 3 are published"):
            warmed(tmp_path)
    account = tmp_path / "warm-start" / "releases.json"
    noted = account.read_bytes()
    account.unlink()
    # Where all rounds are done, too: the account says what else was published.
    for trunk_bytes, rounds in ((kept[14], 2), (last, 3)):
        trunk.write_bytes(trunk_bytes)
        with pytest.raises(RunError, match=f"not know this warm start, {rounds} rounds of"):
            warmed(tmp_path)
    account.write_bytes(noted)
    assert len(warmed(tmp_path)[1].rounds) == 3  # the newest one goes on, at no cost


def test_rounds_with_and_without_noise_do_not_share_a_folder(tmp_path: Path) -> None:
    plain = {"warm_start__epsilon": 0.0, "warm_start__rounds": 1}
    for first, second, message in (
        ({}, plain, "which rounds without noise would break"),
        (plain, {}, "is of a warm start without noise"),
    ):
        folder = tmp_path / str(bool(first))
        warmed(folder, **first)
        (folder / "warm-start" / "trunk.safetensors").unlink()
        with pytest.raises(RunError, match=message):
            warmed(folder, **second)


def test_base_model_and_default_adapter_promise_one_thing_together(tmp_path: Path) -> None:
    both = PRIVATE | {"privacy__central_epsilon": 2.0, "certificate__recipe": "default"}
    federation = Federation(tmp_path, tiny_settings(**both))
    strategy = federation.serve().strategy
    bundle = strategy.bundle
    assert bundle is not None
    together = epsilon_of(composed(mu_of(8.0, 1e-5), mu_of(2.0, 1e-5)), 1e-5)
    notes: Any = bundle.notes
    assert notes["warm_start"]["epsilon"] == pytest.approx(8.0)
    assert notes["privacy"]["epsilon"] == pytest.approx(together, rel=1e-5)
    assert notes["privacy"]["releases"] == [mu_of(2.0, 1e-5)]
    assert "its part in the base model" in notes["privacy"]["unit"]
    for certificate in strategy.certificates.values():
        assert verify(certificate, bundle=bundle).passed


def test_beside_plain_adapters_the_bundle_promises_the_base_model_alone(tmp_path: Path) -> None:
    bundle = Federation(tmp_path, tiny_settings(**PRIVATE)).serve().strategy.bundle
    assert bundle is not None
    notes: Any = bundle.notes
    assert notes["warm_start"]["epsilon"] == pytest.approx(8.0)
    assert "epsilon" not in notes["privacy"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warm_start.weights": "tail"}, r'epsilon.*weights = "tail"; choose "equal"'),
        ({"warm_start.weights": "examples"}, r'weights = "examples"; choose "equal"'),
        ({"training.tuned": True}, r"warm_start\.epsilon.*training\.tuned = true"),
        (
            {"privacy.central_epsilon": 8.0, "privacy.budget": 9.0,
             "certificate.recipe": "default"},
            r"privacy\.budget.* an epsilon of 1\d\.\d+, .* the budget is 9;",
        ),
        ({"privacy.epsilon": 1.0}, r"warm_start\.rounds.*privacy\.epsilon > 0"),
        (
            {"warm_start.epsilon": 0.0, "privacy.central_epsilon": 1.0,
             "certificate.recipe": "default"},
            r"warm_start\.rounds.*central_epsilon > 0; set warm_start\.epsilon",
        ),
    ],
)  # fmt: skip
def test_what_would_break_the_promise_is_refused_by_name(
    changes: dict[str, Any], message: str
) -> None:
    flat = {key.replace("__", "."): value for key, value in PRIVATE.items()}
    with pytest.raises(SettingsError, match=message):
        RunSettings.from_flat(flat | changes)


def test_a_strategy_of_ones_own_that_forgets_the_promise_is_refused(tmp_path: Path) -> None:
    federation = Federation(tmp_path, tiny_settings(**PRIVATE))
    settings = federation.settings
    with pytest.raises(SettingsError, match=r"warm_start\.epsilon.*TrunkPrivacy\.of"):
        WarmStart(
            base=federation.base,
            space=federation.space,
            settings=settings.warm_start,
            training=settings.trunk_training(),
            folder=tmp_path,
            seed=0,
        )


def _trunk(output: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    arrays = load_file(output / "warm-start" / "trunk.safetensors")
    return {name: array for name, array in arrays.items() if name.startswith("trunk/")}
