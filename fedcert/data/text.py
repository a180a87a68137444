"""Texts as inputs, with the tokenizer of the base model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from fedcert.data.cells import check_texts
from fedcert.data.inputs import InputSpec
from fedcert.errors import DataError, ModelError, RowError
from fedcert.models.company import check_company
from fedcert.models.tokenizer import load_tokenizer, tokenizer_digest

if TYPE_CHECKING:
    import torch

    from fedcert.models.base import BaseModel

__all__ = ["TextInputs"]


@dataclass(frozen=True)
class TextInputs(InputSpec):
    """Texts, tokenized as the base model's tokenizer does.

    The tokenizer comes with the base model, not with the bundle, so a specification has to
    be bound to a base model (`bound_to`) before it can encode.

    Parameters
    ----------
    max_length : int
        Tokens of the longest text; what comes after them is cut off.
    tokenizer_digest : str
        Identity of the tokenizer, from `fedcert.models.tokenizer_digest`.
    """

    max_length: int
    tokenizer_digest: str
    _tokenizer: Any = field(default=None, init=False, repr=False, compare=False)

    kind: ClassVar[str] = "text"

    def __post_init__(self) -> None:
        if not isinstance(self.max_length, int) or self.max_length < 2:
            raise DataError(
                f"max_length must be an integer of at least 2, not {self.max_length!r}"
            )

    @classmethod
    def of(cls, name: str, *, max_length: int, revision: str | None = None) -> Self:
        """Describe texts for the tokenizer in a base model's folder, or of a hub id.

        Parameters
        ----------
        name : str
            A folder or hub id with a tokenizer.
        max_length : int
            Tokens of a text; longer ones are cut.
        revision : str, optional
            Hub revision.

        Returns
        -------
        TextInputs
            The description, with a digest of the tokenizer.
        """
        return cls(max_length, _digest(name, revision))

    def bound_to(self, base: BaseModel) -> Self:
        """Return the specification with the base model's tokenizer, after checking it.

        Raises
        ------
        ModelError
            If the base model has no tokenizer, another one, or one that does not fit it.
        """
        revision = None if base.revision == "local" else base.revision
        tokenizer = load_tokenizer(base.name, revision)
        digest = _digest(base.name, revision)
        if digest != self.tokenizer_digest:
            raise ModelError(
                f"the base model {base.name!r} has another tokenizer than the one this was "
                f"made for (digest {digest[:12]} instead of {self.tokenizer_digest[:12]}); "
                "use the folder that the model came with"
            )
        self._check_fit(base, tokenizer)
        check_company(base, max_length=self.max_length, pad=int(tokenizer.pad_token_id))
        bound = replace(self)
        object.__setattr__(bound, "_tokenizer", tokenizer)
        return bound

    def _check_fit(self, base: BaseModel, tokenizer: Any) -> None:
        config: Any = base.model.config
        longest = min(
            int(tokenizer.model_max_length),
            int(getattr(config, "max_position_embeddings", None) or self.max_length),
        )
        if self.max_length > longest:
            raise ModelError(
                f"texts of {self.max_length} tokens do not fit the base model {base.name!r}, "
                f"which takes {longest}; set a smaller max_length"
            )
        words = int(getattr(config, "vocab_size", 0))
        beyond = max(tokenizer.get_vocab().values())
        if words and beyond >= words:
            raise ModelError(
                f"the tokenizer of {base.name!r} has tokens up to {beyond}, but the base model "
                f"has embeddings for {words}, the tokens 0 to {words - 1}; use the tokenizer "
                "that the model came with, or call resize_token_embeddings and save it again"
            )
        # Decoders find the last token of a text by this number.
        if config.pad_token_id != tokenizer.pad_token_id:
            raise ModelError(
                f"the base model {base.name!r} pads with token {config.pad_token_id}, its "
                f"tokenizer with {tokenizer.pad_token_id}; set pad_token_id in config.json"
            )

    def normalize(self, raw: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Collapse white space; refuse what is no text, empty, or cannot be written down."""
        check_texts(raw)
        texts = np.empty(len(raw), dtype=object)
        texts[:] = [" ".join(value.split()) for value in raw]
        for row, text in enumerate(texts):
            if not text:
                raise RowError(row, "is an empty text")
        return texts

    def stand_in(self) -> npt.NDArray[Any]:
        """Return a text of one character."""
        text = np.empty(1, dtype=object)
        text[:] = ["?"]
        return text

    def encode(self, inputs: npt.NDArray[Any]) -> dict[str, torch.Tensor]:
        """Tokenize texts and pad them to the longest of them."""
        encoded = self._bound_tokenizer()(
            list(inputs),
            padding="longest",
            truncation=True,
            max_length=self.max_length,
            return_tensors="pt",
        )
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}

    def _bound_tokenizer(self) -> Any:
        if self._tokenizer is None:
            raise ModelError(
                "these text inputs have no tokenizer yet; bind them to a base model with "
                "bound_to(base) first"
            )
        return self._tokenizer

    def to_config(self) -> dict[str, Any]:
        """Return the constructor arguments with ``kind``."""
        return {
            "kind": self.kind,
            "max_length": self.max_length,
            "tokenizer_digest": self.tokenizer_digest,
        }


@lru_cache(maxsize=8)
def _digest(name: str, revision: str | None) -> str:
    return tokenizer_digest(load_tokenizer(name, revision))
