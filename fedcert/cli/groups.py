"""``fedcert groups``: what certificates that hold together say of groups of clients."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fedcert.cli.console import say
from fedcert.cli.options import ServerKey
from fedcert.errors import DataError

__all__ = ["groups"]

_SERVER = "whether this is a server you trust (--server-key)"
_UNCHECKED = (
    "whether recipe and seeds are the federation's (fedcert verify --bundle, of each)",
    "whether the errors were counted right (fedcert verify --data, of each)",
    "whether each is the one certificate of its attempt (fedcert verify --witness, of each)",
    "whether other clients of these groups have certificates, which may be worse (the server's "
    "log)",
)


def groups(
    certificates: Annotated[
        list[Path], typer.Argument(help="A certificate.json of each client.")
    ],
    table: Annotated[
        Path, typer.Option(help="A table that names each client's group, one client a row.")
    ],
    group_column: Annotated[str, typer.Option(help="The column of the groups.")] = "group",
    client_column: Annotated[str, typer.Option(help="The column of the clients.")] = "client",
    server_key: ServerKey = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Bound the mean and the worst error of groups of clients, all groups at once.

    The certificates must be of one bundle with `certificate.simultaneous`, which makes them
    true together. Each is checked as `verify` does with the record alone; whether its errors
    were counted right, `verify --data` shows. The groups may be formed afterwards.
    """
    from fedcert.certificates import Certificate
    from fedcert.certificates.groups import group_statements

    records = [Certificate.read(path) for path in certificates]
    named = _groups(str(table), client_column, group_column)
    found = group_statements(records, named, server=server_key)
    unchecked = [*_UNCHECKED] if server_key is not None else [_SERVER, *_UNCHECKED]
    if as_json:
        said = {"statement": found.words, "unchecked": unchecked}
        typer.echo(json.dumps(asdict(found) | said))
        return
    for statement in found.statements:
        say(statement.words, wrap=True)
    say(found.words, wrap=True)
    for each in unchecked:
        say(f"not checked: {each}", wrap=True)


def _groups(source: str, client_column: str, group_column: str) -> dict[str, str]:
    """Return each client's group, by a table; a row that names none puts nobody anywhere."""
    from fedcert.data.cells import missing_cells, words
    from fedcert.data.tables import read_columns
    from fedcert.messages import client_id

    table = read_columns(source, [client_column, group_column])
    table = table.take(
        ~(missing_cells(table[client_column]) | missing_cells(table[group_column]))
    )
    with table.located():
        columns = [words(table[name]).tolist() for name in (client_column, group_column)]
    found: dict[str, str] = {}
    for row, (client, group) in enumerate(zip(*columns, strict=True)):
        if found.setdefault(client, group) != group:
            raise DataError(
                f"{source}: {table.where(row)} puts {client!r} into {group!r}, and an earlier "
                f"one into {found[client]!r}; name one group for each client"
            )
    # Certificates name a client whose name is no file's by its digest.
    return {client_id(client): group for client, group in found.items()}
