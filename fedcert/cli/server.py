"""``fedcert server``: publish bundles, issue seeds, and countersign, without Flower."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedcert.cli.console import say
from fedcert.cli.options import hex64
from fedcert.cli.outputs import check_output

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fedcert.bundles import Bundle
    from fedcert.protocol.authority import SeedAuthority

__all__ = ["server"]

server = typer.Typer(
    name="server",
    no_args_is_help=True,
    suggest_commands=False,
    help="Issue seeds for commitments, keep the log of them, and countersign certificates.",
)

_State = Annotated[
    Path,
    typer.Option(
        "--state",
        "-s",
        help="The server's folder: key, nonces, and log.jsonl; made by `publish` or `enroll`. "
        "Keep it: attempts that are missing from the log would count anew.",
    ),
]
_BundleFolder = Annotated[Path, typer.Argument(help="A bundle: a folder or an archive.")]


def _authority(state: Path, *, enroll_new: bool = True, new: bool = False) -> SeedAuthority:
    from fedcert.errors import ProtocolError
    from fedcert.protocol.authority import SeedAuthority

    # Another server than the one that was meant would count attempts from the beginning.
    if not new and not (state / "log.jsonl").is_file():
        raise ProtocolError(
            f"{state} is no server's folder: it has no log.jsonl; give the --state that "
            "`fedcert server publish` was given"
        )
    return SeedAuthority(state, enroll_new=enroll_new)


@server.command()
def publish(bundle: _BundleFolder, state: _State) -> None:
    """Log a bundle and the hash of its nonce; do it before the bundle goes out."""
    from fedcert.bundles import Bundle
    from fedcert.errors import ProtocolError

    loaded = Bundle.load(bundle)
    authority = _authority(state, new=True)
    if loaded.server not in (None, authority.public_key):
        raise ProtocolError(
            f"{bundle} names the server {loaded.server}, not the one of {state} "
            f"({authority.public_key}): devices would refuse this one's seeds"
        )
    authority.publish(loaded.digest, loaded.recipes)
    say(f"published:  {loaded.digest}")
    say(f"server key: {authority.public_key}")


@server.command()
def enroll(
    client: Annotated[str, typer.Argument(help="The client's id.")],
    public_key: Annotated[
        str, typer.Argument(help="Its key, from `fedcert keys show`.", callback=hex64)
    ],
    state: _State,
) -> None:
    """Let a client take part under a key; attempts count per enrolled client."""
    _authority(state, new=True).enroll(client, public_key)
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
    from fedcert.protocol.seeds import SeedGrant

    made = Commitment.read(commitment)
    check_output(output, commitment, kind="a seed", reads=SeedGrant.read)
    grant = _authority(state, enroll_new=enroll_new).issue(made)
    grant.write(output)
    say(
        f"seed: {output} (attempt {grant.receipt.attempt} of {grant.client}, delta "
        f"{grant.recipe.total_delta:g} of {made.recipe.total_delta:g})"
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
    from fedcert.bundles import Bundle
    from fedcert.certificates import Certificate
    from fedcert.protocol.witness import Countersignature
    from fedcert.verification import verify

    record = Certificate.read(certificate)
    check_output(output, certificate, kind="a countersignature", reads=Countersignature.read)
    verify(record, bundle=Bundle.load(bundle)).require()
    witness = _authority(state).countersign(record)
    witness.write(output)
    say(f"countersignature: {output} (log position {witness.position})")


@server.command()
def accept(
    submissions: Annotated[
        list[Path],
        typer.Argument(help="What `fedcert submit` wrote: files, or folders of them."),
    ],
    bundle: Annotated[
        list[Path],
        typer.Option(
            "--bundle",
            "-b",
            help="A bundle, a folder of bundles, or a run folder; may be repeated.",
        ),
    ],
    state: _State,
    as_json: Annotated[bool, typer.Option("--json", help="Print what became of each.")] = False,
) -> None:
    """Verify certificates that were handed in, log and countersign them, and file both.

    They go to `certificates/` and `witnesses/` in the server's folder, under the digest of
    the certificate. What is refused is named with the reason and changes nothing; the exit
    status is then 1. Handing in the same certificate again gives the same countersignature.
    """
    from fedcert.errors import FedcertError
    from fedcert.verification.submissions import Submission
    from fedcert.verification.submissions import accept as take

    authority, bundles = _authority(state), _bundles(bundle)
    rows = []
    for path in _files(submissions):
        row: dict[str, str | None] = {"submission": str(path), "refused": None}
        rows.append(row)
        try:
            filed = take(Submission.read(path), authority, bundles, state)
            row["outcome"] = "accepted before" if filed.repeated else "accepted"
            row["client"] = filed.countersignature.client
            row["certificate"], row["witness"] = str(filed.certificate), str(filed.witness)
        except FedcertError as error:
            row["outcome"], row["refused"] = "refused", str(error)
    if as_json:
        typer.echo(json.dumps(rows))
    else:
        for row in rows:
            say(f"{row['outcome']}: {row['submission']}: {row['refused'] or row['witness']}")
    raise typer.Exit(any(row["refused"] for row in rows))


def _files(paths: Iterable[Path]) -> list[Path]:
    """Return files as they are, and what folders hold, by name."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.json")) if path.is_dir() else [path]
        found += [file for file in inside if not file.name.startswith(".")]
    return found


def _bundles(paths: Iterable[Path]) -> dict[str, Bundle]:
    """Load bundles, and those in folders of them, by digest."""
    from fedcert.bundles import Bundle
    from fedcert.bundles.versions import VERSIONS

    loaded = {}
    for path in paths:
        folder = path / VERSIONS if (path / VERSIONS).is_dir() else path
        several = folder.is_dir() and not (folder / "bundle.json").exists()
        for each in sorted(folder.iterdir()) if several else [folder]:
            if not several or not each.name.startswith("."):
                found = Bundle.load(each)
                loaded[found.digest] = found
    return loaded


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
    from fedcert.bundles import Bundle

    digest = Bundle.load(bundle).digest
    _authority(state).close(digest)
    say(f"closed: {digest}")


@server.command()
def audit(
    log: Annotated[Path, typer.Argument(help="A server's log.jsonl.")],
    server_key: Annotated[str, typer.Option(help="The server's public key.", callback=hex64)],
    as_json: Annotated[bool, typer.Option("--json", help="Print the attempts.")] = False,
) -> None:
    """Check a log: chain, signatures, and rules. Lists every attempt and how it ended."""
    from fedcert.protocol.history import History
    from fedcert.protocol.log import read_log

    entries = read_log(log, server_key)
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
