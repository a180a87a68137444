"""``fedcert bundle``: a bundle as one file, for devices without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedcert.cli.console import say
from fedcert.cli.outputs import check_output
from fedcert.errors import SettingsError

__all__ = ["bundle"]

bundle = typer.Typer(
    name="bundle",
    no_args_is_help=True,
    suggest_commands=False,
    help="Pack a bundle into one file, and unpack it.",
)

_Output = Annotated[Path, typer.Option("--output", "-o", help="Where to write it.")]


@bundle.command()
def pack(
    folder: Annotated[Path, typer.Argument(help="A bundle.")],
    output: _Output = Path("bundle.zip"),
) -> None:
    """Check a bundle and write it as one file; the same bundle gives the same bytes.

    Every command that takes a bundle takes such a file as well. Tell devices the bundle's
    digest by a way that you trust: `personalize` and `commit` compare it.
    """
    from fedcert.bundles import Bundle

    loaded = Bundle.load(folder)
    check_output(output, folder, kind="an archive of a bundle", reads=Bundle.load)
    digest = loaded.pack(output)
    say(f"archive: {output} ({output.stat().st_size:,} bytes, sha256 {digest})")
    say(f"bundle:  {loaded.digest}")


@bundle.command()
def unpack(
    archive: Annotated[Path, typer.Argument(help="What `pack` wrote.")],
    output: _Output = Path("bundle"),
) -> None:
    """Check an archive and write its folder, as a whole or not at all.

    A bundle that is there is replaced; a folder that holds something else is refused.
    """
    from fedcert.bundles import Bundle

    loaded = Bundle.load(archive)
    inside = {path.name for path in output.iterdir()} if output.is_dir() else set()
    if inside and "bundle.json" not in inside:
        # It would be replaced as a whole, with everything in it.
        raise SettingsError(
            f"{output} holds something that is no bundle, and nothing was written; name an "
            "empty or a new folder with --output"
        )
    loaded.save(output)
    say(f"folder: {output}")
    say(f"bundle: {loaded.digest}")
