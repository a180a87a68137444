"""``fedcert deploy``: a federation of real processes, and the keys of server and nodes."""

from __future__ import annotations

import shlex
import signal
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from fedcert.cli.console import say
from fedcert.cli.endings import in_one_line
from fedcert.errors import RunError, SettingsError
from fedcert.reports.formats import decimal_up

if TYPE_CHECKING:
    from fedcert.simulations.deployed_example import Example

__all__ = ["deploy"]

deploy = typer.Typer(
    name="deploy",
    no_args_is_help=True,
    suggest_commands=False,
    help="Bring up SuperLink and SuperNodes on this machine, and make keys for other machines.",
)


@deploy.command()
def local(
    nodes: Annotated[
        int, typer.Option(min=2, help="SuperNodes; half of them train, the others certify.")
    ] = 3,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Gets everything; used again, it goes on.")
    ] = Path("runs/deployed"),
    simulated: Annotated[
        int,
        typer.Option(
            min=0, help="Clients whose adapters a simulation adds to the pool beforehand."
        ),
    ] = 24,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", help="One setting, `section.key=value`; may be repeated."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for the run.")] = 1800.0,
) -> None:
    """Bring up a SuperLink and SuperNodes on this machine, and certify the new clients.

    TLS and node authentication are on, every node has its own data file, and nothing is left
    running in the end. Exits with 1 if the run fails or a new client is left without a
    certificate.
    """
    from fedcert.deployment import Deployment
    from fedcert.simulations.deployed_example import digits_on_nodes, grow_pool

    overrides = dict(map(_setting, override or []))
    _quiet()
    with _unwinding():
        example = digits_on_nodes(
            output, nodes=nodes, simulated=simulated, overrides=overrides, say=say
        )
        grow_pool(example.output / "pool", example.settings, example.simulated, say=say)
        with Deployment(output, example.nodes, say=say) as deployment:
            say("run the app")
            deployment.run(example.config, timeout=timeout)
            say("stop the nodes and the SuperLink")
    _tell(output.resolve(), example)


@deploy.command()
def tls(
    host: Annotated[
        list[str], typer.Option(help="A name or address of the server; may be repeated.")
    ],
    folder: Annotated[Path, typer.Option(help="Gets the four files.")] = Path("tls"),
) -> None:
    """Make a CA and the server's certificate; files that are there are kept."""
    from fedcert.deployment.credentials import make_tls

    files = make_tls(folder, host)
    say(f"for everybody:       {files.ca}")
    say(f"for the server:      {files.certificate}, {files.key}")
    say(f"to be put away safe: {folder / 'ca.key'}")


@deploy.command()
def node_key(
    path: Annotated[Path, typer.Argument(help="The private key; the public one is beside it.")],
) -> None:
    """Make a node's key pair; one that is there is kept."""
    from fedcert.deployment.credentials import make_node_key

    public = make_node_key(path)
    say(f"stays on the node: {path}")
    say(f"to be registered:  {public}")


def _setting(text: str) -> tuple[str, str | bool | int | float]:
    key, separator, value = text.partition("=")
    try:
        read = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        read = value.strip()
    if not separator or not key.strip() or not isinstance(read, str | bool | int | float):
        raise SettingsError(f"--set {text!r} is not of the form key=value with a single value")
    return key.strip().replace("_", "-"), read


def _tell(output: Path, example: Example) -> None:
    from fedcert.certificates import Certificate
    from fedcert.certificates.bounds import confidence
    from fedcert.protocol.authority import SeedAuthority

    run, server = output / "run", output / "server"
    key = SeedAuthority(server).public_key
    new = [node.client for node in example.nodes if node.role == "new"]
    paths = {client: run / "certificates" / f"{client}.json" for client in new}
    there = {client: path for client, path in paths.items() if path.is_file()}
    say(f"{len(there)} of {len(new)} new clients have a certificate")
    for client, path in there.items():
        certificate = Certificate.read(path)
        useless = certificate.bound >= certificate.chance
        say(
            f"  {client}: n = {certificate.support_size}, error at most "
            f"{decimal_up(certificate.bound)} with probability {confidence(certificate.delta)}"
            f"{', no better than guessing' if useless else ''}"
        )
    say(f"run:          {run} (fedcert status tells how it went)")
    say(f"report:       {run / 'report.html'}")
    say(f"bundle:       {run / 'bundle'}")
    say(f"certificates: {run / 'certificates'}, countersigned in {run / 'witnesses'}")
    say(f"adapters:     {output / 'nodes'}/<client>/adapter")
    say(f"server:       {server} (log.jsonl is for everybody; key and nonces are secret)")
    say(f"logs:         {output / 'logs'}")
    for client, path in list(there.items())[:1]:
        say("to verify the first one:")
        command = ["fedcert", "verify", str(path), "--bundle", str(run / "bundle")]
        command += ["--server-key", key, "--witness", str(run / "witnesses" / f"{client}.json")]
        command += ["--log", str(server / "log.jsonl")]
        command += ["--adapter", str(output / "nodes" / client / "adapter")]
        say(f"  {shlex.join(command)}")
    if len(there) < len(new):
        missing = ", ".join(client for client in new if client not in there)
        raise RunError(
            f"no certificate for {missing}: fedcert status {run} has the causes, and the logs "
            f"of the nodes in {output / 'logs'} say more"
        )


@contextmanager
def _unwinding() -> Iterator[None]:
    """Let being ended from outside unwind, so that whatever was started is stopped."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    with in_one_line(interrupted="what was started is stopped, and the same command goes on"):
        yield


def _quiet() -> None:
    """Silence what would stand between the lines of progress."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
