"""``fedcert server``: publish bundles, issue seeds, and countersign, without Flower."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedcert.cli.app import app, say

if TYPE_CHECKING:
    from fedcert.protocol.authority import SeedAuthority

__all__ = ["server"]

server = typer.Typer(
    no_args_is_help=True,
    help="Issue seeds for commitments, keep the log of them, and countersign certificates.",
)
app.add_typer(server, name="server")

_State = Annotated[
    Path,
    typer.Option(
        "--state",
        "-s",
        help="The server's folder: key, nonces, and log.jsonl; made if it is missing. Keep "
        "it: attempts that are missing from the log would count anew.",
    ),
]
_BundleFolder = Annotated[Path, typer.Argument(help="A bundle's folder.")]


def _authority(state: Path, *, enroll_new: bool = True) -> SeedAuthority:
    from fedcert.protocol.authority import SeedAuthority

    return SeedAuthority(state, enroll_new=enroll_new)


@server.command()
def publish(bundle: _BundleFolder, state: _State) -> None:
    """Log a bundle and the hash of its nonce; do it before the bundle goes out."""
    from fedcert.bundle import Bundle

    authority, loaded = _authority(state), Bundle.load(bundle)
    authority.publish(loaded.digest, loaded.recipes)
    say(f"published:  {loaded.digest}")
    say(f"server key: {authority.public_key}")


@server.command()
def enroll(
    client: Annotated[str, typer.Argument(help="The client's id.")],
    public_key: Annotated[str, typer.Argument(help="Its key, from `fedcert keys show`.")],
    state: _State,
) -> None:
    """Let a client take part under a key; attempts count per enrolled client."""
    _authority(state).enroll(client, public_key.lower())
    say(f"enrolled: {client}")


@server.command("issue-seed")
def issue_seed(
    commitment: Annotated[Path, typer.Argument(help="A client's commitment.json.")],
    state: _State,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The answer, for the client.")
    ] = Path("seed.json"),
    enroll_new: Annotated[
        bool,
        typer.Option(help="Whether an unknown client is enrolled by its first commitment."),
    ] = True,
) -> None:
    """Issue the seed of a commitment; the same commitment gets the same seed."""
    from fedcert.protocol.commitment import Commitment

    authority = _authority(state, enroll_new=enroll_new)
    grant = authority.issue(Commitment.read(commitment))
    grant.write(output)
    say(
        f"seed: {output} (attempt {grant.receipt.attempt} of {grant.client}, delta "
        f"{grant.recipe.delta:g} of {grant.receipt.granted:g})"
    )


@server.command()
def countersign(
    certificate: Annotated[Path, typer.Argument(help="A client's certificate.json.")],
    bundle: Annotated[Path, typer.Option("--bundle", "-b", help="The bundle it is for.")],
    state: _State,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The countersignature.")
    ] = Path("witness.json"),
) -> None:
    """Check a certificate against its bundle, log it, and sign for it."""
    from fedcert.bundle import Bundle
    from fedcert.certificates import Certificate
    from fedcert.errors import ProtocolError
    from fedcert.verification import check_bundle

    record = Certificate.read(certificate)
    failed = [c.detail for c in check_bundle(record, Bundle.load(bundle)) if not c.passed]
    if failed:
        raise ProtocolError(f"the certificate does not verify: {'; '.join(failed)}")
    witness = _authority(state).countersign(record)
    witness.write(output)
    say(f"countersignature: {output} (log position {witness.position})")


@server.command()
def abort(
    commitment: Annotated[Path, typer.Argument(help="The commitment of the attempt.")],
    reason: Annotated[str, typer.Option(help="Why there will be no certificate.")],
    state: _State,
) -> None:
    """Log that an attempt came to nothing; it stays counted."""
    from fedcert.protocol.commitment import Commitment

    made = Commitment.read(commitment)
    _authority(state).abort(made.root, reason)
    say(f"aborted: {made.client}, commitment {made.root[:16]}")


@server.command()
def close(bundle: _BundleFolder, state: _State) -> None:
    """Publish a bundle's nonce in the log, for audits; it gets no more seeds."""
    from fedcert.bundle import Bundle

    digest = Bundle.load(bundle).digest
    _authority(state).close(digest)
    say(f"closed: {digest}")


@server.command()
def audit(
    log: Annotated[Path, typer.Argument(help="A server's log.jsonl.")],
    server_key: Annotated[str, typer.Option(help="The server's public key.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the attempts.")] = False,
) -> None:
    """Check a log: chain, signatures, and rules. Lists every attempt and how it ended."""
    from fedcert.protocol.history import History
    from fedcert.protocol.log import read_log

    entries = read_log(log, server_key.lower())
    history = History.of(entries)
    attempts = [
        {
            "client": attempt.commitment.client,
            "attempt": attempt.number,
            "relation": attempt.relation,
            "commitment": root,
            "outcome": attempt.certificate or attempt.aborted,
            "open": attempt.is_open,
        }
        for root, attempt in history.attempts.items()
    ]
    if as_json:
        typer.echo(json.dumps({"entries": len(entries), "attempts": attempts}))
        return
    for row in attempts:
        ending = "open" if row["open"] else row["outcome"]
        say(f"{row['client']}, attempt {row['attempt']} ({row['relation']}): {ending}")
    closed = sum(bundle.nonce is not None for bundle in history.bundles.values())
    say(
        f"{len(entries)} entries, whole and by the rules; {len(attempts)} seeds, "
        f"{len(history.open_attempts())} open; {closed} of {len(history.bundles)} bundles "
        "closed, their seeds computed again"
    )
