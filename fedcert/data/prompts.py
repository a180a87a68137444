"""Texts inside a template, for models that go on writing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from fedcert.data.text import TextInputs
from fedcert.errors import ModelError, SettingsError

if TYPE_CHECKING:
    import torch

    from fedcert.models.base import BaseModel

__all__ = ["PromptInputs"]

_PLACE = "{text}"


@dataclass(frozen=True)
class PromptInputs(TextInputs):
    """Texts, each set into a template.

    What is cut off a long prompt is the end of its text, never the template's end.

    Parameters
    ----------
    max_length : int
        Tokens of the longest prompt, template included; label phrases come on top.
    tokenizer_digest : str
        See `TextInputs`.
    template : str (default: "{text}")
        Holds ``{text}`` once.
    """

    template: str = _PLACE

    kind: ClassVar[str] = "prompt"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.template, str) or self.template.count(_PLACE) != 1:
            raise SettingsError(
                f"the template {self.template!r} must hold {_PLACE} once; for instance "
                r"'Review: {text}\nVerdict:'"
            )

    @classmethod
    def of(
        cls, name: str, *, max_length: int, revision: str | None = None, template: str = _PLACE
    ) -> Self:
        """Describe prompts for the tokenizer in a base model's folder, or of a hub id.

        Parameters
        ----------
        name : str
            A folder or hub id with a tokenizer.
        max_length : int
            Tokens of the longest prompt, template included.
        revision : str, optional
            Hub revision.
        template : str, optional
            Holds the place of the text once.

        Returns
        -------
        PromptInputs
            The description, with a digest of the tokenizer.
        """
        return replace(
            super().of(name, max_length=max_length, revision=revision), template=template
        )

    def encode(self, inputs: npt.NDArray[Any]) -> dict[str, torch.Tensor]:
        """Fill in the template, tokenize, and pad to the longest prompt."""
        import torch

        tokenizer = self._bound_tokenizer()
        before, _, after = self.template.partition(_PLACE)
        kept = len(_plain_ids(tokenizer, after))
        rows = tokenizer([before + text + after for text in inputs])["input_ids"]
        rows = [self._cut(row, kept) for row in rows]
        width = max(len(row) for row in rows)
        ids = np.full((len(rows), width), tokenizer.pad_token_id, dtype=np.int64)
        mask = np.zeros((len(rows), width), dtype=np.int64)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
        }

    def _cut(self, row: list[int], kept: int) -> list[int]:
        if len(row) <= self.max_length:
            return row
        return row[: self.max_length - kept] + row[len(row) - kept :]

    def _check_fit(self, base: BaseModel, tokenizer: Any) -> None:
        super()._check_fit(base, tokenizer)
        longest = getattr(base.model.config, "max_position_embeddings", None)
        phrases = int(getattr(base.model, "longest", 0))
        if longest is not None and self.max_length + phrases > longest:
            raise ModelError(
                f"prompts of {self.max_length} tokens and label phrases of {phrases} more do "
                f"not fit the base model {base.name!r}, which takes {longest}; set a smaller "
                "max_length"
            )
        used = len(tokenizer(self.template.replace(_PLACE, ""))["input_ids"])
        if used >= self.max_length:
            raise ModelError(
                f"the template takes {used} of the {self.max_length} tokens of max_length "
                "and leaves none for a text; set a larger max_length"
            )
        ids, plain = tokenizer("a")["input_ids"], _plain_ids(tokenizer, "a")
        if ids[len(ids) - len(plain) :] != plain:
            raise ModelError(
                f"the tokenizer of {base.name!r} adds a token behind a text, where a label "
                "phrase should follow; save it without that token (add_eos_token = false)"
            )

    def to_config(self) -> dict[str, Any]:
        """Return the constructor arguments with ``kind``."""
        return {**super().to_config(), "template": self.template}


def _plain_ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
