"""A federation over days: clients come and go, the pool grows, and bundles have versions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults.device_rig import fedcert
from flwr.app import Message, RecordDict
from simulations.federation import CLIENTS, NEW, UPSTREAM, Federation, tiny_settings

from fedcert.adapters import exported_digest
from fedcert.bundles import Bundle
from fedcert.bundles.versions import BundleVersions, find_bundle
from fedcert.certificates import Certificate, verify_record
from fedcert.clients.node import node_of
from fedcert.errors import BundleError, RunError
from fedcert.messages import CERTIFY, COMMIT, PLAN, REPLY, TRAIN
from fedcert.messages.flower import arrays_of, content, payload_of
from fedcert.pool.locking import only_one
from fedcert.runs.events import Events
from fedcert.runs.progress import Viewer
from fedcert.settings import RunSettings
from fedcert.simulations.runners.flower_internals import LocalGrid
from fedcert.strategies import planning, publishing
from fedcert.strategies import run as opening
from fedcert.strategies.latest import LatestBundle
from fedcert.strategies.prior_strategy import PriorStrategy
from fedcert.strategies.serving import serve
from fedcert.strategies.sources import NoPriorError
from fedcert.verification import check_bundle

NEWCOMERS = CLIENTS[UPSTREAM:]
EARLY = CLIENTS[:10]
"""Upstream clients of the first run; four are still to come."""


def _federation(folder: Path, clients: Iterable[str], **changes: Any) -> Federation:
    """Set up a run with only some of the clients."""
    there = [*clients]
    federation = Federation(folder, tiny_settings(server__nodes=len(there), **changes))

    def some() -> list[int]:
        return [n for n in LocalGrid.get_node_ids(federation.grid) if CLIENTS[n - 100] in there]

    federation.grid.get_node_ids = some  # type: ignore[method-assign]
    return federation


def _run(
    folder: Path, clients: Iterable[str], **changes: Any
) -> tuple[Federation, PriorStrategy]:
    federation = _federation(folder, clients, **changes)
    return federation, federation.serve().strategy


def _told(federation: Federation) -> tuple[PriorStrategy, list[str]]:
    """Serve, and return what was told beside the progress."""
    told: list[str] = []

    class Notes(Viewer):
        def on_note(self, text: str) -> None:
            told.append(text)

    events = Events(Notes())
    settings, output = federation.settings, federation.output
    return serve(federation.grid, settings, output=output, events=events).strategy, told


def _bundle(strategy: PriorStrategy) -> Bundle:
    assert strategy.bundle is not None
    return strategy.bundle


def _refuse_to_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing should be fitted")

    monkeypatch.setattr(opening, "fit_prior", fit)


# Who is served from what


def test_a_run_without_new_adapters_is_served_from_the_latest_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first = _run(tmp_path / "run", [*EARLY, NEWCOMERS[0]])
    _refuse_to_fit(monkeypatch)
    # On another day only a client is there that has not been served.
    federation, second = _run(tmp_path / "run", [NEWCOMERS[1]])
    assert _bundle(second).digest == _bundle(first).digest
    assert federation.clients.count()[TRAIN] == 0
    certificate = second.certificates[NEWCOMERS[1]]
    assert certificate.protocol is not None
    assert certificate.protocol.attempt == 1
    # And on a third everybody.
    federation, third = _run(tmp_path / "run", [*EARLY, *NEWCOMERS])
    assert federation.clients.count()[TRAIN] == 0
    assert _bundle(third).digest == _bundle(first).digest
    # The same commitments, so the same seeds: nobody has another attempt.
    assert third.certificates == {**first.certificates, **second.certificates}
    assert [a.number for a in third._authority.history.attempts.values()] == [1, 1]
    assert BundleVersions(tmp_path / "run").numbers() == [1]


def test_too_few_newcomers_wait_for_a_later_version_and_delay_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first = _run(tmp_path / "run", [*EARLY, NEWCOMERS[0]])
    _refuse_to_fit(monkeypatch)
    phases: list[str] = []

    class Told(Viewer):
        def on_phase(self, name: str, total: int | None) -> None:
            phases.append(f"{name}: {total}")

        def on_progress(self, done: int, total: int | None) -> None:
            phases[-1] += "."

    federation = _federation(tmp_path / "run", [*CLIENTS[:12], *NEWCOMERS])
    settings, output = federation.settings, federation.output
    strategy = serve(federation.grid, settings, output=output, events=Events(Told())).strategy
    kinds = [kind for kind, _ in federation.clients.asked if kind in (TRAIN, COMMIT, CERTIFY)]
    assert kinds == [COMMIT] * NEW + [CERTIFY] * NEW + [TRAIN] * 2
    assert phases == [
        "call the roll: None",
        "certify new clients: 2..",
        "train upstream adapters: 2..",
    ]
    assert _bundle(strategy).digest == _bundle(first).digest
    assert len(federation.pool()) == 12


def test_enough_newcomers_make_another_version(tmp_path: Path) -> None:
    output = tmp_path / "run"
    _, before = _run(output, [*EARLY, *NEWCOMERS])
    first = (output / "bundles" / "0001" / "bundle.json").read_bytes()
    federation, after = _run(output, [*CLIENTS[:UPSTREAM], *NEWCOMERS])
    old, new = _bundle(before), _bundle(after)
    assert federation.clients.count()[TRAIN] == 4
    assert (old.version, old.notes["pool"], old.notes.get("parent")) == (1, 10, None)
    assert (new.version, new.notes["pool"], new.notes["parent"]) == (2, 14, old.digest)
    assert old.notes["pool_digest"] != new.notes["pool_digest"] == federation.pool().digest()
    # Everyone who reads the latest bundle gets the new one, and the old one is still there.
    assert Bundle.load(output / "bundle").digest == new.digest
    assert (output / "bundles" / "0001" / "bundle.json").read_bytes() == first
    for client in NEWCOMERS:
        one = Certificate.read(
            output / "certificates" / "earlier" / f"{client}.before-attempt-2.json"
        )
        two = Certificate.read(output / "certificates" / f"{client}.json")
        assert (
            fedcert("verify", output / "certificates" / f"{client}.json", "--bundle", output)
            is None
        )
        assert one == before.certificates[client]
        assert two == after.certificates[client]
        for certificate, attempt in ((one, 1), (two, 2)):
            bundle = Bundle.load(find_bundle(output, certificate.digests.bundle))
            assert bundle.version == attempt
            checks = check_bundle(certificate, bundle)
            assert verify_record(certificate).extended(checks).passed
            assert f"version {attempt} " in checks[0].detail
            assert certificate.protocol is not None
            assert certificate.protocol.attempt == attempt
        assert two.delta < one.delta / 10


def test_a_client_keeps_what_it_was_certified_under_an_earlier_version(tmp_path: Path) -> None:
    output = tmp_path / "run"
    _, before = _run(output, [*EARLY, *NEWCOMERS])
    _, after = _run(output, [*CLIENTS[:UPSTREAM], *NEWCOMERS])
    for client in NEWCOMERS:
        first, second = before.certificates[client], after.certificates[client]
        # The later attempt has less delta; the adapter is nowhere but with its client.
        assert first.delta > second.delta
        folder = output / "clients" / client
        assert Certificate.read(folder / "certificate.json") == second
        kept = folder / "earlier" / first.digest[:16]
        assert Certificate.read(kept / "certificate.json") == first
        assert exported_digest(kept / "adapter") == first.digests.adapter
    # The same attempt once more is no earlier one.
    _run(output, [*NEWCOMERS])
    assert len(list((output / "clients" / NEWCOMERS[0] / "earlier").iterdir())) == 1


def test_uploads_that_fail_are_not_new(tmp_path: Path) -> None:
    _, first = _run(tmp_path / "run", [*EARLY, NEWCOMERS[0]])
    federation = _federation(tmp_path / "run", [*CLIENTS[:UPSTREAM], NEWCOMERS[1]])

    def dies(_message: Message) -> Any:
        raise OSError(28, "No space left on device")

    for client in CLIENTS[10:12]:
        federation.on(TRAIN, client, dies)
    strategy = federation.serve().strategy
    assert len(federation.pool()) == 12
    assert _bundle(strategy).digest == _bundle(first).digest
    assert list(strategy.certificates) == [NEWCOMERS[1]]


def test_other_settings_make_another_version_at_once(tmp_path: Path) -> None:
    _run(tmp_path / "run", [*EARLY, NEWCOMERS[0]])
    federation, strategy = _run(
        tmp_path / "run", [*EARLY, NEWCOMERS[1]], certificate__delta=0.1
    )
    assert federation.clients.count()[TRAIN] == 0
    assert _bundle(strategy).version == 2
    assert _bundle(strategy).recipes.rows[0][1].delta == 0.1


def test_how_many_labels_new_clients_have_makes_no_version(tmp_path: Path) -> None:
    _run(tmp_path / "run", [*EARLY, NEWCOMERS[0]])
    _, strategy = _run(tmp_path / "run", [*EARLY, NEWCOMERS[1]], certificate__support_size=40)
    assert _bundle(strategy).version == 1


@pytest.mark.parametrize(
    ("refit_after", "behind", "enough"),
    [
        (0, 30, 1),
        (0.1, 30, 3),
        (0.25, 10, 3),
        (0.25, 2, 1),
        (1, 30, 1),
        (5, 30, 5),
        (2.5, 9, 3),
    ],
)
def test_a_number_or_a_share_of_new_adapters_is_enough(
    refit_after: float, behind: int, enough: int
) -> None:
    clients = frozenset(f"client-{index}" for index in range(behind))
    latest = LatestBundle(None, clients, refit_after)  # type: ignore[arg-type]
    fresh = [f"newcomer-{index}" for index in range(enough)]
    assert latest.suffices({*clients, *fresh[1:]})
    assert not latest.suffices({*clients, *fresh})
    # Clients that are not there today take nothing away.
    assert latest.suffices(fresh[1:])
    assert not LatestBundle(None, clients, refit_after, outdated=True).suffices(clients)  # type: ignore[arg-type]


# Parts that change


def test_what_an_upload_was_trained_on_is_not_certified_on_again(tmp_path: Path) -> None:
    """A new client becomes an upstream one: the next prior depends on its examples."""
    federation, strategy = _run(tmp_path / "run", [*EARLY, *NEWCOMERS])
    context = federation.grid._contexts[100 + UPSTREAM]
    node = node_of(context, federation.settings, federation.output)
    examples = node.scenario.support_examples(node.client, 32)
    certificate = strategy.certificates[node.client]
    ledger = node.state().spent
    assert ledger.purposes(examples) == ["a certificate"] * 32
    ledger.mark(examples.take(slice(3)), "training an upload")
    assert ledger.purposes(examples)[2:4] == [
        "a certificate, training an upload",
        "a certificate",
    ]
    federation, strategy = _run(tmp_path / "run", [*CLIENTS[:UPSTREAM], *NEWCOMERS])
    assert _bundle(strategy).version == 2
    assert list(strategy.certificates) == NEWCOMERS[1:]
    [failure] = strategy.failures
    assert (failure.client, failure.phase) == (NEWCOMERS[0], "commitment")
    assert "3 of the 32 examples are already spent on: a certificate, training" in failure.cause
    # What it was certified before stands: prior and seed were fixed before its examples.
    kept = Certificate.read(federation.output / "certificates" / f"{node.client}.json")
    assert kept == certificate
    bundle = Bundle.load(find_bundle(federation.output, kept.digests.bundle))
    assert all(check.passed for check in check_bundle(kept, bundle))


def _planned(**changes: Any) -> dict[str, Any]:
    return {"certificate__recipe": "planned", "planning__sizes": "16,32", **changes}


@pytest.fixture
def quick_menu(monkeypatch: pytest.MonkeyPatch) -> None:
    menu = planning.menu
    monkeypatch.setattr(planning, "menu", lambda **words: menu(**words)[:2])


@pytest.mark.usefixtures("quick_menu")
def test_who_plans_once_never_trains(tmp_path: Path) -> None:
    _, before = _run(tmp_path / "run", [*CLIENTS[:12], NEWCOMERS[0]], **_planned())
    planners = before.planners
    assert len(planners) == 2
    # Everyone is there the second time, and those who would come first in the order may be
    # others now; the two still plan, and none of the rest is asked for anything but training.
    second, after = _run(tmp_path / "run", [*CLIENTS[:UPSTREAM], *NEWCOMERS],
                         **_planned(server__refit_after=1))  # fmt: skip
    assert after.planners == planners
    trained = {client for kind, client in second.clients.asked if kind == TRAIN}
    assert trained == {*CLIENTS[12:UPSTREAM]}
    assert {client for kind, client in second.clients.asked if kind == PLAN} == planners
    assert not planners & second.pool().clients()
    assert _bundle(after).version == 2
    assert _bundle(after).plan is not None


@pytest.mark.usefixtures("quick_menu")
def test_a_plan_outlives_the_absence_of_those_who_made_it(tmp_path: Path) -> None:
    _, before = _run(tmp_path / "run", [*CLIENTS[:12], NEWCOMERS[0]], **_planned())
    there = [c for c in CLIENTS[:UPSTREAM] if c not in before.planners]
    changes = _planned(server__refit_after=1)
    federation = _federation(tmp_path / "run", [*there, NEWCOMERS[1]], **changes)
    after, told = _told(federation)
    assert federation.clients.count()[PLAN] == 0
    assert _bundle(after).version == 2
    assert _bundle(after).plan == _bundle(before).plan
    assert _bundle(after).recipes == _bundle(before).recipes
    assert "WARNING: no client planned: the plan of the bundle before stays" in told


def test_a_fit_that_fails_says_that_the_bundle_before_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "run"
    _, before = _run(output, [*EARLY, NEWCOMERS[0]])

    def fit(*_: Any, **__: Any) -> None:
        raise NoPriorError("nothing is left of the budget")

    monkeypatch.setattr("fedcert.strategies.sources.PooledSource.fit", fit)
    clients = [*CLIENTS[:UPSTREAM], NEWCOMERS[0]]
    after, told = _told(_federation(output, clients, server__refit_after=1))
    assert _bundle(after).digest == _bundle(before).digest
    assert "WARNING: nothing is left of the budget; the bundle before serves" in told


def test_a_federated_prior_is_fitted_again_only_when_clients_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from functools import partial

    from fedcert.strategies.federated_prior import FederatedSource
    from strategies.test_federated_serving import QUICK

    monkeypatch.setattr(opening, "FederatedSource", partial(FederatedSource, denoising=QUICK))
    how = {"prior__kind": "diffusion", "prior__training": "federated", "server__min_pool": 11}
    _, first = _run(tmp_path / "run", [*CLIENTS[:12], NEWCOMERS[0]], **how)
    asked = _federation(tmp_path / "run", [*CLIENTS[:UPSTREAM], *NEWCOMERS], **how)
    second = asked.serve().strategy
    assert _bundle(second).digest == _bundle(first).digest
    assert asked.clients.count()["train.contribute"] == 0
    assert sorted(second.certificates) == NEWCOMERS
    everyone = [*CLIENTS[:UPSTREAM], *NEWCOMERS]
    # A fit that too few take part in leaves the latest bundle in force.
    failing = _federation(tmp_path / "run", everyone, **how, server__refit_after=2)
    for client in CLIENTS[:8]:
        failing.on("train.contribute", client, lambda _: RecordDict())
    assert _bundle(failing.serve().strategy).digest == _bundle(first).digest
    # So does one whose sums are so large that nothing can be computed from them.
    hostile = _federation(tmp_path / "run", everyone, **how, server__refit_after=2)

    def huge(message: Message) -> Message:
        context = hostile.grid._contexts[message.metadata.dst_node_id]
        honest = hostile.clients.honest(message, context)
        if payload_of(message.content)["question"]["kind"] == "gram":
            arrays = arrays_of(honest.content)
            most = {name: np.full_like(array, 1.7e308) for name, array in arrays.items()}
            return Message(content({}, most, key=REPLY), reply_to=message)
        return honest

    for client in CLIENTS[:UPSTREAM]:
        hostile.on("train.contribute", client, huge)
    assert _bundle(hostile.serve().strategy).digest == _bundle(first).digest
    _, third = _run(tmp_path / "run", everyone, **how, server__refit_after=2)
    assert _bundle(third).version == 2


# The folder


def test_without_links_the_latest_bundle_is_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: Any, **__: Any) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", no_links)
    _run(tmp_path / "run", [*EARLY, NEWCOMERS[0]])
    assert not (tmp_path / "run" / "bundle").is_symlink()
    _, strategy = _run(tmp_path / "run", [*CLIENTS[:UPSTREAM], *NEWCOMERS])
    assert _bundle(strategy).version == 2
    assert Bundle.load(tmp_path / "run" / "bundle").digest == _bundle(strategy).digest
    # On a file system with links the copy gives way to one.
    monkeypatch.undo()
    _run(tmp_path / "run", NEWCOMERS)
    assert (tmp_path / "run" / "bundle").readlink() == Path("bundles", "0002")


def test_a_bundle_that_the_run_did_not_publish_is_not_replaced(tmp_path: Path) -> None:
    output = tmp_path / "run"
    _run(tmp_path / "other", [*EARLY, NEWCOMERS[0]])
    old = Bundle.load(tmp_path / "other" / "bundle")
    old.save(output / "bundle")
    with pytest.raises(BundleError, match="no version of this run's bundle; move it elsewhere"):
        _run(output, [*EARLY, NEWCOMERS[0]])
    assert Bundle.load(output / "bundle").digest == old.digest


def test_a_version_with_another_bundle_in_its_place_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "run"
    _run(output, [*EARLY, NEWCOMERS[0]])
    _run(tmp_path / "other", [*EARLY, NEWCOMERS[0]], seed=1)
    Bundle.load(tmp_path / "other" / "bundle").save(output / "bundles" / "0001")
    with pytest.raises(BundleError, match="not the bundle that was published as version 1"):
        _run(output, NEWCOMERS)


@pytest.mark.parametrize("damage", ["{", "[]", '{"clients": ["a"]}', None])
def test_a_lost_provenance_is_named(tmp_path: Path, damage: str | None) -> None:
    output = tmp_path / "run"
    _run(output, [*EARLY, NEWCOMERS[0]])
    path = output / "pool" / "versions" / "0001.json"
    path.unlink() if damage is None else path.write_text(damage)
    with pytest.raises(
        BundleError, match=r"0001\.json.* what the version was made from: put it back"
    ):
        _run(output, NEWCOMERS)


def test_a_certificate_of_an_unknown_bundle_finds_none(tmp_path: Path) -> None:
    _run(tmp_path / "run", [*EARLY, NEWCOMERS[0]])
    with pytest.raises(BundleError, match="no version of the bundle has the digest 0000"):
        find_bundle(tmp_path / "run", "0" * 64)


def test_who_is_behind_a_bundle_is_not_handed_out(tmp_path: Path) -> None:
    _run(tmp_path / "run", [*EARLY, NEWCOMERS[0]])
    for path in (tmp_path / "run" / "bundles").rglob("*"):
        assert path.is_dir() or EARLY[0].encode() not in path.read_bytes()


def test_a_pool_serves_one_run_at_a_time(tmp_path: Path) -> None:
    federation = _federation(tmp_path / "run", [*EARLY, NEWCOMERS[0]])
    with (
        federation.pool().reserved(),
        pytest.raises(RunError, match=r"run/pool is in use by another run \(process \d+ on"),
    ):
        federation.serve()
    federation.serve()  # it was let go


def test_a_lock_is_let_go_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), only_one(tmp_path / "lock", what="it"):
        raise ZeroDivisionError
    with only_one(tmp_path / "lock", what="it"):
        pass


def test_the_settings_that_a_bundle_does_not_depend_on_change_nothing() -> None:
    scenario = opening.load_scenario("tiny_scenario:Tiny", {})

    def fingerprint(**changes: Any) -> str:
        settings: RunSettings = tiny_settings(**changes)
        return publishing._fingerprint(settings, scenario)

    same = fingerprint()
    assert fingerprint(server__timeout=9.0, server__refit_after=3) == same
    assert fingerprint(planning__clients=0.3, evaluation__candidates=7) == same
    for changes in (
        {"seed": 1},
        {"prior__robust": False},
        {"certificate__candidates": 60},
        {"privacy__epsilon": 1.0},
    ):
        assert fingerprint(**changes) != same
