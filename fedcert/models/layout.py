"""Finding the parts of a transformer that adapters attach to."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn

from fedcert.errors import ModelError
from fedcert.models.encoder import EncoderClassifier
from fedcert.models.label_scorer import LabelScorer

__all__ = ["ATTENTION_PROJECTIONS", "SUPPORTED", "ModelLayout", "find_layout", "layer_list"]

# The query and value projections (the original LoRA choice), under the names that the
# families of `transformers` give them.
ATTENTION_PROJECTIONS = ("q_proj", "v_proj", "query", "value", "q_lin", "v_lin", "q", "v")


# What tests run; the end of every message about a model that does not fit.
SUPPORTED = (
    "use an encoder or a decoder whose layers are a list and hand on hidden states alone, "
    "such as ALBERT, BERT, ELECTRA, Gemma 2, Llama, Qwen2, RoBERTa, or ViT"
)


@dataclass(frozen=True)
class ModelLayout:
    """Where a model keeps its layers and its head.

    Attributes
    ----------
    layers : str
        Dotted name of the list that holds the transformer layers.
    count : int
        How many layers there are.
    head : str
        Dotted name of the linear module that gives the logits; empty for a label scorer
        and for an encoder whose head stands beside it.
    """

    layers: str
    count: int
    head: str

    def targets(
        self, model: nn.Module, *, last: int, projections: tuple[str, ...]
    ) -> list[str]:
        """Name the linear modules to adapt in the last `last` layers, in a fixed order.

        Parameters
        ----------
        model : nn.Module
            The model with this layout.
        last : int
            Number of layers, counted from the top.
        projections : tuple of str
            The modules' own names, such as ``"query"``.

        Returns
        -------
        list of str
            Full names of modules, from the lowest layer up.

        Raises
        ------
        ModelError
            If there are fewer layers, or no projection of that name in them.
        """
        if not 1 <= last <= self.count:
            raise ModelError(
                f"cannot adapt the last {last} layers: this model has {self.count}"
            )
        pattern = re.compile(rf"{re.escape(self.layers)}\.(\d+)\.(?:.*\.)?([^.]+)$")
        found = []
        for name, module in model.named_modules():
            match = pattern.match(name)
            if match is None or not isinstance(module, nn.Linear):
                continue
            index, leaf = int(match.group(1)), match.group(2)
            if index >= self.count - last and leaf in projections:
                found.append((index, projections.index(leaf), name))
        if not found:
            raise ModelError(
                f"{type(model).__name__} has no linear module named "
                f"{' or '.join(projections)} in its layers {self.layers!r}; name its "
                f"projections in the setting adapter.projections, or {SUPPORTED}"
            )
        return [name for _, _, name in sorted(found)]


def find_layout(model: nn.Module) -> ModelLayout:
    """Find the list of layers and the head of a classification model.

    Raises
    ------
    ModelError
        If the model has no list of equal layers, or not exactly one head.
    """
    if getattr(model.config, "is_encoder_decoder", False):
        raise ModelError(
            f"{type(model).__name__} is an encoder and a decoder in one, whose layers fedcert "
            f"cannot tell apart; {SUPPORTED}"
        )
    layers, modules = layer_list(model)
    if isinstance(model, LabelScorer | EncoderClassifier):
        return ModelLayout(layers, len(modules), head="")
    return ModelLayout(layers, len(modules), _find_head(model, backbone=layers.split(".")[0]))


def layer_list(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Return the longest list of equal layers of a model, with its dotted name.

    Raises
    ------
    ModelError
        If there is none.
    """
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len({type(child) for child in module}) == 1
    ]
    if not lists:
        raise ModelError(f"{type(model).__name__} has no list of equal layers; {SUPPORTED}")
    return max(lists, key=lambda item: len(item[1]))


def _find_head(model: nn.Module, *, backbone: str) -> str:
    """Find the linear module that gives the logits.

    What some models have between backbone and logits (a dense layer in RoBERTa's head)
    stays frozen: a start from zero would cut its gradient.
    """
    count = int(model.config.num_labels)  # type: ignore[union-attr, arg-type]
    outside = [
        (f"{child}.{name}".rstrip("."), module)
        for child, part in model.named_children()
        if child != backbone
        for name, module in part.named_modules()
        if isinstance(module, nn.Linear)
    ]
    heads = [name for name, module in outside if module.out_features == count]
    if len(heads) != 1:
        raise ModelError(
            f"{type(model).__name__} has the heads {heads or 'none'} for its {count} labels; "
            f"fedcert needs exactly one linear module that gives the logits; {SUPPORTED}"
        )
    head = heads[0]
    alike = [name for name, _ in outside if name != head and name.endswith(head)]
    if alike:
        raise ModelError(
            f"{type(model).__name__} has the modules {head!r} and {alike[0]!r}, which PEFT "
            f"cannot tell apart; {SUPPORTED}"
        )
    return head
