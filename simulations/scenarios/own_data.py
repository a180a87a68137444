"""Scenario `own-data`: a task whose examples are on the nodes, each of which has its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from fedcert.data.examples import Examples
from fedcert.data.inputs import ImageInputs, InputSpec
from fedcert.errors import DataError, SettingsError
from fedcert.models import with_task_head
from fedcert.scenarios import Scenario
from fedcert.simulations.sources import BaseOptions, ImageOptions, TextBase

__all__ = ["OwnData"]

_BASE, _IMAGES = BaseOptions(), ImageOptions()


class OwnData(Scenario):
    """Labels, inputs, and base model of a deployment; no examples.

    The server needs nothing more. A node's own configuration names its client, its part, and
    its labeled file.

    Parameters
    ----------
    labels : str or sequence of str
        Names of the classes, separated by commas if a string; none with a `label_template`.
    base : BaseOptions
        Options of the base model; a node's ``base-model`` takes its place there. `quantization`
        and `depth` hold for images too.
    image : str (default: "")
        ``"channels x height x width"``, such as ``"1x28x28"``: the inputs are images of that
        size. By default they are texts.
    images : ImageOptions
        Options of the images' values.
    label_template : str (default: "")
        Such as ``"a request about {label}"``: each node has labels of its own, which its
        ``labels-path`` names, and texts are classified by their names.
    """

    name = "own-data"
    description = "Every node has its own data"

    def __init__(
        self,
        *,
        labels: str | Sequence[str] = "",
        base: BaseOptions = _BASE,
        image: str = "",
        images: ImageOptions = _IMAGES,
        label_template: str = "",
    ) -> None:
        given = labels.split(",") if isinstance(labels, str) else labels
        self._labels = tuple(str(label).strip() for label in given)
        self._label_template = label_template
        if label_template:
            if labels or image or base.template or base.phrases:
                raise SettingsError(
                    "own-data: with a label_template the nodes name the labels of their texts; "
                    "leave out labels, image, template, and phrases"
                )
            self._labels = ()
        elif not 2 <= len(set(self._labels)) == len(self._labels) or "" in self._labels:
            raise SettingsError(
                f"own-data: labels must name two classes or more, each once, not {labels!r}; "
                "for instance scenario.options.labels = 'other,mine'"
            )
        if image and not base.base:
            raise SettingsError("own-data: images need the option `base`, an image model")
        if images.layout and not image:
            raise SettingsError("own-data: a layout is one of images; give their size in image")
        self._images = _image_inputs(base.base, image, images) if image else None
        self._base = base

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes; none if each node has its own."""
        return self._labels

    @property
    def inputs(self) -> InputSpec:
        """Images of the stated size, or texts for the base model's tokenizer."""
        return self._text_base.inputs if self._images is None else self._images

    @property
    def upstream_clients(self) -> tuple[str, ...]:
        """Nobody: nodes say themselves who they are."""
        return ()

    @property
    def new_clients(self) -> tuple[str, ...]:
        """Nobody: nodes say themselves who they are."""
        return ()

    def base_model(self, *, on_step: Callable[[str], None] = lambda _: None) -> Path:
        """Return the pretrained model with a zero head for the labels."""
        on_step("preparing the base model")
        if self._images is None:
            return self._text_base.folder
        return with_task_head(self._base.base, self.labels, **self._base.kept)

    def training_examples(self, client: str) -> Examples:
        """Refuse: there are none here."""
        raise _no_examples(client)

    def support_examples(self, client: str, size: int) -> Examples:
        """Refuse: there are none here."""
        raise _no_examples(client)

    def test_examples(self, client: str) -> None:
        """Return None: there are none."""

    @cached_property
    def _text_base(self) -> TextBase:
        return TextBase("own-data", self._base, self.labels, self._label_template)


def _image_inputs(base: str, size: str, images: ImageOptions) -> ImageInputs:
    low, high = float(images.low), float(images.high)
    found = re.fullmatch(r"\s*(\d+)\s*x\s*(\d+)\s*x\s*(\d+)\s*", size)
    if found is None or low >= high:
        raise SettingsError(
            "own-data: image must be channels x height x width, such as '1x28x28', and low "
            f"be less than high (got image = {size!r}, low = {low:g}, high = {high:g})"
        )
    channels, height, width = (int(part) for part in found.groups())
    return images.inputs(base, channels, height, width)


def _no_examples(client: str) -> DataError:
    return DataError(
        f"the scenario own-data has no examples of {client!r}: they are on its node, which "
        "needs a data-path"
    )
