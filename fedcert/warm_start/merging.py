"""From a trained trunk to a base model of its own: a folder with its own digest."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from fedcert.atomic import replaced_folder, write_json
from fedcert.errors import ModelError
from fedcert.models.base import BaseModel, freeze, load_base_model
from fedcert.models.encoder import EncoderClassifier
from fedcert.models.label_scorer import LabelScorer
from fedcert.warm_start.trunk import Trunk, TrunkTensors

__all__ = ["PROVENANCE", "merge", "merged_folder"]

PROVENANCE = "warm_start.json"
"""What says in the folder of a merged base model where it comes from."""
_FORMAT = "fedcert.warm-start/1"


def merged_folder(parent: Path, digest: str) -> Path:
    """Return where a merged base model is kept.

    Raises
    ------
    ModelError
        If this is no digest; it may come from another machine.
    """
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise ModelError(f"{digest[:80]!r} is no digest of a base model")
    return parent / f"base-{digest[:16]}"


def merge(
    folder: Path,
    trunk: Trunk,
    tensors: TrunkTensors,
    parent: Path,
    *,
    about: Mapping[str, Any],
    digest: str | None = None,
) -> tuple[Path, str]:
    """Write a base model with a trunk in its weights, in full or not at all.

    Every machine that does so gets the same bits (`Trunk.add_to`), so a few hundred kilobytes
    travel and not a whole model, and the digest proves that they arrived.

    Parameters
    ----------
    folder : Path
        The base model as it was; it stays.
    trunk : Trunk
        Of that base model.
    tensors : TrunkTensors
        Every B after the last round.
    parent : Path
        The new folder goes there, under a name that follows from its digest.
    about : Mapping
        What is noted beside the weights: settings, rounds, and the like, as a JSON object.
    digest : str, optional
        What the new base model must have.

    Returns
    -------
    tuple
        Its folder and its digest.

    Raises
    ------
    ModelError
        If the folder holds another base model than the trunk's, or something else comes out.
    """
    base = load_base_model(str(folder), digest=trunk.base_digest)
    trunk.add_to(base, tensors)
    made = freeze(base.model, name=base.name).digest
    if digest is not None and made != digest:
        raise ModelError(
            f"merging the trunk gave the base model {made[:12]} here and {digest[:12]} at the "
            "server; copy the server's folder here, and name it as base-model in this node's "
            "configuration"
        )
    target = merged_folder(parent, made)
    if (target / PROVENANCE).is_file():
        return target, made
    notes = {"format": _FORMAT, "from": trunk.base_digest, "digest": made, **about}
    with replaced_folder(target) as staging:
        shutil.copytree(folder, staging, ignore=_weights_of(folder), dirs_exist_ok=True)
        _stock(base).save_pretrained(staging)
        write_json(staging / PROVENANCE, notes)
        # What is on the disk is what the digest speaks of.
        load_base_model(str(staging), digest=made)
    return target, made


def _weights_of(folder: Path) -> Callable[[str, list[str]], list[str]]:
    """Leave out the model's own weights; tokenizer, processor, a text tower stay."""

    def ignored(place: str, names: list[str]) -> list[str]:
        own = [name for name in names if fnmatch(name, "model*.safetensors*")]
        return own if Path(place) == folder else []

    return ignored


def _stock(base: BaseModel) -> Any:
    """Return the model as `transformers` saves it."""
    if isinstance(base.model, EncoderClassifier | LabelScorer):
        return base.model.stock
    return base.model
