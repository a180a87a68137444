"""What `import fedcert` offers beside its classes: each call does one whole step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedcert.errors import DataError, PriorError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from fedcert.bundles import Bundle
    from fedcert.data.examples import Examples
    from fedcert.personalization import Personalization
    from fedcert.priors import Prior

__all__ = ["fit_prior", "load_bundle", "personalize"]


def load_bundle(path: str | Path) -> Bundle:
    """Load what a federation published.

    Parameters
    ----------
    path : str or Path
        A bundle's folder, or the archive that ``fedcert bundle pack`` made.

    Returns
    -------
    Bundle
        With its prior, adapter space, recipe table, and plan.

    Raises
    ------
    BundleError
        If it is missing, damaged, or of a later version.
    """
    from fedcert.bundles import Bundle

    return Bundle.load(Path(path))


def fit_prior(
    adapters: npt.NDArray[np.floating[Any]], *, kind: str = "diffusion", seed: int = 0
) -> Prior:
    """Fit a prior to adapters, from wherever they come.

    Parameters
    ----------
    adapters : numpy.ndarray
        Shape ``(N, d)``, an adapter per row, all in the same coordinates.
    kind : str (default: "diffusion")
        One of `fedcert.priors.PRIORS`.
    seed : int (default: 0)
        Draws folds, initial weights, and noise.

    Returns
    -------
    Prior
        Its `sample` draws candidate j from a seed and j alone.

    Raises
    ------
    PriorError
        If there is no such kind, or the adapters are too few or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> adapters = np.random.default_rng(0).normal(size=(20, 6))
    >>> prior = fit_prior(adapters, kind="gaussian")
    >>> prior.sample("0" * 64, count=3).shape
    (3, 6)
    """
    from fedcert.priors import PRIORS

    if kind not in PRIORS:
        raise PriorError(f"there is no prior {kind!r}; choose {', '.join(PRIORS)}")
    return PRIORS[kind].fit(np.asarray(adapters, dtype=np.float64), seed=seed)


def personalize(
    bundle: Bundle | str | Path,
    examples: Examples | str | Path,
    *,
    client: str,
    output: str | Path,
    key: Ed25519PrivateKey | str | Path,
    base_model: str | None = None,
    duplicates_are_real: bool = False,
    repeats_are_new: bool = False,
    labels: Sequence[str] | None = None,
    device: str = "auto",
    unlabeled: Examples | str | Path | None = None,
    state: str | Path | None = None,
) -> Personalization:
    """Turn labeled examples into an adapter and an unwitnessed certificate.

    This is what ``fedcert personalize`` does without a server. The examples must be a random
    sample of what the model will meet, and are spent: the state folder remembers them.

    Parameters
    ----------
    bundle : Bundle, str or Path
        What the federation published, or where it is.
    examples : Examples, str or Path
        The support set, or a file with the columns ``input`` and ``label``.
    client : str
        Your stable id; the candidates depend on it.
    output : str or Path
        Gets ``adapter/`` and ``certificate.json``.
    key : Ed25519PrivateKey, str or Path
        Signs the certificate, or the file that holds the key, which is made if missing. With
        a key that lies in no file, and no state folder, nothing is remembered as spent.
    base_model : str, optional
        Folder or hub id of the base model; by default the one that the bundle names.
    duplicates_are_real : bool (default: False)
        Your statement that inputs which occur more than once were drawn more than once.
    repeats_are_new : bool (default: False)
        Your statement that inputs which are spent already came up again in a fresh sample.
    labels : Sequence[str], optional
        Your own labels, where the bundle leaves them to you: all that can occur, by index.
    device : str (default: "auto")
        Where to compute (`fedcert.devices.resolve_device`).
    unlabeled : Examples, str or Path, optional
        Inputs without labels, none of them in the support set, or a file with the column
        ``input``, where a method made the bundle that reads inputs.
    state : str or Path, optional
        The state folder, which remembers what is spent; by default the one that belongs to
        the key's file (`fedcert.protocol.ledgers.state_of`).

    Returns
    -------
    Personalization
        The certificate, and where the adapter is.

    Raises
    ------
    FedcertError
        If the examples do not fit, are too few, or are spent; the message says what to do.
    """
    from fedcert.bundles import Bundle
    from fedcert.data import read_examples, read_unlabeled
    from fedcert.data.examples import Examples
    from fedcert.devices import resolve_device
    from fedcert.personalization import personalize as run
    from fedcert.protocol.device import DeviceState
    from fedcert.protocol.ledgers import state_of
    from fedcert.records.signing import read_or_create_key

    loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    if loaded.takes_labels and labels is None:
        raise DataError(
            "the bundle leaves the labels to you: pass labels=[...], all that can occur"
        )
    if not isinstance(examples, Examples):
        examples = read_examples(
            Path(examples), spec=loaded.inputs, labels=labels or loaded.labels
        )
    if unlabeled is not None and not isinstance(unlabeled, Examples):
        unlabeled = read_unlabeled(Path(unlabeled), spec=loaded.inputs)
    base = loaded.load_base(base_model, device=resolve_device(device))
    if isinstance(key, str | Path):
        state = state or state_of(Path(key))
        key = read_or_create_key(Path(key))
    return run(
        loaded,
        loaded.task(base, labels=labels).model(),
        examples,
        client=client,
        key=key,
        folder=Path(output),
        state=None if state is None else DeviceState(Path(state)),
        duplicates_are_real=duplicates_are_real,
        repeats_are_new=repeats_are_new,
        unlabeled=unlabeled,
    )
