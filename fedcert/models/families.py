"""Which families of models are loaded at all, decided before `transformers` sees a name.

Some configurations carry their own permission to run a repository's code into what they
load (CVE-2026-5241, LightGlue). Nothing that such a family makes could be adapted anyway, so
``config.json`` is read as plain JSON first, and only families listed here get further.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fedcert.errors import ModelError

__all__ = ["MODEL_TYPES", "check_family"]

MODEL_TYPES = {
    # Encoders of texts.
    "albert", "bert", "big_bird", "camembert", "canine", "convbert", "data2vec-text",
    "deberta", "deberta-v2", "distilbert", "electra", "ernie", "esm", "esmc", "eurobert",
    "flaubert", "fnet", "funnel", "gte", "ibert", "jina_embeddings_v3", "layoutlm", "lilt",
    "longformer", "luke", "megatron-bert", "mobilebert", "modernbert", "mpnet", "mra",
    "nomic_bert", "nystromformer", "reformer", "rembert", "roberta", "roberta-prelayernorm",
    "roc_bert", "roformer", "squeezebert", "tapas", "ultrabert", "xlm", "xlm-roberta",
    "xlm-roberta-xl", "xlnet", "xmod", "yoso",
    # Decoders.
    "arcee", "biogpt", "bloom", "cohere", "cohere2", "ctrl", "deepseek_v2", "deepseek_v3",
    "diffllama", "doge", "exaone4", "falcon", "gemma", "gemma2", "gemma3_text", "glm", "glm4",
    "gpt-sw3", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_oss", "gptj", "granite",
    "helium", "jetmoe", "llama", "minicpm3", "minimax", "ministral", "ministral3", "mistral",
    "mixtral", "modernbert-decoder", "mpt", "nemotron", "olmo", "olmo2", "olmo3", "openai-gpt",
    "opt", "persimmon", "phi", "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_5_text",
    "qwen3_moe", "qwen3_next", "seed_oss", "smollm3", "stablelm", "starcoder2",
    # Encoders with decoders, whose refusal names the reason.
    "bart", "mbart", "mt5", "t5", "umt5",
    # Image and text towers, whole and each on its own.
    "clip", "clip_text_model", "clip_vision_model", "siglip", "siglip_text_model",
    "siglip_vision_model",
    # Encoders of images.
    "beit", "convnext", "convnextv2", "cvt", "data2vec-vision", "deit", "dinov2",
    "dinov2_with_registers", "donut-swin", "hiera", "ijepa", "imagegpt", "levit", "mobilevit",
    "mobilevitv2", "poolformer", "pvt", "pvt_v2", "regnet", "resnet", "segformer", "swin",
    "swinv2", "vit", "vit_msn",
}  # fmt: skip
"""Families that `transformers` may load; add the name of one that you trust to the set."""


def check_family(name: str, revision: str | None = None) -> str | None:
    """Make sure that a folder, or a model on the hub, is of a family listed here.

    Of a model on the hub ``config.json`` is fetched and nothing else.

    Returns
    -------
    str or None
        The revision to load. On the hub it is the commit whose configuration was read, so
        that the model cannot change in between.

    Raises
    ------
    ModelError
        If it is of another family, or there is no configuration to tell.
    """
    path = _config_file(name, revision)
    try:
        config: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ModelError(
            f"cannot load a base model from {name!r}: cannot read its config.json "
            f"({error.strerror})"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"cannot load a base model from {name!r}: its config.json is not JSON ({error})"
        ) from error
    family = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(family, str) or not family:
        raise ModelError(
            f"cannot load a base model from {name!r}: its config.json names no model_type; "
            "save the model again with transformers"
        )
    if family not in MODEL_TYPES:
        raise ModelError(
            f"cannot load a base model from {name!r}: fedcert does not load the family "
            f"{family!r}. Use an encoder or a decoder such as BERT, RoBERTa, Llama, Qwen2, or "
            "ViT; if you trust the family and its layers are alike, allow it with "
            f"fedcert.models.MODEL_TYPES.add({family!r})"
        )
    return revision if Path(name).exists() else path.parent.name


def _config_file(name: str, revision: str | None) -> Path:
    folder = Path(name)
    if folder.exists():
        path = folder / "config.json"
        if not path.is_file():
            raise ModelError(
                f"cannot load a base model from the folder {name!r}: it holds no config.json"
            )
        return path
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, "config.json", revision=revision))
    except Exception as error:  # the hub's client raises many types, and requests' own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"cannot load a base model from the folder or hub id {name!r}: there is no such "
            f"folder here, and the hub does not give it ({reason})"
        ) from error
