"""Classifying with a causal language model: each label is a phrase that may follow.

The logit of a label is the log-probability of its phrase after the prompt, the sum over the
phrase's tokens (Brown et al., arXiv 2005.14165, section 2.4) or, if asked for, their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from fedcert.errors import ModelError
from fedcert.label_set import LabelSet

__all__ = ["LabelScorer", "phrase_tokens"]

# Largest difference from the model's own log-probabilities, by type.
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.3}


class LabelScores(NamedTuple):
    """Logits of K labels, shape ``(n, K)``."""

    logits: torch.Tensor


class LabelScorer(nn.Module):
    """A causal language model as a classifier with ``(n, K)`` logits and no head of its own.

    All phrases are scored in one pass. The last token of a prompt predicts the first token
    of every phrase; what a phrase has beyond it is appended behind the prompt, where each
    phrase sees the prompt and itself. With phrases of one token nothing is appended, and
    logits are the language model's own, which equal log-probabilities up to a constant per
    example: neither margins nor cross-entropies contain it.

    The modules keep the names that they have in the language model, so that an exported
    adapter loads there.

    Parameters
    ----------
    lm : torch.nn.Module
        A causal language model of `transformers`.
    phrases : Sequence of Sequence of int
        Token ids of each label's phrase; none if the labels come later
        (`BaseModel.with_labels`).
    average : bool (default: False)
        Mean instead of sum over a phrase's tokens.
    labels : LabelSet, optional
        A client's own labels, whose phrases these are.

    Raises
    ------
    ModelError
        If the scores are not those of the language model (which some models scale, cap, or
        attend differently for).
    """

    main_input_name = "input_ids"
    label_tokens: torch.Tensor
    label_reads: torch.Tensor
    label_weights: torch.Tensor
    _within: torch.Tensor
    _tail: torch.Tensor
    _offset: torch.Tensor

    def __init__(
        self,
        lm: Any,
        phrases: Sequence[Sequence[int]],
        *,
        average: bool = False,
        labels: LabelSet | None = None,
    ) -> None:
        super().__init__()
        self.labels, self.average = labels, average
        self.takes_labels = labels is not None or not phrases
        # In a tuple, since its parts are registered already, under their own names.
        self._lm = (lm,)
        for name, child in lm.named_children():
            self.add_module(name, child)
        self.config = lm.config
        self._backbone = str(lm.base_model_prefix)
        embeddings = lm.get_output_embeddings()
        names = [name for name, child in lm.named_children() if child is embeddings]
        if len(names) != 1 or not hasattr(self, self._backbone):
            raise ModelError(
                f"{type(lm).__name__} is no decoder with one linear module for its next "
                "token; score labels with a decoder such as Llama or Qwen2"
            )
        self._embeddings = names[0]
        with next(lm.parameters()).device:
            if self.takes_labels and average:
                # The digest of the base model covers buffers; phrases have it in their weights.
                self.register_buffer("label_average", torch.ones(1, dtype=torch.uint8))
            self._place(phrases, average)
        if phrases:
            self._check(lm, phrases, average)

    def _place(self, phrases: Sequence[Sequence[int]], average: bool) -> None:
        """Lay the phrases out behind a prompt: where each token is, and who predicts it."""
        tail = [token for phrase in phrases for token in phrase[:-1]]
        owner = [row for row, phrase in enumerate(phrases) for _ in phrase[:-1]]
        offset = [place for phrase in phrases for place in range(len(phrase) - 1)]
        self.several = bool(tail)
        reads, tokens, weights = [], [], []
        start = 1  # of what is read, the prompt's last token comes first
        for row, phrase in enumerate(phrases):
            share = torch.zeros(len(phrases))
            share[row] = 1 / len(phrase) if average else 1.0
            for place, token in enumerate(phrase):
                reads.append(0 if place == 0 else start + place - 1)
                tokens.append(token)
                weights.append(share)
            start += len(phrase) - 1
        # The digest of the base model covers buffers, and so phrases that are part of it.
        kept = not self.takes_labels
        self.register_buffer("label_tokens", torch.tensor(tokens), persistent=kept)
        self.register_buffer("label_reads", torch.tensor(reads), persistent=kept)
        stacked = torch.stack(weights) if weights else torch.zeros(0, 0)
        self.register_buffer("label_weights", stacked, persistent=kept)
        same = torch.tensor(owner)[:, None] == torch.tensor(owner)[None]
        # Buffers, so that they go where the weights go; they follow from the phrases.
        self.register_buffer("_within", same.tril(), persistent=False)
        self.register_buffer("_tail", torch.tensor(tail, dtype=torch.long), persistent=False)
        self.register_buffer(
            "_offset", torch.tensor(offset, dtype=torch.long), persistent=False
        )

    @property
    def stock(self) -> Any:
        """The language model, as `transformers` made it."""
        return self._lm[0]

    @property
    def num_labels(self) -> int:
        """K, how many labels it tells apart; 0 as long as it has none."""
        return self.label_weights.shape[1]

    @property
    def appended(self) -> int:
        """How many tokens are appended to a prompt."""
        return len(self._tail)

    @property
    def longest(self) -> int:
        """How many positions the longest phrase takes behind a prompt."""
        return int(self._offset.max()) + 1 if self.several else 0

    @property
    def head_floats(self) -> int:
        """How many numbers one example takes behind the layers."""
        words = cast(nn.Linear, self.get_submodule(self._embeddings)).weight.shape[0]
        return (1 + self.appended) * words if self.several else len(self.label_weights.T)

    def last_tokens(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the position of each prompt's last token, shape ``(n,)``."""
        mask = inputs.get("attention_mask")
        ids = inputs["input_ids"]
        if mask is None:
            return torch.full((len(ids),), ids.shape[1] - 1, device=ids.device)
        return (torch.arange(ids.shape[1], device=ids.device) * mask).argmax(dim=1)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> LabelScores:
        """Score the labels after prompts, padded on the right.

        Parameters
        ----------
        input_ids : torch.Tensor
            Shape ``(n, T)``.
        attention_mask : torch.Tensor, optional
            1 for tokens and 0 for padding, ``(n, T)``.
        """
        if not self.num_labels:
            raise ModelError(
                "this base model has no labels yet: its logits follow from their phrases; call "
                "base.with_labels(names) first"
            )
        inputs = {"input_ids": input_ids}
        if attention_mask is not None:
            inputs["attention_mask"] = attention_mask
        last = self.last_tokens(inputs)
        tail = input_ids.shape[1] + torch.arange(self.appended, device=last.device)
        reads = torch.cat([last[:, None], tail.expand(len(last), -1)], dim=1)
        if self.several:
            inputs = self._with_phrases(inputs, last + 1)
        hidden = self.get_submodule(self._backbone)(**inputs, use_cache=False)[0]
        at = hidden[torch.arange(len(last), device=last.device)[:, None], reads]
        return LabelScores(self._scores(at))

    def _scores(self, at: torch.Tensor) -> torch.Tensor:
        """Score all labels from hidden states ``(n, 1 + appended, width)``."""
        head = cast(nn.Linear, self.get_submodule(self._embeddings))
        tokens, weights = self.label_tokens, self.label_weights.float()
        if not self.several:
            bias = None if head.bias is None else head.bias[tokens]
            return nn.functional.linear(at[:, 0], head.weight[tokens], bias).float()
        logits: torch.Tensor = head(at).float()
        chosen = logits[:, self.label_reads, tokens]
        return (chosen - logits.logsumexp(dim=-1)[:, self.label_reads]) @ weights

    def _with_phrases(
        self, inputs: dict[str, torch.Tensor], lengths: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Append the phrases; each attends to the prompt and to itself."""
        ids = inputs["input_ids"]
        count, width = ids.shape
        total = width + self.appended
        self._check_window(total)
        places = torch.arange(width, device=ids.device)
        visible = torch.zeros(count, total, total, dtype=torch.bool, device=ids.device)
        visible[:, :, :width] = (places < lengths[:, None])[:, None]
        visible[:, :width, :width] &= places <= places[:, None]
        visible[:, width:, width:] = self._within
        dtype = next(self.parameters()).dtype
        hidden = torch.zeros(visible.shape, dtype=dtype, device=ids.device)
        hidden = hidden.masked_fill(~visible, torch.finfo(dtype).min)
        return {
            "input_ids": torch.cat([ids, self._tail.expand(count, -1)], dim=1),
            "attention_mask": hidden[:, None],
            "position_ids": torch.cat(
                [places.expand(count, -1), lengths[:, None] + self._offset], dim=1
            ),
        }

    def _check_window(self, total: int) -> None:
        window = getattr(self.config, "sliding_window", None)
        if window and getattr(self.config, "use_sliding_window", True) and total > window:
            raise ModelError(
                f"prompts and phrases of {total} tokens exceed the model's attention window "
                f"of {window}; set a smaller max_length, or phrases of one token each"
            )

    @torch.no_grad()
    def _check(self, lm: Any, phrases: Sequence[Sequence[int]], average: bool) -> None:
        """Compare with the language model, one phrase at a time, on two short prompts."""
        training = lm.training
        lm.eval()
        place = next(self.parameters()).device
        short = [[phrases[0][0], phrases[-1][0]], [phrases[-1][-1]] * 2]
        prompts = torch.tensor(short, device=place)
        expected = []
        for phrase in phrases:
            appended = torch.tensor(phrase, device=place).expand(2, -1)
            logits = lm(torch.cat([prompts, appended], dim=1), use_cache=False).logits
            logs = logits[:, 1:-1].float().log_softmax(dim=-1)
            values = logs.gather(-1, appended[..., None])[..., 0]
            expected.append(values.mean(dim=1) if average else values.sum(dim=1))
        lm.train(training)
        wanted, got = torch.stack(expected, dim=1), self(prompts).logits
        if not self.several:  # equal up to a constant
            wanted, got = wanted - wanted[:, :1], got - got[:, :1]
        difference = float((wanted - got).abs().max() / wanted.abs().max().clamp(min=1.0))
        if not difference <= _TOLERANCE.get(logits.dtype, 1e-3):
            raise ModelError(
                f"{type(lm).__name__} gives other log-probabilities than its layers and "
                f"output embeddings alone (by {difference:.1e}): it scales or caps them, or "
                "ignores the attention mask; score labels with another decoder"
            )


def phrase_tokens(
    tokenizer: Any, labels: Sequence[str], phrases: Sequence[str], *, average: bool
) -> list[list[int]]:
    """Tokenize phrases; every one must differ from the others, and not merely go on.

    Parameters
    ----------
    tokenizer : Any
        The model's tokenizer.
    labels : sequence of str
        Names of the labels, for messages.
    phrases : sequence of str
        One phrase for each label.
    average : bool
        Whether the model divides a phrase's score by its number of tokens.

    Returns
    -------
    list of list of int
        Token ids of each phrase.
    """
    if len(phrases) != len(labels):
        raise ModelError(f"there are {len(phrases)} label phrases for {len(labels)} labels")
    tokens = [list(tokenizer(p, add_special_tokens=False)["input_ids"]) for p in phrases]
    for phrase, ids in zip(phrases, tokens, strict=True):
        if not ids or tokenizer.unk_token_id in ids:
            raise ModelError(
                f"the label phrase {phrase!r} is empty or unknown to the tokenizer; use "
                "words that the language model has"
            )
    for row, first in enumerate(tokens):
        for other, second in enumerate(tokens):
            same = first == second
            if (row < other and same) or (
                row != other and not average and not same and (second[: len(first)] == first)
            ):
                raise ModelError(
                    f"the label phrase {phrases[other]!r} begins with {phrases[row]!r}, "
                    "which is then at least as likely on every text; use other phrases"
                )
    return tokens
