"""``python -m fedcert.simulations.deployment``: a federation of real processes, end to end."""

from __future__ import annotations

import shlex
import signal
import tomllib
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from fedcert.certificates import Certificate
from fedcert.cli.endings import in_one_line
from fedcert.errors import RunError, SettingsError
from fedcert.protocol.authority import SeedAuthority
from fedcert.reports.formats import decimal_up
from fedcert.simulations.deployment.example import Example, digits_on_nodes, grow_pool
from fedcert.simulations.deployment.federation import Deployment

__all__ = ["deploy"]


def deploy(
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
    overrides = dict(map(_setting, override or []))
    _quiet()
    example = digits_on_nodes(
        output, nodes=nodes, simulated=simulated, overrides=overrides, say=_say
    )
    grow_pool(example.output / "pool", example.settings, example.simulated, say=_say)
    with Deployment(output, example.nodes, say=_say) as deployment:
        _say("run the app")
        deployment.run(example.config, timeout=timeout)
        _say("stop the nodes and the SuperLink")
    _tell(output.resolve(), example)


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
    run, server = output / "run", output / "server"
    key = SeedAuthority(server).public_key
    new = [node.client for node in example.nodes if node.role == "new"]
    paths = {client: run / "certificates" / f"{client}.json" for client in new}
    there = {client: path for client, path in paths.items() if path.is_file()}
    _say(f"{len(there)} of {len(new)} new clients have a certificate")
    for client, path in there.items():
        certificate = Certificate.read(path)
        _say(
            f"  {client}: n = {certificate.support_size}, error at most "
            f"{decimal_up(certificate.bound)} with probability {1 - certificate.delta:g}"
        )
    _say(f"run:          {run} (fedcert status tells how it went)")
    _say(f"bundle:       {run / 'bundle'}")
    _say(f"certificates: {run / 'certificates'}, countersigned in {run / 'witnesses'}")
    _say(f"adapters:     {output / 'nodes'}/<client>/adapter")
    _say(f"server:       {server} (log.jsonl is for everybody; key and nonces are secret)")
    _say(f"logs:         {output / 'logs'}")
    for client, path in list(there.items())[:1]:
        _say("to verify the first one:")
        command = ["fedcert", "verify", str(path), "--bundle", str(run / "bundle")]
        command += ["--server-key", key, "--witness", str(run / "witnesses" / f"{client}.json")]
        command += ["--log", str(server / "log.jsonl")]
        command += ["--adapter", str(output / "nodes" / client / "adapter")]
        _say(f"  {shlex.join(command)}")
    if len(there) < len(new):
        missing = ", ".join(client for client in new if client not in there)
        raise RunError(
            f"no certificate for {missing}: fedcert status {run} has the causes, and the logs "
            f"of the nodes in {output / 'logs'} say more"
        )


def _quiet() -> None:
    """Silence what would stand between the lines of progress."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _say(text: str) -> None:
    print(text, flush=True)


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    """Unwind, so that whatever was started is stopped."""
    raise KeyboardInterrupt


def main() -> None:
    """Run the command; a user's mistake ends it with one line."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    with in_one_line(interrupted="what was started is stopped, and the same command goes on"):
        typer.run(deploy)


if __name__ == "__main__":
    main()
