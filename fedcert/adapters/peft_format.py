"""Exchange with PEFT: ordinary LoRA adapter folders, out exactly and in by projection.

An exported adapter has ``lora_A = V_r^T`` and ``lora_B = U_r S_r R`` with alpha = rank, so
that stock ``peft.PeftModel.from_pretrained`` gives the same logits. Modules that are tied have
their own R in there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import save_file
from safetensors.torch import load_file

from fedcert.adapters.classifier_file import ClassifierFile, public_name
from fedcert.adapters.codec import encode
from fedcert.adapters.head_file import read_head, write_head
from fedcert.adapters.projection import LoraUpdate
from fedcert.adapters.space import AdapterSpace
from fedcert.atomic import replaced_folder
from fedcert.canonical import digest_tensors
from fedcert.errors import AdapterError
from fedcert.models.base import BaseModel

__all__ = [
    "adapter_and_head",
    "adapter_tensors",
    "exported_digest",
    "foreign_settings",
    "read_peft_adapter",
    "write_peft_adapter",
]

_PREFIX = "base_model.model."
_PICKLED = "adapter_model.bin"
_READABLE = {torch.float64, torch.float32, torch.float16, torch.bfloat16}
_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"
_NOT_PLAIN = (
    "use_dora",
    "use_rslora",
    "use_qalora",
    "use_bdlora",
    "fan_in_fan_out",
    "alora_invocation_tokens",
    "layer_replication",
)
_MOVES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga", "mica")
# What PEFT takes for the head of a model of texts.
_WRAPPED = ("classifier", "score")
# What PEFT does with the tensors does not depend on these.
_FREE = {"base_model_name_or_path", "peft_version", "revision"}


def adapter_tensors(
    space: AdapterSpace, vector: npt.NDArray[np.floating[Any]]
) -> dict[str, npt.NDArray[np.float32]]:
    """Return the float32 tensors of a PEFT LoRA state dict for one vector."""
    own = space.untie(torch.from_numpy(np.asarray(vector, dtype=np.float64)))
    parts = encode(space.untied, own.numpy())
    tensors = {}
    for target in space.targets:
        up = space.basis[f"{target.name}.up"].astype(np.float64)
        core = parts[f"{target.name}.R"].astype(np.float64)
        tensors[f"{_PREFIX}{target.name}.lora_A.weight"] = space.basis[f"{target.name}.down"]
        tensors[f"{_PREFIX}{target.name}.lora_B.weight"] = (up @ core).astype(np.float32)
    for tensor in space.head:
        tensors[f"{_PREFIX}{tensor.name}"] = parts[tensor.name]
    return tensors


def adapter_and_head(
    space: AdapterSpace, vector: npt.NDArray[np.floating[Any]]
) -> tuple[dict[str, npt.NDArray[np.float32]], dict[str, npt.NDArray[np.float32]]]:
    """Return `adapter_tensors` apart: PEFT's, and by their own names those of a head beside."""
    tensors, head = adapter_tensors(space, vector), {}
    for tensor in space.head if space.head_beside else ():
        head[tensor.name] = tensors.pop(f"{_PREFIX}{tensor.name}")
    return tensors, head


def write_peft_adapter(
    space: AdapterSpace,
    vector: npt.NDArray[np.floating[Any]],
    folder: Path,
    *,
    base_name: str,
    base: BaseModel | None = None,
    labels: Sequence[str] | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> str:
    """Write an adapter folder that stock PEFT loads, and return its tensor digest.

    A head beside an encoder goes to a file of its own (`fedcert.adapters.head_file`), so that
    the folder loads on the encoder as it is.

    Parameters
    ----------
    space : AdapterSpace
        The adapter's coordinates.
    vector : numpy.ndarray
        Shape ``(d,)``, or as `AdapterSpace.holding` says, with a base model that has labels.
    folder : Path
        Replaced as a whole, or left as it was on any error.
    base_name : str
        Written as ``base_model_name_or_path``; of a folder only its own name, since its place
        means nothing elsewhere.
    base : BaseModel, optional
        With its labels, if it takes some. Then the folder describes itself
        (`fedcert.adapters.classifier_file`), and `fedcert.load_classifier` takes it.
    labels : Sequence[str], optional
        Names of the labels by index, where the base model does not have them.
    inputs : Mapping[str, Any], optional
        How inputs are encoded (`fedcert.data.InputSpec.to_config`).

    Returns
    -------
    str
        The digest of the tensors that were written, 64 hexadecimal digits.
    """
    if base is not None:
        space = space.holding(len(vector), labels=base.num_labels)
    tensors, head = adapter_and_head(space, vector)
    with replaced_folder(folder) as staging:
        config = _lora_config(space, public_name(base_name))
        if base is not None:
            config.task_type = _task_type(space, base)
            known = None if inputs is None else dict(inputs)
            ClassifierFile.of(base, labels=labels, inputs=known).write(staging)
        config.save_pretrained(str(staging))
        save_file(tensors, staging / _WEIGHTS)
        if head:
            write_head(staging, head, base)
    return digest_tensors(adapter_tensors(space, vector))


def _task_type(space: AdapterSpace, base: BaseModel) -> str | None:
    """Return PEFT's word for a model of texts; its classes for these take no images."""
    texts = getattr(base.model, "main_input_name", "") == "input_ids"
    return _task_types(space)[-1] if texts else None


def _task_types(space: AdapterSpace) -> tuple[str | None, ...]:
    """Return the task types with which PEFT does no other than without one.

    Of a classifier it would wrap these modules as a whole, and so it may where they are what
    was trained; of an encoder it would look for them in vain.
    """
    if space.head_beside:
        return None, "FEATURE_EXTRACTION"
    return (None, "SEQ_CLS") if space.head_module in _WRAPPED else (None,)


def exported_digest(folder: Path) -> str:
    """Digest the tensors of an adapter folder, those of a head beside the encoder included.

    Label embeddings are none of an adapter's: they follow from base model and label set.
    """
    beside = read_head(folder)
    head = {} if beside is None else beside.tensors
    tensors = {f"{_PREFIX}{name}": array for name, array in head.items()}
    for name, tensor in _load_tensors(folder).items():
        # bfloat16 has no NumPy type; no certified adapter is of it, so a marked name will do.
        marked = name if tensor.dtype is not torch.bfloat16 else f"{name}:bfloat16"
        tensors[marked] = _array(tensor)
    return digest_tensors(tensors)


def foreign_settings(space: AdapterSpace, folder: Path) -> list[str]:
    """Name the settings of an adapter folder that `write_peft_adapter` writes otherwise.

    PEFT applies the tensors as the configuration says (scaling, modules), so with other
    settings the same tensors are another adapter.
    """
    stored, ours = _load_config(folder), _lora_config(space, "").to_dict()
    free = set(_FREE)
    if stored.get("task_type") in _task_types(space):
        free.add("task_type")
    names = (stored.keys() | ours.keys()) - free
    # A setting that another PEFT version lacks has its default there.
    return sorted(
        name
        for name in names
        if _plain(stored.get(name, ours.get(name))) != _plain(ours.get(name))
    )


def _plain(value: Any) -> Any:
    """Treat all empty values alike, and sets, lists and tuples as sorted lists."""
    if isinstance(value, set | list | tuple):
        value = sorted(value, key=str)
    return value or None


def _lora_config(space: AdapterSpace, base_name: str) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        base_model_name_or_path=base_name,
        inference_mode=True,
        r=space.rank,
        lora_alpha=space.rank,
        lora_dropout=0.0,
        use_rslora=False,
        target_modules=[target.name for target in space.targets],
        modules_to_save=[space.head_module] if space.head_module else None,
    )


def read_peft_adapter(folder: Path, *, head_module: str) -> LoraUpdate:
    """Read an ordinary LoRA adapter folder written by PEFT.

    Raises
    ------
    AdapterError
        If the folder is incomplete or damaged, or the adapter is more than plain LoRA.
    """
    config = _load_config(folder)
    scaling = _scaling(folder, config)
    factors: dict[str, dict[str, npt.NDArray[Any]]] = {}
    head: dict[str, npt.NDArray[Any]] = {}
    beside = None if head_module else read_head(folder)
    if beside is not None:
        head |= beside.tensors
    for key, stored in _load_tensors(folder).items():
        tensor = _array(stored)
        name = key.removeprefix(_PREFIX)
        module, _, factor = name.removesuffix(".weight").rpartition(".")
        if factor in {"lora_A", "lora_B"}:
            factors.setdefault(module, {})[factor] = tensor
        elif head_module and name.startswith(f"{head_module}."):
            head[name] = tensor
        else:
            raise AdapterError(f"{folder}: unexpected tensor {key!r} in a LoRA adapter")
    for module, pair in factors.items():
        if len(pair) != 2:
            raise AdapterError(f"{folder}: {module!r} has only one of its two LoRA factors")
    return LoraUpdate(
        {
            module: (
                pair["lora_A"],
                pair["lora_B"],
                scaling(module, pair["lora_A"].shape[0]),
            )
            for module, pair in factors.items()
        },
        head,
    )


def _scaling(folder: Path, config: dict[str, Any]) -> Any:
    """Return the function (module, rank) -> alpha / rank of a LoRA configuration."""
    used = [option for option in _NOT_PLAIN if config.get(option)]
    start = str(config.get("init_lora_weights"))
    if start.lower().startswith(_MOVES_BASE):
        # These subtract the start from the base weights: Delta W is not B A alone.
        used.append(f"init_lora_weights={start!r}")
    if used:
        raise AdapterError(
            f"{folder}: the adapter uses {used[0]}, which is not a plain LoRA update; "
            "merge it or train it without that option"
        )
    if config.get("peft_type") != "LORA":
        raise AdapterError(f"{folder}: {config.get('peft_type')!r} is not a LoRA adapter")
    alphas, default = config.get("alpha_pattern") or {}, config.get("lora_alpha", 1)

    def scaling(module: str, rank: int) -> float:
        # PEFT's own rule: patterns are regular expressions, and the first match counts.
        own = [a for p, a in alphas.items() if re.match(rf"(.*\.)?({p})$", module)]
        return float(own[0] if own else default) / rank

    return scaling


def _load_config(folder: Path) -> dict[str, Any]:
    path = folder / _CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise AdapterError(f"{folder}: no {_CONFIG}; this is not an adapter folder") from error
    except ValueError as error:
        raise AdapterError(f"{path}: damaged, not JSON ({error})") from error
    if not isinstance(config, dict):
        raise AdapterError(f"{path}: damaged, not a JSON object")
    return config


def _array(tensor: torch.Tensor) -> npt.NDArray[Any]:
    """Return a tensor as an array; float32 holds every bfloat16 exactly."""
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()


def _load_tensors(folder: Path) -> dict[str, torch.Tensor]:
    path = folder / _WEIGHTS
    try:
        tensors = load_file(path)
    except FileNotFoundError as error:
        if (folder / _PICKLED).exists():
            raise AdapterError(
                f"{folder}: holds {_PICKLED}, which can run code when it is read; if you trust "
                f"it, convert it: safetensors.torch.save_file(torch.load({_PICKLED!r}, "
                f"weights_only=True), {_WEIGHTS!r})"
            ) from error
        raise AdapterError(f"{folder}: no {_WEIGHTS}; this is not an adapter folder") from error
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise AdapterError(f"{path}: damaged, not a safetensors file ({error})") from error
    for name, tensor in tensors.items():
        if tensor.dtype not in _READABLE:
            raise AdapterError(
                f"{path}: {name!r} holds numbers of the type {tensor.dtype}, which are not "
                "read; save the adapter in float32"
            )
    return tensors
