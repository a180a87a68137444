"""CLIP and SigLIP: the image tower is adapted, the text tower embeds the labels' names.

The text tower stays as it is and stands in a folder of its own beside the image tower. It is
no part of the model that runs over examples, but the base model's digest covers it.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import torch

from fedcert.canonical import digest_json
from fedcert.errors import ModelError
from fedcert.models.families import check_family
from fedcert.models.identity import identity_digest, weight_digest
from fedcert.models.tokenizer import read_tokenizer, tokenizer_digest

__all__ = ["TextTower", "is_dual", "load_text_tower", "read_dual"]

TEXT_FOLDER = "text_tower"
_FAMILIES = ("clip", "siglip")


class TextTower:
    """A frozen text tower with its tokenizer.

    Parameters
    ----------
    model : torch.nn.Module
        The text tower of CLIP, with its projection, or of SigLIP.
    tokenizer : object
        Its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        for parameter in model.parameters():
            parameter.requires_grad_(False)

    def __deepcopy__(self, _memo: dict[int, Any]) -> TextTower:
        return self  # frozen, and no copy of a classifier changes it

    @property
    def digest(self) -> str:
        """Identity of weights, configuration, and tokenizer."""
        own = identity_digest(self.model, weight_digest(self.model))
        return digest_json([own, tokenizer_digest(self.tokenizer)])

    @property
    def longest(self) -> int:
        """Most tokens of a text."""
        return int(self.model.config.max_position_embeddings)

    def tokens(self, text: str) -> dict[str, torch.Tensor]:
        """Tokenize a text as the tower was trained: SigLIP reads texts padded to the end."""
        if self._siglip:
            padded = {"padding": "max_length", "max_length": self.longest}
            encoded = self.tokenizer([text], return_tensors="pt", **padded)
            return {"input_ids": encoded["input_ids"]}
        encoded = self.tokenizer([text], return_tensors="pt")
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}

    @torch.no_grad()
    def embed(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the embedding of one tokenized text."""
        outputs = self.model(**inputs)
        made = outputs.pooler_output if self._siglip else outputs.text_embeds
        embedding: torch.Tensor = made[0]
        return embedding

    def save(self, folder: Path) -> None:
        """Save tower and tokenizer."""
        self.model.save_pretrained(folder / TEXT_FOLDER)
        self.tokenizer.save_pretrained(folder / TEXT_FOLDER)

    @property
    def _siglip(self) -> bool:
        return str(self.model.config.model_type).startswith("siglip")


def is_dual(name: str, revision: str | None) -> bool:
    """Return whether a folder or hub id is a model of two towers that fedcert knows."""
    from transformers import AutoConfig

    revision = check_family(name, revision)
    try:
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    except Exception:  # a configuration that makes no sense raises anything
        return False  # loading it says why
    return config.model_type in _FAMILIES


def read_dual(name: str, revision: str | None, *, dtype: str) -> tuple[Any, TextTower, float]:
    """Load image tower, text tower, and the scale that the two were trained with.

    Parameters
    ----------
    name, revision
        Folder or hub id.
    dtype : str
        Type of the image tower; the text tower stays in float32, since it runs once a label.

    Returns
    -------
    tuple
        Image tower, text tower, and the scale that cosines are multiplied by.

    Raises
    ------
    ModelError
        If a tower is missing.
    """
    import transformers

    revision = check_family(name, revision)
    try:
        whole = transformers.AutoModel.from_pretrained(
            name,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            revision=revision,
        )
        model, missing = whole[0], sorted(whole[1]["missing_keys"])
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"cannot load the two towers of {name!r}: {reason}") from error
    if missing:
        tower = "text" if any(key.startswith("text") for key in missing) else "image"
        raise ModelError(
            f"{name!r} has no weights for its {tower} tower ({missing[0]}): names of labels "
            "and images are compared with both; use the whole model"
        )
    image = _tower(model, "Vision", dtype=getattr(torch, dtype))
    text = _tower(model, "Text", dtype=torch.float32)
    scale = math.exp(float(model.logit_scale.detach()))
    return image, TextTower(text, read_tokenizer(name, revision)), scale


def load_text_tower(folder: str) -> TextTower:
    """Load the text tower that was saved beside an image tower.

    Raises
    ------
    ModelError
        If it is missing or damaged.
    """
    import transformers
    from safetensors import SafetensorError

    place = Path(folder) / TEXT_FOLDER
    if not (place / "config.json").is_file():
        raise ModelError(
            f"{folder!r} has no text tower: there is no folder {TEXT_FOLDER!r} in it; make the "
            "base model again with fedcert.models.with_label_names"
        )
    check_family(str(place))
    try:
        config = transformers.AutoConfig.from_pretrained(place, trust_remote_code=False)
        kind = _class(config.model_type.split("_")[0], "Text")
        model, info = kind.from_pretrained(
            place,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
        lost = sorted(info["missing_keys"])
        if lost:
            raise ValueError(f"it has no weights for {lost[0]}")
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{str(place)!r}: the text tower is damaged: {reason}") from error
    return TextTower(model, read_tokenizer(str(place)))


def _class(family: str, tower: str) -> Any:
    import transformers

    projecting = "WithProjection" if family == "clip" else ""
    stem = {"clip": "CLIP", "siglip": "Siglip"}[family]
    return getattr(transformers, f"{stem}{tower}Model{projecting}")


def _tower(model: Any, tower: str, *, dtype: torch.dtype) -> Any:
    """Take one tower out of a whole model, with its projection if it has one."""
    config = copy.deepcopy(getattr(model.config, f"{tower.lower()}_config"))
    if model.config.model_type == "clip":
        config.projection_dim = model.config.projection_dim
    taken = _class(model.config.model_type, tower)(config)
    inside = getattr(model, f"{tower.lower()}_model")
    if model.config.model_type == "clip":
        projection = {"Vision": "visual_projection", "Text": "text_projection"}[tower]
        getattr(taken, f"{tower.lower()}_model").load_state_dict(inside.state_dict())
        getattr(taken, projection).load_state_dict(getattr(model, projection).state_dict())
    else:
        taken.load_state_dict(inside.state_dict())
    return taken.to(dtype).eval()
