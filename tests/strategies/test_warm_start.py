"""A tiny federation with a warm start, end to end, and what must not go wrong in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from simulations.federation import CLIENTS, UPSTREAM, Federation, tiny_base, tiny_settings

from fedcert.errors import RunError, SettingsError
from fedcert.messages import ARRAYS, METRICS, PLAN, REPLY, TRAIN, WARM
from fedcert.messages.flower import arrays_of, content
from fedcert.models.base import load_base_model
from fedcert.strategies.run import Run
from fedcert.strategies.warm_up import warm_up
from fedcert.verification import verify
from fedcert.warm_start import PROVENANCE

ROUNDS: dict[str, Any] = {
    "warm_start__rounds": 2,
    "warm_start__clients_per_round": 5,
    "warm_start__steps": 2,
    "warm_start__personal_steps": 2,
    "warm_start__rank": 2,
    "training__steps": 4,
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """A federation that planned, so that somebody has to stay out of the trunk."""
    settings = tiny_settings(
        **ROUNDS, certificate__recipe="planned", planning__sizes="8,16", server__min_pool=10
    )
    federation = Federation(tmp_path_factory.mktemp("warm"), settings)
    federation.outcome = federation.serve()  # type: ignore[attr-defined]
    return federation


def test_certificates_speak_of_the_new_base_model(served: Federation) -> None:
    outcome = served.outcome  # type: ignore[attr-defined]
    warmed, before = outcome.warmed, tiny_base()
    assert outcome.strategy.failures == warmed.failures == []
    assert warmed.before == before.digest != warmed.digest == outcome.base.digest
    bundle, certificates = outcome.strategy.bundle, outcome.strategy.certificates
    assert bundle.base_digest == warmed.digest
    assert len(certificates) == 2
    assert all(verify(c, bundle=bundle).passed for c in certificates.values())
    notes = json.loads((warmed.folder / PROVENANCE).read_text())
    assert (notes["from"], notes["digest"], notes["rounds"]) == (
        before.digest,
        warmed.digest,
        2,
    )
    assert load_base_model(str(warmed.folder)).digest == warmed.digest


def test_planners_train_no_trunk_and_who_trained_it_does_not_plan(served: Federation) -> None:
    asked = served.clients.asked
    warmed = {client for kind, client in asked if kind == WARM}
    planned = {client for kind, client in asked if kind == PLAN}
    trained = {client for kind, client in asked if kind == TRAIN}
    assert planned
    assert not planned & (warmed | trained)
    assert warmed <= {*CLIENTS[:UPSTREAM]}


def test_the_personal_adapter_does_not_leave(tmp_path: Path) -> None:
    federation = Federation(tmp_path, tiny_settings(**ROUNDS | {"warm_start__rounds": 1}))
    sent: list[set[str]] = []

    def noted(message: Message) -> Any:
        reply = federation.clients._honest(message, _context(client))
        sent.append({*arrays_of(reply.content)})
        assert {*reply.content} == {REPLY, ARRAYS, METRICS}
        assert reply.content[REPLY]["json"] == "{}"
        return reply

    client = CLIENTS[0]
    federation.on(WARM, client, noted)
    settings = with_rounds(federation, clients_per_round=0)
    warm_up(federation.grid, settings, output=tmp_path)
    trunk_modules = {name for names in sent for name in names}
    assert trunk_modules
    assert not any(name.endswith(".R") or "classifier" in name for name in trunk_modules)


def test_a_run_that_died_goes_on_after_the_round_that_it_had(tmp_path: Path) -> None:
    settings = tiny_settings(**ROUNDS)
    whole = warm_up(
        Federation(tmp_path / "whole", settings).grid, settings, output=tmp_path / "whole"
    )
    died = Federation(tmp_path / "died", settings)
    asked, honest = 0, died.clients.honest

    def counted(message: Message, context: Any) -> Message:
        nonlocal asked
        if message.metadata.message_type == WARM:
            asked += 1
            if asked > settings.warm_start.clients_per_round:  # in the second round
                raise KeyboardInterrupt
        return honest(message, context)

    died.clients.honest = counted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        warm_up(died.grid, settings, output=tmp_path / "died")
    again = Federation(tmp_path / "died", settings)
    gone_on = warm_up(again.grid, settings, output=tmp_path / "died")
    assert again.clients.count()[WARM] == settings.warm_start.clients_per_round
    assert gone_on.digest == whole.digest
    # Once more: nobody trains, and the same base model is handed out.
    finished = Federation(tmp_path / "died", settings)
    assert warm_up(finished.grid, settings, output=tmp_path / "died").digest == whole.digest
    assert finished.clients.count()[WARM] == 0


def test_hostile_deltas_are_refused_or_shortened(tmp_path: Path) -> None:
    settings = tiny_settings(**ROUNDS | {"warm_start__rounds": 1})
    federation = Federation(tmp_path, settings)
    settings = with_rounds(federation, clients_per_round=0)

    def twisted(client: str, change: Any) -> None:
        def reply(message: Message) -> Any:
            honest = federation.clients._honest(message, _context(client))
            arrays = {name: change(array) for name, array in arrays_of(honest.content).items()}
            records = content({}, arrays, key=REPLY)
            records[METRICS] = honest.content[METRICS]
            return records

        federation.on(WARM, client, reply)

    twisted(CLIENTS[0], lambda array: array * np.float32("nan"))
    twisted(CLIENTS[1], lambda array: array[:1])
    twisted(CLIENTS[2], lambda array: array.astype(np.float64))
    twisted(CLIENTS[3], lambda array: array * np.float32(1e9))
    warmed = warm_up(federation.grid, settings, output=tmp_path)
    assert {failure.client for failure in warmed.failures} == {*CLIENTS[:3]}
    assert warmed.rounds[0]["clients"] == UPSTREAM - 3
    before, after = tiny_base(), load_base_model(str(warmed.folder))
    moved = [
        float((new - old).abs().max())
        for old, new in zip(before.model.parameters(), after.model.parameters(), strict=True)
    ]
    assert 0 < max(moved) < 1


def test_a_run_of_which_no_client_can_train_says_why(tmp_path: Path) -> None:
    federation = Federation(tmp_path, tiny_settings(**ROUNDS))
    for client in CLIENTS[:UPSTREAM]:
        federation.on(WARM, client, lambda _: content({"failed": "out of order"}, key=REPLY))
    with pytest.raises(RunError, match=r"no client could train the trunk in round 1.*out of"):
        warm_up(federation.grid, federation.settings, output=tmp_path)


def test_other_settings_do_not_go_on_with_a_trunk(tmp_path: Path) -> None:
    settings = tiny_settings(**ROUNDS | {"warm_start__rounds": 1})
    warm_up(Federation(tmp_path, settings).grid, settings, output=tmp_path)
    other = tiny_settings(**ROUNDS | {"warm_start__rounds": 1, "warm_start__rank": 3})
    with pytest.raises(RunError, match="warm start with other settings"):
        warm_up(Federation(tmp_path, other).grid, other, output=tmp_path)


def test_a_run_without_the_warm_start_that_it_asks_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"warm_start\.rounds.*warm_up first"):
        Run.of(tiny_settings(**ROUNDS), output=tmp_path)
    with pytest.raises(SettingsError, match=r"warm_start\.rounds.*privacy"):
        tiny_settings(warm_start__rounds=1, privacy__epsilon=1.0)


def with_rounds(federation: Federation, **changes: Any) -> Any:
    """Return a federation's settings with other rounds, and let its clients have them."""
    settings = federation.settings
    warm = settings.warm_start.model_copy(update=changes)
    return settings.model_copy(update={"warm_start": warm})


def _context(client: str) -> Any:
    return Context(1, 1, {"partition-id": CLIENTS.index(client)}, RecordDict(), {})
