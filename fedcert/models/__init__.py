"""Base models: loading, identity, and the layout that adapters attach to."""

from fedcert.models.base import BaseModel, load_base_model
from fedcert.models.families import MODEL_TYPES
from fedcert.models.label_phrases import with_label_phrases
from fedcert.models.label_scorer import LabelScorer
from fedcert.models.layout import ModelLayout, find_layout
from fedcert.models.task_head import with_task_head
from fedcert.models.tokenizer import load_tokenizer, tokenizer_digest

__all__ = [
    "MODEL_TYPES",
    "BaseModel",
    "LabelScorer",
    "ModelLayout",
    "find_layout",
    "load_base_model",
    "load_tokenizer",
    "tokenizer_digest",
    "with_label_phrases",
    "with_task_head",
]
