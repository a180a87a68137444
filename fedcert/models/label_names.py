"""Giving a model the labels of one client: embeddings of their names, or their phrases."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import normalize

from fedcert.devices import exact_float32, moved
from fedcert.errors import DataError, ModelError
from fedcert.label_set import LabelSet
from fedcert.models.encoder import EncoderClassifier
from fedcert.models.heads import NamesHead
from fedcert.models.label_scorer import LabelScorer, phrase_tokens
from fedcert.models.pretrained import made_for
from fedcert.models.tokenizer import load_tokenizer

__all__ = ["label_tokens", "model_for"]

# Cosine from which on two labels are said to embed alike.
_ALIKE = 0.95


def model_for(
    model: nn.Module,
    labels: LabelSet | Sequence[str],
    descriptions: Mapping[str, str] | None,
    source: tuple[str, str | None],
) -> nn.Module:
    """Return a model that takes labels for one label set, sharing its weights.

    Parameters
    ----------
    model : nn.Module
        An `EncoderClassifier` by names or a `LabelScorer`, left as it is.
    labels : LabelSet or Sequence[str]
        Names by index, for which the model's own template is used, or a whole label set.
    descriptions : Mapping[str, str] or None
        Texts that stand for some labels or all, by name.
    source : tuple of str and str or None
        Folder or hub id, and revision, of the tokenizer.

    Returns
    -------
    nn.Module
        A model whose logits are those of the labels.

    Raises
    ------
    DataError
        If a label has no name.
    """
    phrases = isinstance(model, LabelScorer)
    if not isinstance(labels, LabelSet):
        # Most phrases follow a prompt, and most tokenizers see a word's space in front of it.
        usual = " {label}" if phrases else "{label}"
        template = made_for(model.config).get("template") or usual
        labels = LabelSet.of(labels, template=template, descriptions=descriptions)
    elif descriptions:
        raise DataError("give descriptions together with names, not with a whole label set")
    return (_with_phrases if phrases else _with_names)(model, labels, source)


def _with_phrases(model: Any, labels: LabelSet, source: tuple[str, str | None]) -> LabelScorer:
    """Let a causal language model score a phrase for each label."""
    several = [n for n, texts in zip(labels.names, labels.texts, strict=True) if len(texts) > 1]
    if several:
        raise DataError(
            f"the label {several[0]!r} has several phrases; a language model scores one for "
            "each label"
        )
    phrases = [texts[0] for texts in labels.texts]
    tokenizer = load_tokenizer(*source)
    tokens = phrase_tokens(tokenizer, labels.names, phrases, average=model.average)
    model.stock.eval()  # or checking the phrases would put it back into training
    return LabelScorer(model.stock, tokens, average=model.average, labels=labels).eval()


def _with_names(
    model: Any, labels: LabelSet, source: tuple[str, str | None]
) -> EncoderClassifier:
    """Let an encoder compare inputs with the names' embeddings."""
    head = model.task_head
    assert isinstance(head, NamesHead)
    embeddings = _embed_labels(model, labels, source)
    pairs = _alike(labels, embeddings)
    if pairs:
        first, second, cosine = pairs[0]
        warnings.warn(
            f"the labels {first!r} and {second!r} embed almost alike (cosine {cosine:.3f}), so "
            "the model will hardly tell them apart; give them descriptions",
            stacklevel=4,
        )
    own = NamesHead(head.scale, embeddings).to(embeddings.device)
    own.load_state_dict(head.state_dict())
    return model.with_head(own.eval(), labels)  # type: ignore[no-any-return]


@torch.no_grad()
@exact_float32()
def _embed_labels(
    model: EncoderClassifier, labels: LabelSet, source: tuple[str, str | None]
) -> torch.Tensor:
    """Embed a label set with a frozen encoder: unit vectors, float32, ``(K, width)``.

    Texts are embedded one at a time, so that a label's embedding does not depend on the
    labels beside it.
    """
    embeddings = []
    for name, texts in zip(labels.names, labels.texts, strict=True):
        rows = [_embedded(model, text, name, source).float() for text in texts]
        units = [normalize(row, dim=-1) for row in rows]
        embeddings.append(normalize(torch.stack(units).mean(dim=0), dim=-1))
    return torch.stack(embeddings)


def _embedded(
    model: EncoderClassifier, text: str, label: str, source: tuple[str, str | None]
) -> torch.Tensor:
    device = next(model.parameters()).device
    inputs = label_tokens(model, [text], labels=[label], source=source)
    if model.text_tower is not None:
        return model.text_tower.embed(inputs).to(device)
    return model.embed(**moved(inputs, device))[0]


def label_tokens(
    model: EncoderClassifier,
    texts: Sequence[str],
    *,
    labels: Sequence[str],
    source: tuple[str, str | None],
) -> dict[str, torch.Tensor]:
    """Tokenize texts that stand for labels, for the encoder, or for the text tower of two.

    Parameters
    ----------
    model : EncoderClassifier
        Classifies by the names of labels.
    texts : sequence of str
        One alone where there is a text tower.
    labels : sequence of str
        The label of each text, for the message.
    source : tuple
        Folder or hub id with the tokenizer, and its revision.

    Returns
    -------
    dict
        Keyword arguments of the encoder, on the CPU; several texts are padded on the right.

    Raises
    ------
    DataError
        If a text is longer than what the model takes.
    """
    tower = model.text_tower
    if tower is not None:
        inputs, longest = tower.tokens(texts[0]), tower.longest
        counts = [inputs["input_ids"].shape[1]]
    else:
        tokenizer = load_tokenizer(*source)
        padding = {"padding": True} if len(texts) > 1 else {}
        encoded = tokenizer(list(texts), return_tensors="pt", **padding)
        inputs = {name: encoded[name] for name in ("input_ids", "attention_mask")}
        longest = _longest(model.config, tokenizer)
        counts = inputs["attention_mask"].sum(dim=1).tolist()
    for label, count in zip(labels, counts, strict=True):
        if count > longest:
            raise DataError(
                f"the description of the label {label!r} takes {count} tokens, but the base "
                f"model takes {longest}; shorten it"
            )
    return inputs


def _longest(config: Any, tokenizer: Any) -> int:
    limits = [int(tokenizer.model_max_length)]
    limits += [int(n) for n in (getattr(config, "max_position_embeddings", None),) if n]
    limits += [int(n) for n in (made_for(config).get("max_length"),) if n]
    return min(limits)


def _alike(labels: LabelSet, embeddings: torch.Tensor) -> list[tuple[str, str, float]]:
    """Return the pairs of labels that embed almost alike, and their cosines, closest first."""
    if len(embeddings) != len(labels):
        raise ModelError(f"{len(embeddings)} embeddings came with {len(labels)} labels")
    cosines = (embeddings @ embeddings.T).triu(diagonal=1)
    rows, columns = torch.nonzero(cosines >= _ALIKE, as_tuple=True)
    found = [
        (labels.names[int(row)], labels.names[int(column)], float(cosines[row, column]))
        for row, column in zip(rows, columns, strict=True)
    ]
    return sorted(found, key=lambda pair: -pair[2])
