"""``fedcert submit``: hand a certificate back to whoever runs the server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedcert.cli.console import say
from fedcert.cli.inputs import key_path
from fedcert.cli.options import Key

__all__ = ["submit"]


def submit(
    certificate: Annotated[Path, typer.Argument(help="Your certificate.json.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The submission, for the server.")
    ] = Path("submission.json"),
    key: Key = None,
) -> None:
    """Check your certificate and write it down for the server, under your signature.

    The file holds what the certificate holds, and nothing else: no examples, no salts, no
    key. Send it to whoever runs the server by any way; its answer to `server accept` is a
    countersignature, which `verify --witness` takes.
    """
    from fedcert.certificates import Certificate
    from fedcert.records.signing import read_key
    from fedcert.verification.submissions import Submission

    submission = Submission.make(Certificate.read(certificate), read_key(key_path(key)))
    submission.write(output)
    say(f"submission: {output} (certificate {submission.certificate.digest[:16]})")
