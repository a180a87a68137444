"""Base models: loading, identity, and the layout that adapters attach to."""

from fedcert.label_set import LabelSet
from fedcert.models.base import BaseModel, load_base_model
from fedcert.models.encoder import EncoderClassifier
from fedcert.models.encoder_base import with_label_names
from fedcert.models.families import MODEL_TYPES
from fedcert.models.label_phrases import with_label_phrases
from fedcert.models.label_scorer import LabelScorer
from fedcert.models.layout import ModelLayout, find_layout
from fedcert.models.pooling import POOLINGS
from fedcert.models.task_head import with_task_head
from fedcert.models.tokenizer import load_tokenizer, tokenizer_digest

__all__ = [
    "MODEL_TYPES",
    "POOLINGS",
    "BaseModel",
    "EncoderClassifier",
    "LabelScorer",
    "LabelSet",
    "ModelLayout",
    "find_layout",
    "load_base_model",
    "load_tokenizer",
    "tokenizer_digest",
    "with_label_names",
    "with_label_phrases",
    "with_task_head",
]
