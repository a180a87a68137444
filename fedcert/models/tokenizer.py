"""The tokenizer that comes with a base model, and its identity."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from fedcert.canonical import digest_json
from fedcert.errors import ModelError
from fedcert.models.families import check_family

__all__ = ["load_tokenizer", "read_tokenizer", "tokenizer_digest"]


@lru_cache(maxsize=8)
def load_tokenizer(name: str, revision: str | None = None) -> Any:
    """Load the tokenizer of a base model, padding on the right.

    Parameters
    ----------
    name : str
        The base model's folder or hub id.
    revision : str, optional
        Hub revision.

    Raises
    ------
    ModelError
        If there is none, or it has no token to pad with.
    """
    tokenizer = read_tokenizer(name, revision)
    if tokenizer.pad_token is None:
        raise ModelError(
            f"the tokenizer of {name!r} has no token to pad with; make a base model with "
            "fedcert.models.with_task_head, or set pad_token and save it again"
        )
    tokenizer.padding_side = "right"
    return tokenizer


def read_tokenizer(name: str, revision: str | None = None) -> Any:
    """Load a tokenizer as it was saved.

    Raises
    ------
    ModelError
        If there is none.
    """
    from transformers import AutoTokenizer

    revision = check_family(name, revision)  # the tokenizer's class may follow from config.json
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name, revision=revision, trust_remote_code=False
        )
    except Exception as error:  # transformers raises many types where files are missing
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"cannot load a tokenizer from {name!r}: {reason}; save the base model's "
            "tokenizer in its folder"
        ) from error
    # A model without tokenizer files gets an empty tokenizer of its family.
    if not tokenizer or len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ModelError(
            f"{name!r} holds no tokenizer; save the base model's tokenizer in its folder"
        )
    return tokenizer


def tokenizer_digest(tokenizer: Any) -> str:
    """Digest what decides which ids a text becomes.

    Padding and the length of a truncation are settings of a call, which the fast tokenizers of
    transformers keep in the same place; they do not take part. From which end texts are cut
    does, where it is not the usual one.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        rules = json.loads(backend.to_str())
        rules.pop("padding", None)
        rules.pop("truncation", None)
    else:
        rules = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    side = getattr(tokenizer, "truncation_side", "right")
    cut = {} if side == "right" else {"truncation_side": side}
    return digest_json({"rules": rules, "special": special, **cut})
