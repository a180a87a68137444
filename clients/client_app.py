"""The ClientApp: one function per message of the protocol."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedcert.clients.averaging import average
from fedcert.clients.certifying import certify, commit
from fedcert.clients.denoising import contribute
from fedcert.clients.node import Node, node_of
from fedcert.clients.own_training import Training
from fedcert.clients.planning import plan
from fedcert.clients.training import train
from fedcert.clients.warming import install, warm
from fedcert.errors import FedcertError, RefusalError
from fedcert.messages import (
    AVERAGE,
    BASE,
    CERTIFY,
    COMMIT,
    CONTRIBUTE,
    HELLO,
    PLAN,
    REPLY,
    TRAIN,
    WARM,
)
from fedcert.messages.flower import content
from fedcert.settings import RunSettings
from fedcert.settings.run_config import check_absolute, settings_and_output
from fedcert.threads import torch_threads

__all__ = ["HANDLERS", "app", "make_client_app", "node_here"]

# Pinned, since the number of threads changes the last bits of results: a client gives the
# same adapter on Ray, in the calling thread, and on a node of its own.
_THREADS = 1

_Handler = Callable[[Message, Node], RecordDict]


def make_client_app(
    settings: RunSettings | None = None,
    output: Path | None = None,
    *,
    training: Training | None = None,
) -> ClientApp:
    """Build the ClientApp.

    Parameters
    ----------
    settings : RunSettings, optional
        The run's settings; by default they come from Flower's run config, which Flower's
        Python API for simulations leaves empty.
    output : Path, optional
        The run folder, likewise.
    training : Training, optional
        How upstream clients train an adapter, in place of fedcert's own loop.

    Returns
    -------
    ClientApp
        The app, for `flwr run` or a simulation.
    """
    client_app = ClientApp()

    for kind in HANDLERS:
        category, _, action = kind.partition(".")
        register = getattr(client_app, category)(action)
        register(_answering(kind, settings, output, training))
    return client_app


def _answering(
    kind: str,
    settings: RunSettings | None,
    output: Path | None,
    training: Training | None,
) -> Callable[[Message, Context], Message]:
    """Return what handles a message; a failure becomes a reply with its cause in one line."""

    def answer(message: Message, context: Context) -> Message:
        try:
            with torch_threads(_THREADS):
                node = node_here(context, settings, output, noisy=kind in _NOISY)
                node = replace(node, training=training)
                reply = HANDLERS[kind](message, node)
        except FedcertError as error:
            reply = content({"failed": str(error)}, key=REPLY)
        except Exception as error:
            # The node's own log gets the whole story, the server a line.
            traceback.print_exc()
            reply = content({"failed": _cause(error, context)}, key=REPLY)
        return Message(reply, reply_to=message)

    return answer


def _cause(error: Exception, context: Context) -> str:
    """Say in a line what went wrong; an unforeseen error may quote a deployed node's data."""
    kind = type(error).__name__
    if "data-path" in context.node_config:
        return f"{kind}; the node's own log says more"
    return f"{kind}: {error}" if str(error) else kind


def _introduce(_message: Message, node: Node) -> RecordDict:
    node.upload_privacy()  # a run that this node sends nothing to need not wait for it
    return content(node.introduction(), key=REPLY)


HANDLERS: dict[str, _Handler] = {
    HELLO: _introduce,
    WARM: warm,
    BASE: install,
    TRAIN: train,
    CONTRIBUTE: contribute,
    AVERAGE: average,
    PLAN: plan,
    COMMIT: commit,
    CERTIFY: certify,
}
"""Who answers each message of the protocol."""

# What a node answers that demands noise. The others say something about its examples without
# any; one that is added has to be listed here, or such a node refuses it.
_NOISY = (HELLO, BASE, TRAIN)


def node_here(
    context: Context,
    settings: RunSettings | None,
    output: Path | None,
    *,
    noisy: bool = False,
) -> Node:
    """Find out who this node is.

    Parameters
    ----------
    context : Context
        Flower's context of the node.
    settings, output
        As in `make_client_app`.
    noisy : bool (default: False)
        Whether what it is about to send tells nothing of its examples but what noise covers.

    Returns
    -------
    Node
        The node's task, data, keys, and folders.

    Raises
    ------
    SettingsError
        If the node's configuration or the run's settings are wrong.
    RefusalError
        If the node demands noise, and there would be none.
    """
    if settings is None:
        settings, output = settings_and_output(context.run_config)
    output = check_absolute(output)
    # Settings that came ready made, as to Ray's workers, have imported nothing here.
    settings.import_extensions()
    node = node_of(context, settings, output)
    if node.demand is not None and not noisy:
        raise RefusalError(
            "this node's configuration has privacy-epsilon, and what it is asked for would "
            "leave it without noise"
        )
    return node


app = make_client_app()
