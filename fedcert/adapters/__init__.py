"""Adapters: their shared coordinates, training, and exchange with PEFT."""

from fedcert.adapters.codec import decode, encode
from fedcert.adapters.finetune import FinetuneResult, FinetuneSettings, finetune
from fedcert.adapters.forward import AdaptedModel, PreparedInputs
from fedcert.adapters.peft_format import (
    adapter_tensors,
    exported_digest,
    read_peft_adapter,
    write_peft_adapter,
)
from fedcert.adapters.prefix_cache import PrefixCache
from fedcert.adapters.projection import LoraUpdate, Projection, project
from fedcert.adapters.space import AdapterSpace
from fedcert.adapters.task import Task

__all__ = [
    "AdaptedModel",
    "AdapterSpace",
    "FinetuneResult",
    "FinetuneSettings",
    "LoraUpdate",
    "PrefixCache",
    "PreparedInputs",
    "Projection",
    "Task",
    "adapter_tensors",
    "decode",
    "encode",
    "exported_digest",
    "finetune",
    "project",
    "read_peft_adapter",
    "write_peft_adapter",
]
