"""Base models: loading, identity, and the layout that adapters attach to."""

from fedcert.models.base import BaseModel, load_base_model
from fedcert.models.layout import ModelLayout, find_layout

__all__ = ["BaseModel", "ModelLayout", "find_layout", "load_base_model"]
