"""An exported adapter as a third party runs it: stock PEFT on the base model."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import nn

from fedcert.adapters.head_file import HEAD_FILE, check_label_embeddings, read_head
from fedcert.errors import AdapterError
from fedcert.models.base import BaseModel
from fedcert.models.encoder import LABEL_MOVES, TASK_HEAD, EncoderClassifier
from fedcert.models.heads import NamesHead

__all__ = ["exported_model", "load_head", "sharing_copy", "without_peft_futures"]


def exported_model(base: BaseModel, folder: Path) -> Any:
    """Load an adapter folder on a copy of the base model, in evaluation mode.

    The copy shares the base model's frozen weights, so it takes hardly any memory.

    Parameters
    ----------
    base : BaseModel
        Left as it is; with labels, if it takes some.
    folder : Path
        A folder that `fedcert.adapters.write_peft_adapter` wrote.

    Raises
    ------
    AdapterError
        If the folder's head is missing or damaged, or was exported for other labels.
    """
    from peft import PeftModel

    # The file is read on the CPU, whatever there is here; its values go where the copy is.
    model: Any = sharing_copy(base.model)
    if not isinstance(model, EncoderClassifier):
        with without_peft_futures():
            return PeftModel.from_pretrained(model, str(folder), torch_device="cpu").eval()
    stored = read_head(folder)
    if stored is None:
        raise AdapterError(f"{folder}: no {HEAD_FILE}; export the adapter again")
    check_label_embeddings(folder, stored, base)
    # PEFT puts its layers into the encoder, whose parts the classifier shares.
    with without_peft_futures():
        PeftModel.from_pretrained(model.stock, str(folder), torch_device="cpu")
    load_head(model, stored.tensors)
    return model.eval()


@contextmanager
def without_peft_futures() -> Iterator[None]:
    """Keep from users what transformers has to say to PEFT, which only PEFT can mend.

    PEFT 0.21 reads `is_gradient_checkpointing` of every model that it wraps. In transformers
    5.23 that is an old name, and whoever reads it is warned.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*is_gradient_checkpointing", category=FutureWarning
        )
        yield


def sharing_copy(model: nn.Module) -> Any:
    """Return a copy of a model whose frozen weights are the model's own, and not copied.

    PEFT puts its layers between modules, and copies a head before it writes there. A head
    beside an encoder is written to in place, so that one is copied here.
    """
    written = model.task_head.parameters() if isinstance(model, EncoderClassifier) else ()
    own = {id(tensor) for tensor in written}
    frozen = [
        tensor for tensor in (*model.parameters(), *model.buffers()) if id(tensor) not in own
    ]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in frozen})


def load_head(model: EncoderClassifier, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """Set the parameters of the head beside an encoder, by their full names.

    Raises
    ------
    AdapterError
        If the tensors are not those of the head.
    """
    if isinstance(model.task_head, NamesHead):
        model.task_head.take_moves(LABEL_MOVES in tensors)
    own = {f"{TASK_HEAD}.{n}": p for n, p in model.task_head.named_parameters()}
    given = {name: array.shape for name, array in tensors.items()}
    if given != {name: tuple(parameter.shape) for name, parameter in own.items()}:
        raise AdapterError(
            f"the adapter's head holds {', '.join(sorted(given)) or 'nothing'}, which does not "
            f"fit the {model.task_head.kind} head of the base model"
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(torch.from_numpy(tensors[name].copy()))
