"""Giving a base model the labels of one client: embeddings of their names, or their phrases."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import normalize

from fedcert.devices import exact_float32, moved
from fedcert.errors import DataError, ModelError
from fedcert.label_set import LabelSet
from fedcert.models.encoder import EncoderClassifier
from fedcert.models.heads import NamesHead
from fedcert.models.label_phrases import phrase_tokens
from fedcert.models.label_scorer import LabelScorer
from fedcert.models.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from fedcert.models.base import BaseModel

__all__ = ["ALIKE", "alike", "embed_labels", "with_labels"]

ALIKE = 0.95
"""Cosine from which on two labels are said to embed alike."""


def with_labels(
    base: BaseModel,
    labels: LabelSet | Sequence[str],
    *,
    descriptions: Mapping[str, str] | None = None,
) -> BaseModel:
    """Return the base model for a label set, sharing its weights and its digest.

    Parameters
    ----------
    base : BaseModel
        Left as it is.
    labels : LabelSet or Sequence[str]
        Names by index, for which the base model's own template is used, or a whole label set.
    descriptions : Mapping[str, str], optional
        Texts that stand for some labels or all, by name.

    Returns
    -------
    BaseModel
        A base model whose logits are those of the labels.

    Raises
    ------
    DataError
        If a label has no name, or the labels are not those of a trained head.
    """
    if not base.takes_labels:
        return _checked(base, labels, descriptions)
    phrases = isinstance(base.model, LabelScorer)
    if not isinstance(labels, LabelSet):
        # Most phrases follow a prompt, and most tokenizers see a word's space in front of it.
        usual = " {label}" if phrases else "{label}"
        template = _options(base).get("template") or usual
        labels = LabelSet.of(labels, template=template, descriptions=descriptions)
    elif descriptions:
        raise DataError("give descriptions together with names, not with a whole label set")
    return _with_phrases(base, labels) if phrases else _with_names(base, labels)


def _with_phrases(base: BaseModel, labels: LabelSet) -> BaseModel:
    """Let a causal language model score a phrase for each label."""
    several = [n for n, texts in zip(labels.names, labels.texts, strict=True) if len(texts) > 1]
    if several:
        raise DataError(
            f"the label {several[0]!r} has several phrases; a language model scores one for "
            "each label"
        )
    scorer: Any = base.model
    tokenizer = load_tokenizer(base.name, None if base.revision == "local" else base.revision)
    phrases = [texts[0] for texts in labels.texts]
    tokens = phrase_tokens(tokenizer, labels.names, phrases, average=scorer.average)
    scorer.stock.eval()  # or checking the phrases would put it back into training
    own = LabelScorer(scorer.stock, tokens, average=scorer.average, labels=labels)
    return replace(base, model=own.eval())


def _with_names(base: BaseModel, labels: LabelSet) -> BaseModel:
    """Let an encoder compare inputs with the names' embeddings."""
    assert isinstance(base.model, EncoderClassifier)
    head = base.model.task_head
    assert isinstance(head, NamesHead)
    embeddings = embed_labels(base, labels)
    pairs = alike(labels, embeddings)
    if pairs:
        first, second, cosine = pairs[0]
        warnings.warn(
            f"the labels {first!r} and {second!r} embed almost alike (cosine {cosine:.3f}), so "
            "the model will hardly tell them apart; give them descriptions",
            stacklevel=4,
        )
    own = NamesHead(head.scale, embeddings).to(base.device)
    own.load_state_dict(head.state_dict())
    return replace(base, model=base.model.with_head(own.eval(), labels))


def _checked(
    base: BaseModel, labels: LabelSet | Sequence[str], descriptions: Mapping[str, str] | None
) -> BaseModel:
    """Return a base model that has its labels, if they are these."""
    names = list(labels.names if isinstance(labels, LabelSet) else labels)
    if descriptions:
        raise DataError("this base model's head is trained, so descriptions would do nothing")
    if len(names) != base.num_labels:
        raise DataError(
            f"the base model {base.name!r} has {base.num_labels} labels, but these are "
            f"{len(names)}; its labels are {', '.join(base.label_names)}"
        )
    known = list(base.label_names)
    # Numbered labels are what a model has whose labels nobody named.
    named = known != [f"LABEL_{index}" for index in range(len(known))]
    if named and known != names:
        wrong = next(index for index, name in enumerate(names) if name != known[index])
        raise DataError(
            f"label {wrong + 1} is {names[wrong]!r} here, but {known[wrong]!r} in the base "
            f"model {base.name!r}; labels count by their order, so give them in the same one"
        )
    return base


@torch.no_grad()
@exact_float32()
def embed_labels(base: BaseModel, labels: LabelSet) -> torch.Tensor:
    """Embed a label set with a frozen base model: unit vectors, float32, ``(K, width)``.

    Texts are embedded one at a time, so that a label's embedding does not depend on the
    labels beside it.

    Raises
    ------
    DataError
        If a text is longer than what the model takes.
    """
    embeddings = []
    for name, texts in zip(labels.names, labels.texts, strict=True):
        units = [normalize(_embedded(base, text, label=name).float(), dim=-1) for text in texts]
        embeddings.append(normalize(torch.stack(units).mean(dim=0), dim=-1))
    return torch.stack(embeddings)


def _embedded(base: BaseModel, text: str, *, label: str) -> torch.Tensor:
    assert isinstance(base.model, EncoderClassifier)
    tower = base.model.text_tower
    if tower is not None:
        inputs, longest = tower.tokens(text), tower.longest
    else:
        revision = None if base.revision == "local" else base.revision
        tokenizer = load_tokenizer(base.name, revision)
        encoded = tokenizer([text], return_tensors="pt")
        inputs = {name: encoded[name] for name in ("input_ids", "attention_mask")}
        longest = _longest(base, tokenizer)
    count = inputs["input_ids"].shape[1]
    if count > longest:
        raise DataError(
            f"the description of the label {label!r} takes {count} tokens, but the base model "
            f"takes {longest}; shorten it"
        )
    if tower is not None:
        return tower.embed(inputs).to(base.device)
    return base.model.embed(**moved(inputs, base.device))[0]


def _longest(base: BaseModel, tokenizer: Any) -> int:
    config: Any = base.model.config
    limits = [int(tokenizer.model_max_length)]
    limits += [int(n) for n in (getattr(config, "max_position_embeddings", None),) if n]
    limits += [int(n) for n in (_options(base).get("max_length"),) if n]
    return min(limits)


def _options(base: BaseModel) -> dict[str, Any]:
    return dict(getattr(base.model.config, "fedcert", None) or {})


def alike(labels: LabelSet, embeddings: torch.Tensor) -> list[tuple[str, str, float]]:
    """Return the pairs of labels that embed almost alike, and their cosines, closest first."""
    if len(embeddings) != len(labels):
        raise ModelError(f"{len(embeddings)} embeddings came with {len(labels)} labels")
    cosines = (embeddings @ embeddings.T).triu(diagonal=1)
    rows, columns = torch.nonzero(cosines >= ALIKE, as_tuple=True)
    found = [
        (labels.names[int(row)], labels.names[int(column)], float(cosines[row, column]))
        for row, column in zip(rows, columns, strict=True)
    ]
    return sorted(found, key=lambda pair: -pair[2])
