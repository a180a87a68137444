"""What simultaneous certificates say of groups of clients, and what others do not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from fedcert.certificates import (
    Certificate,
    Recipe,
    SimultaneousOutcome,
    SimultaneousPromise,
    UnionRecipe,
    verify_record,
)
from fedcert.certificates.attempts import FIRST_SHARE, attempt_delta
from fedcert.certificates.groups import group_statements
from fedcert.certificates.receipt import IssuedSeed, SeedReceipt
from fedcert.cli.groups import groups
from fedcert.errors import CertificateError, DataError
from fedcert.messages import client_id
from fedcert.records.signing import key_from_seed, public_hex
from fedcert.settings.certificates import CertificateSettings

from .conftest import KEY, Issuer

SERVER, OTHER = (key_from_seed(letter * 32) for letter in (b"s", b"o"))
SEED = "0123456789abcdef" * 4
REGION = {"a": "north", "b": "north", "c": "south", "nobody": "east"}


def _issued(
    make: Issuer, client: str, errors: int, *, server: object = SERVER, clients: int = 3
) -> Certificate:
    shares = CertificateSettings(delta=0.05, simultaneous=clients).shares()
    granted = shares["delta"]
    whole = UnionRecipe(candidates=20_000, first_share=FIRST_SHARE, **shares)
    recipe = whole.with_delta(attempt_delta(granted, 1, FIRST_SHARE))
    return _signed_by_the_server(
        make, recipe, granted, client=client, errors=errors, server=server
    )


def _signed_by_the_server(
    make: Issuer,
    recipe: Recipe,
    granted: float,
    *,
    client: str,
    errors: int,
    server: object = SERVER,
) -> Certificate:
    receipt = SeedReceipt(
        attempt=1,
        commitment="a0" * 32,
        granted=granted,
        server=public_hex(server),  # type: ignore[arg-type]
        signature="",
    )
    seed = IssuedSeed(
        client=client,
        public_key=public_hex(KEY),
        bundle="b0" * 32,
        recipe=recipe,
        support_size=80,
        seed=SEED,
        receipt=receipt,
    )
    signed = seed.signed(server).receipt  # type: ignore[arg-type]
    promises = (SimultaneousOutcome(),)
    return make(recipe, client=client, errors=errors, protocol=signed, promises=promises)


@pytest.fixture
def three(make: Issuer) -> list[Certificate]:
    return [_issued(make, name, errors) for name, errors in (("a", 3), ("b", 8), ("c", 5))]


def test_a_group_has_the_mean_and_the_worst_of_its_bounds(three: list[Certificate]) -> None:
    found = group_statements(three, REGION, server=public_hex(SERVER))
    north, south = found.statements
    a, b, c = (certificate.bound for certificate in three)
    assert (north.group, north.clients) == ("north", ("a", "b"))
    assert 0 <= north.mean_at_most - (a + b) / 2 < 1e-6 + 1e-12
    assert north.worst_at_most == b
    assert south.mean_at_most == south.worst_at_most == c
    assert "The 2 clients of 'north' whose certificates were given have" in north.words
    assert f"at most {north.mean_at_most:.6f} on average" in north.words
    assert "The one client of 'south' whose certificate was given has" in south.words
    assert (found.delta, found.most) == (0.05, 3)
    assert (
        "With probability at least 0.95 all of these statements are true at once" in found.words
    )


def test_certificates_that_stand_for_themselves_are_refused(make: Issuer) -> None:
    with pytest.raises(CertificateError, match=r"'client-7' stands for itself.*simultaneous"):
        group_statements([make()], {"client-7": "north"})


def test_without_a_server_nobody_limits_the_clients(make: Issuer) -> None:
    promise = SimultaneousPromise(clients=3, delta=0.05)
    recipe = UnionRecipe(candidates=20_000, delta=0.016, promises=(promise,))
    with pytest.raises(CertificateError, match="with others, and no server counts these"):
        make(recipe, client="a", promises=(SimultaneousOutcome(),))
    assert recipe.unwitnessed().promises == ()


def test_retries_are_divided_for_as_well(make: Issuer) -> None:
    promise = SimultaneousPromise(clients=10, delta=0.05)

    def made(granted: float) -> Certificate:
        whole = UnionRecipe(
            candidates=20_000, delta=granted, first_share=0.5, promises=(promise,)
        )
        recipe = whole.with_delta(attempt_delta(granted, 1, 0.5))
        return _signed_by_the_server(make, recipe, granted, client="a", errors=3)

    assert verify_record(made(0.005)).passed
    # A tenth of .05 for the first attempt, and as much again for those after it.
    with pytest.raises(
        CertificateError, match=r"10 certificates with delta 0\.01 may be false"
    ):
        made(0.01)


def test_certificates_of_others_do_not_belong_to_them(
    make: Issuer, three: list[Certificate]
) -> None:
    for other in (_issued(make, "c", 5, server=OTHER), _issued(make, "c", 5, clients=4)):
        with pytest.raises(CertificateError, match=r"'a' and 'c' are of other bundles"):
            group_statements([*three[:2], other], REGION)
    with pytest.raises(CertificateError, match="not by"):
        group_statements(three, REGION, server=public_hex(OTHER))


def test_a_forged_bound_is_found(three: list[Certificate]) -> None:
    forged = replace(three[0], bound=0.01)
    with pytest.raises(CertificateError, match=r"the certificate of 'a' does not verify"):
        group_statements([forged, *three[1:]], REGION)


def test_more_clients_than_delta_was_divided_among_say_nothing(make: Issuer) -> None:
    """Whoever runs a server can let it issue more seeds than the bundle promises."""
    four = [_issued(make, name, 5) for name in "abcd"]
    region = REGION | {"d": "south"}
    assert group_statements(four[:3], region).most == 3
    with pytest.raises(CertificateError, match="of 4 clients, and delta was divided among 3"):
        group_statements(four, region)


def test_each_client_has_one_certificate_and_one_group(three: list[Certificate]) -> None:
    with pytest.raises(CertificateError, match="'a' has several certificates"):
        group_statements([*three, three[0]], REGION)
    with pytest.raises(CertificateError, match="'b', 'c': in no group"):
        group_statements(three, {"a": "north"})
    with pytest.raises(CertificateError, match="no certificate"):
        group_statements([], REGION)


def test_a_name_that_is_no_files_goes_by_its_digest(make: Issuer, tmp_path: Path) -> None:
    """A simulation of a table certifies such a client under a digest of its name."""
    file, table = tmp_path / "site.json", tmp_path / "sites.csv"
    _issued(make, client_id("site 3"), 5).write(file)
    table.write_text("client,group\r\nsite 3,north\r\n", encoding="utf-8-sig")
    app = typer.Typer()
    app.command()(groups)
    shown = CliRunner().invoke(app, [str(file), "--table", str(table)])
    assert "The one client of 'north' whose certificate was given has" in shown.output


def test_who_is_left_out_is_counted(three: list[Certificate]) -> None:
    # Whoever leaves out the worst would otherwise speak of all of them.
    north = group_statements([three[0]], REGION, server=public_hex(SERVER)).statements[0]
    assert (north.clients, north.named) == (("a",), 2)
    assert "whose certificate was given, of 2 that are named in it, has" in north.words
    south = group_statements([three[2]], REGION, server=public_hex(SERVER)).statements[0]
    assert "named in it" not in south.words


def test_the_command_reads_groups_from_a_column(
    three: list[Certificate], tmp_path: Path
) -> None:
    files = []
    for certificate in three:
        files.append(tmp_path / f"{certificate.client}.json")
        certificate.write(files[-1])
    table = tmp_path / "clients.csv"
    table.write_text("id,region\na,north\nb,north\nc,south\n", encoding="utf-8")
    app = typer.Typer()
    app.command()(groups)
    asked = [*map(str, files), "--table", str(table), "--group-column", "region"]
    asked += ["--client-column", "id"]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0
    assert "clients of 'north' whose certificates were given have" in shown.output
    assert "not checked: whether this is a server you trust" in shown.output
    known = [*asked, "--server-key", public_hex(SERVER), "--json"]
    said = json.loads(CliRunner().invoke(app, known).output)
    assert [each["group"] for each in said["statements"]] == ["north", "south"]
    assert not any("--server-key" in each for each in said["unchecked"])
    for left_open in ("errors were counted right", "other clients of these groups"):
        assert any(left_open in each for each in said["unchecked"])
    table.write_text("id,region\na,north\nb,north\nc, \n", encoding="utf-8")
    lost = CliRunner().invoke(app, asked)
    assert "'c': in no group" in str(lost.exception)
    table.write_text("id,region\na,north\nb,north\nc,south\na,east\n", encoding="utf-8")
    failed = CliRunner().invoke(app, asked)
    assert isinstance(failed.exception, DataError)
    assert "line 5 puts 'a' into 'east'" in str(failed.exception)
