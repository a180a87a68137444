"""Making an upload private before it leaves the client: clip, add noise, keep account."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save

from fedcert.atomic import write_atomically
from fedcert.canonical import digest_json
from fedcert.clients.node import Node
from fedcert.errors import AdapterError
from fedcert.privacy import ReleaseLedger, UploadPrivacy
from fedcert.privacy.ledger import Release
from fedcert.protocol.ledgers import NODE_STATE
from fedcert.randomness import fresh_seed, keyed_generator

__all__ = ["private_release"]

_INSTEAD = (
    "WARNING: no adapter could be made (see above), and noise around zeros was uploaded in its "
    "place: with privacy.epsilon the server must not learn from a failure. It has cost the "
    "budget of one upload."
)


def private_release(
    make: Callable[[], npt.NDArray[np.floating[Any]]],
    *,
    dimension: int,
    node: Node,
    privacy: UploadPrivacy,
    purpose: str,
) -> tuple[npt.NDArray[np.float32], float]:
    """Return what the client uploads instead of its adapter, and the mu of all its releases.

    A repeated request for the same purpose gets the same noisy adapter again: fresh noise
    each time would let the server average it away. Whether there is budget left is asked
    before anything looks at the examples. Where these are such that no adapter comes of them,
    zeros are uploaded, with the same noise: that a client fails would say something about its
    examples, without any noise.

    Parameters
    ----------
    make : callable
        Reads the examples and returns the adapter, shape ``(d,)``.
    dimension : int
        d.
    node : Node
        Who uploads; its state folder keeps ledger and releases.
    privacy : UploadPrivacy
        The promise.
    purpose : str
        A digest of what the upload is for.

    Returns
    -------
    tuple
        The noisy adapter, shape ``(d,)``, and mu of all releases together.

    Raises
    ------
    RefusalError
        If the client's budget does not allow another release.
    """
    # A state folder may have several clients.
    purpose = digest_json({"client": node.client, "purpose": purpose})
    folder = (node.state_path or node.folder / NODE_STATE) / "releases"
    path, ledger = folder / f"{purpose}.safetensors", ReleaseLedger(folder / "ledger.json")
    if path.is_file():
        return load_file(path)["upload"], ledger.mu
    ledger.check(privacy.mu, budgets=_budgets(node))
    vector = _made_or_zeros(make, dimension)
    # Before the noise is drawn: a release that nobody recorded would be worse than a record
    # without a release.
    ledger.spend(Release(purpose, privacy.mu), budgets=_budgets(node))
    released = privacy.release(vector, generator=_noise(node)).astype(np.float32)
    write_atomically(path, save({"upload": released}))
    return released, ledger.mu


def _made_or_zeros(
    make: Callable[[], npt.NDArray[np.floating[Any]]], dimension: int
) -> npt.NDArray[np.float64]:
    """Return the adapter, or zeros; why there is none stays in the node's own log."""
    try:
        vector = np.asarray(make(), dtype=np.float64)
        # A server that chooses the learning rate chooses where training diverges, too.
        if vector.shape != (dimension,) or not np.isfinite(vector).all():
            raise AdapterError("training gave an adapter with NaN or an infinity")
        return vector
    except Exception:
        traceback.print_exc()
        print(_INSTEAD, file=sys.stderr, flush=True)
        return np.zeros(dimension)


def _budgets(node: Node) -> list[tuple[float, float]]:
    """Return the run's budget and the node's own, each with its delta."""
    run, own = node.settings.privacy, node.demand
    return [
        (run.budget or run.epsilon, run.delta),
        *([(own.limit, own.delta)] if own is not None else []),
    ]


def _noise(node: Node) -> np.random.Generator:
    """Return secret noise; in a simulation it follows from the run's seed, to repeat runs."""
    deployed = node.key_path is not None or node.settings.server.state
    if deployed or node.demand is not None:
        return keyed_generator("upload noise", fresh_seed())
    return keyed_generator("simulated upload noise", node.settings.seed, node.client)
