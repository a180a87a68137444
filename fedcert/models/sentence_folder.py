"""Reading how a sentence-transformers model turns hidden states into an embedding.

Its folder names a chain of modules: a transformer, a pooling, dense layers, a normalization.
What fedcert does not do is refused: another chain would be another model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedcert.errors import ModelError

__all__ = ["SentenceFolder", "read_sentence_folder"]

# The pooling modes under the names of the two styles of configuration files.
_OLD_STYLE = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
_NEW_STYLE = {"cls": "cls", "max": "max", "mean": "mean", "lasttoken": "last"}
_ACTIVATIONS = {"Tanh": nn.Tanh, "Identity": nn.Identity, "ReLU": nn.ReLU, "GELU": nn.GELU}


@dataclass(frozen=True)
class SentenceFolder:
    """What a sentence-transformers model does around its transformer.

    Attributes
    ----------
    transformer : str
        Folder of the transformer inside the model's; empty if it is the same.
    pooling : str
        One of `fedcert.models.POOLINGS`.
    normalize : bool
        Whether embeddings have length 1.
    max_length : int or None
        Most tokens of a text, where it says so.
    dense : torch.nn.Sequential or None
        Linear modules and their activations, behind the pooling.
    """

    transformer: str
    pooling: str
    normalize: bool
    max_length: int | None
    dense: nn.Sequential | None


def read_sentence_folder(name: str, revision: str | None = None) -> SentenceFolder | None:
    """Read a model's folder, or the same files of a hub id.

    Returns
    -------
    SentenceFolder or None
        None if this is no sentence-transformers model.

    Raises
    ------
    ModelError
        If it does something that fedcert does not do, or is damaged.
    """
    read = _Reader(name, revision)
    modules = read.json("modules.json")
    if modules is None:
        return None
    chain = _chain(name, modules)
    transformer = next(path for kind, path in chain if kind == "Transformer")
    _refuse_prompt(name, read.json("config_sentence_transformers.json") or {})
    limits = read.json(_inside(transformer, "sentence_bert_config.json")) or {}
    if limits.get("do_lower_case"):
        raise ModelError(
            f"{name!r} makes every text lower case before its tokenizer sees it; set "
            "do_lower_case in the tokenizer instead, and to false in sentence_bert_config.json"
        )
    pooling = next(path for kind, path in chain if kind == "Pooling")
    dense = [_dense(read, path) for kind, path in chain if kind == "Dense"]
    length = limits.get("max_seq_length")
    return SentenceFolder(
        transformer=transformer,
        pooling=_pooling(name, read.json(f"{pooling}/config.json") or {}),
        normalize=any(kind == "Normalize" for kind, _ in chain),
        max_length=None if length is None else int(length),
        dense=nn.Sequential(*dense) if dense else None,
    )


def _chain(name: str, modules: Any) -> list[tuple[str, str]]:
    """Return kind and folder of each module, if their order is one that fedcert knows."""
    try:
        chain = [(str(m["type"]).rpartition(".")[2], str(m["path"])) for m in modules]
    except (KeyError, TypeError) as error:
        raise ModelError(f"{name!r}: modules.json is damaged ({error!r})") from error
    kinds = [kind for kind, _ in chain]
    dense = kinds.count("Dense")
    known = ["Transformer", "Pooling", *["Dense"] * dense]
    if kinds not in (known, [*known, "Normalize"]):
        raise ModelError(
            f"{name!r} is a chain of {', '.join(kinds) or 'nothing'}; fedcert reads sentence "
            "encoders that are Transformer, Pooling, and then Dense and Normalize or not"
        )
    return chain


def _pooling(name: str, config: Mapping[str, Any]) -> str:
    """Return the one pooling that a configuration names, in the old style or the new one."""
    modes = config.get("pooling_mode")
    if modes is None:
        # Without any key the library takes the mean.
        named = [mode for key, mode in _OLD_STYLE.items() if config.get(key)] or ["mean"]
    else:
        listed = [modes] if isinstance(modes, str) else list(modes)
        named = [_NEW_STYLE.get(mode, str(mode)) for mode in listed]
    if len(named) != 1 or named[0] not in _NEW_STYLE.values():
        raise ModelError(
            f"{name!r} pools by {' and '.join(named)}; fedcert pools by one of "
            f"{', '.join(_NEW_STYLE.values())}"
        )
    return named[0]


def _refuse_prompt(name: str, config: Mapping[str, Any]) -> None:
    """Refuse a prompt that is put before every text; prompts that are asked for are not."""
    chosen = config.get("default_prompt_name")
    prompt = (config.get("prompts") or {}).get(chosen) if chosen else None
    if prompt:
        raise ModelError(
            f"{name!r} puts the prompt {prompt!r} before every text, which fedcert does not; "
            "put it into the texts and the label template yourself, and remove "
            "default_prompt_name from config_sentence_transformers.json"
        )


def _dense(read: _Reader, path: str) -> nn.Sequential:
    """Read a linear module and its activation."""
    config = read.json(f"{path}/config.json") or {}
    tensors = read.tensors(f"{path}/model.safetensors")
    function = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = _ACTIVATIONS.get(function.rpartition(".")[2])
    inputs = {config.get("module_input_name") or "sentence_embedding"}
    inputs.add(config.get("module_output_name") or "sentence_embedding")
    if activation is None or not function.startswith("torch.") or len(inputs) > 1:
        raise ModelError(
            f"{read.name!r}: the dense module {path!r} is of a kind that fedcert does not "
            f"know (activation {function!r})"
        )
    weight, bias = tensors.get("linear.weight"), tensors.get("linear.bias")
    if weight is None or weight.dim() != 2:
        raise ModelError(f"{read.name!r}: the dense module {path!r} has no weights")
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.load_state_dict({key.partition(".")[2]: value for key, value in tensors.items()})
    return nn.Sequential(linear.float(), activation())


class _Reader:
    """Reads files of a model's folder or of a hub id."""

    def __init__(self, name: str, revision: str | None) -> None:
        self.name, self._revision = name, revision

    def json(self, file: str) -> Any:
        path = self._path(file)
        if path is None:
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ModelError(f"{self.name!r}: {file} is damaged, not JSON ({error})") from error

    def tensors(self, file: str) -> dict[str, torch.Tensor]:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self._path(file)
        if path is None:
            raise ModelError(
                f"{self.name!r} has no {file}; save the model again with safetensors (pickled "
                "weights are code, and fedcert does not load them)"
            )
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{self.name!r}: {file} is damaged ({error})") from error

    def _path(self, file: str) -> Path | None:
        if Path(self.name).is_dir():
            path = Path(self.name) / file
            return path if path.is_file() else None
        from transformers.utils import cached_file

        try:
            found = cached_file(self.name, file, revision=self._revision)
        except OSError:  # there is no such file, or no such model: loading it will say
            return None
        return None if found is None else Path(found)


def _inside(folder: str, file: str) -> str:
    return f"{folder}/{file}" if folder else file
