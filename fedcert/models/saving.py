"""Saving a base model: where the cache keeps it, and what stands beside its weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from fedcert.atomic import replaced_folder, write_json
from fedcert.cache import cache_folder
from fedcert.canonical import digest_json
from fedcert.errors import ModelError
from fedcert.models.families import check_family
from fedcert.models.image_processor import PROCESSOR_FILE
from fedcert.models.tokenizer import read_tokenizer

__all__ = ["cached_base", "padding_tokenizer", "save_base"]

# Part of the cache's key: change it when the same source gives another base model.
_VERSION = 2


def save_base(
    model: Any, tokenizer: Any, folder: Path, *, processor: dict[str, Any] | None = None
) -> None:
    """Save a base model with its tokenizer or image processor, in full or not at all.

    Parameters
    ----------
    model : Any
        A model of `transformers`.
    tokenizer : Any
        Its tokenizer, or None.
    folder : Path
        Replaced in one step.
    processor : dict, optional
        What `fedcert.models.image_processor.read_image_processor` returned.
    """
    if tokenizer is not None:
        model.config.pad_token_id = tokenizer.pad_token_id
    with replaced_folder(folder) as staging:
        model.save_pretrained(staging)
        if tokenizer is not None:
            tokenizer.save_pretrained(staging)
        if processor is not None:
            write_json(staging / PROCESSOR_FILE, processor)


def padding_tokenizer(name: str, revision: str | None) -> Any:
    """Load the source's tokenizer; a decoder without a padding token pads with its end."""
    tokenizer = read_tokenizer(name, revision)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ModelError(
                f"the tokenizer of {name!r} has neither a padding nor an end token; "
                "set pad_token in tokenizer_config.json"
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def cached_base(name: str, revision: str | None, **made_from: Any) -> Path:
    """Return where the cache keeps a base model, given what it is made from (JSON values).

    Parameters
    ----------
    name : str
        A folder or hub id.
    revision : str or None
        Hub revision.
    **made_from
        Everything else that the base model depends on; a depth of 0 says nothing.

    Returns
    -------
    Path
        A folder, which need not be there yet.
    """
    if not made_from.get("depth"):
        made_from.pop("depth", None)  # which the names of before do not say
    content = {
        "source": _content(name, revision),
        "torch": torch.__version__,
        "version": _VERSION,
        **{key: list(v) if isinstance(v, tuple) else v for key, v in made_from.items()},
    }
    return cache_folder() / "base-models" / f"{Path(name).name}-{digest_json(content)[:16]}"


def _content(name: str, revision: str | None) -> dict[str, str]:
    """Name what a folder holds by the digests of its files, and a hub model by its commit."""
    if Path(name).is_dir():
        files = sorted(path for path in Path(name).iterdir() if path.is_file())
        digests = {}
        for path in files:
            with path.open("rb") as file:
                digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
        return digests
    return {name: str(check_family(name, revision))}
