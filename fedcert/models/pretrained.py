"""Reading a pretrained model of `transformers`, by the class that fits what was saved."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

import torch

from fedcert.errors import ModelError
from fedcert.models.depth import cut_layers
from fedcert.models.families import check_family
from fedcert.models.heads import ENCODER_HEADS

__all__ = ["made_for", "pretrained"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def made_for(config: Any) -> dict[str, Any]:
    """Return what fedcert noted in a model's configuration when it made the base model."""
    return dict(getattr(config, "fedcert", None) or {})


def pretrained(
    name: str,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    causal: bool | None = None,
    encoder: bool | None = None,
    depth: int = 0,
    **changes: Any,
) -> tuple[Any, list[str]]:
    """Load a classification model and name the weights that were not saved with it.

    Parameters
    ----------
    name, revision, dtype
        As in `fedcert.models.load_base_model`.
    causal : bool, optional
        Whether to load a causal language model; by default as fedcert noted it.
    encoder : bool, optional
        Whether to load an encoder without any head; by default as fedcert noted it.
    depth : int (default: 0)
        How many layers to leave (`fedcert.models.depth`); 0 leaves all.
    **changes
        Entries of the model's configuration to set otherwise.

    Returns
    -------
    tuple
        The model, and the names of weights that it has and the folder does not.

    Raises
    ------
    ModelError
        If it cannot be loaded.
    """
    from transformers import AutoConfig

    if dtype not in _DTYPES:
        raise ModelError(f"there is no dtype {dtype!r} here; choose {' or '.join(_DTYPES)}")
    revision = check_family(name, revision)
    try:
        # Neither code from a model's folder nor pickled weights, which are code as well.
        config = AutoConfig.from_pretrained(
            name, revision=revision, trust_remote_code=False, **changes
        )
        _check_padding(name, config)
        causal = "phrases" in made_for(config) if causal is None else causal
        if encoder is None:
            encoder = made_for(config).get("head") in ENCODER_HEADS
        chosen = _auto_class(config, causal=causal, encoder=encoder)
        # A pooler that nothing reads would be drawn at random where none was saved.
        extra = {"add_pooling_layer": False} if encoder and _has_pooler(config) else {}
        model, info = chosen.from_pretrained(
            name,
            revision=revision,
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=_DTYPES[dtype],
            output_loading_info=True,
            ignore_mismatched_sizes=bool(changes),
            **extra,
        )
    except ModelError:
        raise
    except Exception as error:  # a configuration that makes no sense raises anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if not Path(name).exists():
            reason = f"there is no such folder here, and the hub does not give it ({reason})"
        kind = "folder" if Path(name).exists() else "folder or hub id"
        raise ModelError(
            f"cannot load a base model from the {kind} {name!r}: {reason}"
        ) from error
    missing = sorted(info["missing_keys"])
    if depth:
        cut_layers(model, depth, name=name)
        missing = [key for key in missing if key in model.state_dict()]
    return model, missing


def _check_padding(name: str, config: Any) -> None:
    """Raise `ModelError` for a padding token that has no embedding."""
    pad, words = getattr(config, "pad_token_id", None), getattr(config, "vocab_size", None)
    if isinstance(pad, int) and isinstance(words, int) and not -words <= pad < words:
        raise ModelError(
            f"the base model {name!r} pads with token {pad}, but has embeddings for the tokens "
            f"0 to {words - 1} only; set pad_token_id in config.json to one of these, or call "
            "resize_token_embeddings and save the model again"
        )


def _has_pooler(config: object) -> bool:
    """Return whether an architecture can be built without its pooler."""
    from transformers import MODEL_MAPPING

    architecture = MODEL_MAPPING.get(type(config), None)
    return (
        "add_pooling_layer" in signature(getattr(architecture, "__init__", object)).parameters
    )


def _auto_class(config: object, *, causal: bool, encoder: bool) -> Any:
    """Choose the auto class from the architecture that was saved, or can be built."""
    from transformers import (
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForImageClassification,
        AutoModelForSequenceClassification,
        CLIPVisionModelWithProjection,
    )

    if encoder:
        # Under the name of the tower alone there is one without the projection.
        clip = getattr(config, "model_type", "") == "clip_vision_model"
        return CLIPVisionModelWithProjection if clip else AutoModel
    if causal:
        return AutoModelForCausalLM
    architectures = getattr(config, "architectures", None) or [""]
    images = type(config) in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    texts = type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    if "ImageClassification" in architectures[0] or (images and not texts):
        return AutoModelForImageClassification
    return AutoModelForSequenceClassification
