"""Making base models that are encoders with a stated pooling and a head on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedcert.atomic import replaced_folder, write_json
from fedcert.errors import ModelError
from fedcert.label_set import check_template
from fedcert.models.dual_encoder import is_dual, read_dual
from fedcert.models.encoder_folder import DENSE_FILE, build_classifier, stated_reading
from fedcert.models.heads import SCALE, UNIT_SCALE, NamesHead
from fedcert.models.identity import weight_digest
from fedcert.models.image_processor import PROCESSOR_FILE, read_image_processor
from fedcert.models.int8 import check_quantization
from fedcert.models.label_config import check_label_order, label_entries
from fedcert.models.layout import find_layout
from fedcert.models.pooling import check_pooling
from fedcert.models.pretrained import pretrained
from fedcert.models.saving import cached_base, padding_tokenizer
from fedcert.models.sentence_folder import SentenceFolder

__all__ = ["save_encoder", "with_label_names"]


def with_label_names(
    name: str | Path,
    folder: Path | None = None,
    *,
    pooling: str | None = None,
    normalize: bool | None = None,
    template: str | Sequence[str] = "{label}",
    scale: float = SCALE,
    max_length: int | None = None,
    revision: str | None = None,
    dtype: str = "float32",
    quantization: str = "none",
    depth: int = 0,
) -> Path:
    """Save an encoder that classifies by the names of labels, without any labels yet.

    Parameters
    ----------
    name : str or Path
        Folder or hub id of a sentence-transformers model, of another encoder, or of a
        decoder that embeds texts; or of CLIP or SigLIP, whose image tower is adapted.
    folder : Path, optional
        Where the base model goes; by default into the cache, as in `with_task_head`.
    pooling : str, optional
        One of `fedcert.models.POOLINGS`; by default what a sentence-transformers folder
        states. It must be stated for other encoders.
    normalize : bool, optional
        Whether embeddings have length 1; likewise. A cosine does not depend on it.
    template : str or Sequence[str] (default: "{label}")
        The text that is embedded for a label unless a client brings descriptions; the
        embeddings of several templates are averaged.
    scale : float (default: 20)
        What cosines are multiplied with before anybody trains; CLIP and SigLIP have their
        own.
    max_length : int, optional
        Most tokens of a text; by default what the model states.
    revision, dtype, quantization, depth
        As in `with_task_head`.

    Returns
    -------
    Path
        The folder, which `load_base_model` takes. `BaseModel.with_labels` gives it labels.

    Raises
    ------
    ModelError
        If the model cannot be loaded, states no pooling, or is no encoder.
    """
    if not scale > 0:
        raise ModelError(f"the scale of the cosines must be positive, not {scale:g}")
    templates = [template] if isinstance(template, str) else list(template)
    check_template(templates)
    return save_encoder(
        str(name),
        folder,
        {"head": NamesHead.kind, "scale": float(scale), "template": templates},
        pooling=pooling,
        normalize=normalize,
        max_length=max_length,
        revision=revision,
        dtype=dtype,
        quantization=quantization,
        depth=depth,
    )


def save_encoder(
    name: str,
    folder: Path | None,
    options: dict[str, Any],
    *,
    labels: list[str] | None = None,
    pooling: str | None,
    normalize: bool | None,
    max_length: int | None,
    revision: str | None,
    dtype: str,
    quantization: str,
    depth: int = 0,
) -> Path:
    """Save an encoder with what fedcert is to know about its pooling and head.

    Parameters
    ----------
    name, folder, pooling, normalize, max_length, revision, dtype, quantization, depth
        As in `with_label_names`.
    options : dict
        What is noted in ``config.json`` about the head.
    labels : list of str, optional
        Names of the classes of a trained head.

    Returns
    -------
    Path
        The folder.
    """
    from safetensors.torch import save_file

    check_quantization(quantization)
    if is_dual(name, revision):
        if depth:
            raise ModelError(f"cannot cut {name!r}: it has two towers, which belong together")
        return _save_dual(
            name,
            folder,
            options,
            labels,
            revision=revision,
            dtype=dtype,
            quantization=quantization,
        )
    stated = stated_reading(name, revision)
    options = options | _reading(name, stated, pooling, normalize, max_length)
    options |= {"quantization": quantization}
    if labels is not None and options["normalize"]:
        options["scale"] = UNIT_SCALE
    source = str(Path(name) / stated.transformer) if stated and stated.transformer else name
    if folder is None:
        known = None if stated is None or stated.dense is None else weight_digest(stated.dense)
        folder = cached_base(
            source,
            revision,
            options=options,
            labels=labels or [],
            dtype=dtype,
            dense=known,
            depth=depth,
        )
        if (folder / "config.json").is_file():
            return folder
    changes: dict[str, Any] = {}
    if labels is not None:
        check_label_order(source, labels, revision=revision)
        changes = label_entries(labels)
    model, missing = pretrained(
        source, revision=revision, dtype=dtype, encoder=True, depth=depth, **changes
    )
    _check_whole(name, model, missing)
    tokenizer = padding_tokenizer(source, revision)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.fedcert = options
    dense = None if stated is None else stated.dense
    # Says what does not fit before anything is written.
    find_layout(build_classifier(model, options, dense, labels=len(labels or ())))
    with replaced_folder(folder) as staging:
        model.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        if dense is not None:
            save_file(dense.state_dict(), staging / DENSE_FILE)
    return folder


def _save_dual(
    name: str,
    folder: Path | None,
    options: dict[str, Any],
    labels: list[str] | None,
    *,
    revision: str | None,
    dtype: str,
    quantization: str,
) -> Path:
    """Save the image tower of a model of two towers; for names of labels the text tower too."""
    options = options | {"pooling": "own", "normalize": True, "max_length": None, "dense": []}
    options |= {"quantization": quantization, "text_tower": labels is None}
    if folder is None:
        folder = cached_base(name, revision, options=options, labels=labels or [], dtype=dtype)
        if (folder / "config.json").is_file():
            return folder
    image, text, scale = read_dual(name, revision, dtype=dtype)
    image.config.update({} if labels is None else label_entries(labels))
    image.config.fedcert = options | {"scale": scale if labels is None else UNIT_SCALE}
    processor = read_image_processor(name, revision)
    with replaced_folder(folder) as staging:
        image.save_pretrained(staging)
        if processor is not None:
            write_json(staging / PROCESSOR_FILE, processor)
        if labels is None:
            text.save(staging)
    return folder


def _reading(
    name: str,
    stated: SentenceFolder | None,
    pooling: str | None,
    normalize: bool | None,
    max_length: int | None,
) -> dict[str, Any]:
    """Return how an encoder is read: as the call says, and else as its folder says."""
    pooling = pooling or (stated.pooling if stated else None)
    if pooling is None:
        raise ModelError(
            f"{name!r} does not say how its hidden states become an embedding: it has no "
            "modules.json; name the pooling that it was trained with, such as pooling='mean'"
        )
    check_pooling(pooling)
    if pooling == "own":
        raise ModelError(
            f"{name!r} is read by its hidden states; the pooling 'own' is that of image towers"
        )
    if normalize is None:
        normalize = stated.normalize if stated else False
    dense = [] if stated is None or stated.dense is None else list(stated.dense)
    return {
        "pooling": pooling,
        "normalize": normalize,
        "max_length": max_length or (stated.max_length if stated else None),
        "dense": [type(part[1]).__name__ for part in dense],  # type: ignore[index]
    }


def _check_whole(name: str, model: Any, missing: Sequence[str]) -> None:
    """Refuse what is no text encoder, or has no weights."""
    if not hasattr(model, "main_input_name") or model.main_input_name != "input_ids":
        raise ModelError(
            f"{name!r} is no text encoder ({type(model).__name__}); use a model that embeds "
            "texts"
        )
    if missing:
        raise ModelError(
            f"{name!r} has no weights for {', '.join(missing[:3])}: it was not saved as an "
            "encoder"
        )
