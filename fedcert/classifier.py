"""Predicting with an exported adapter: the folder, its base model, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from fedcert.adapters.classifier_file import ClassifierFile, read_classifier
from fedcert.adapters.exported_model import exported_model
from fedcert.adapters.peft_format import exported_digest
from fedcert.data import InputSpec, input_spec_from_config
from fedcert.devices import exact_float32, moved, resolve_device
from fedcert.errors import AdapterError, BundleError, DataError, SettingsError
from fedcert.models import BaseModel, LabelSet, load_base_model

__all__ = ["NO_ANSWER", "Answer", "Classifier", "load_classifier"]

NO_ANSWER = "no answer"
"""What is predicted where the margin is not above the adapter's threshold."""

# Inputs at once: more would take memory, and pad short texts to the longest of many.
_BATCH = 64


class Answer(NamedTuple):
    """What a classifier says of an input.

    Attributes
    ----------
    label : str
        The most probable label, or `NO_ANSWER`.
    probabilities : tuple of float
        Of each label, as `Classifier.predict_proba` gives them.
    among : tuple of str
        The most probable labels, best first; empty where no set was asked for.
    """

    label: str
    probabilities: tuple[float, ...]
    among: tuple[str, ...]


class Classifier:
    """An adapter on its base model, which predicts labels by name.

    Parameters
    ----------
    model : torch.nn.Module
        Gives logits for encoded inputs.
    inputs : InputSpec
        How inputs are encoded, bound to the base model.
    labels : Sequence[str]
        Names of the labels by index.
    threshold : float, optional
        Margin of the highest logit over the second that an answer needs; by default every
        input gets one.
    adapter : str, optional
        Digest of the adapter's tensors.
    early : tuple, optional
        A classifier that answers first, and the margin above which its answer counts.
    """

    def __init__(
        self,
        model: Any,
        inputs: InputSpec,
        labels: Sequence[str],
        *,
        threshold: float | None = None,
        adapter: str = "",
        early: tuple[Classifier, float] | None = None,
    ) -> None:
        self._model, self.inputs, self.labels = model, inputs, tuple(labels)
        self.threshold, self.adapter, self._early = threshold, adapter, early

    def predict(self, inputs: Sequence[Any] | npt.NDArray[Any]) -> list[str]:
        """Return the name of the most probable label of each input, or `NO_ANSWER`."""
        return self._named(self._logits(inputs))

    def _named(self, logits: torch.Tensor) -> list[str]:
        answered = self._answered(logits).tolist()
        return [
            self.labels[place] if known else NO_ANSWER
            for place, known in zip(logits.argmax(dim=-1).tolist(), answered, strict=True)
        ]

    def predict_sets(
        self, inputs: Sequence[Any] | npt.NDArray[Any], *, size: int
    ) -> list[tuple[str, ...]]:
        """Return the names of the `size` most probable labels of each input, best first."""
        self._check_size(size)
        return self._best(self._logits(inputs), size)

    def _check_size(self, size: int) -> None:
        if not 1 <= size <= len(self.labels):
            raise SettingsError(f"a set holds from 1 to {len(self.labels)} labels, not {size}")

    def _best(self, logits: torch.Tensor, size: int) -> list[tuple[str, ...]]:
        best = logits.topk(size, dim=-1).indices.tolist()
        return [tuple(self.labels[place] for place in row) for row in best]

    def answered(self, inputs: Sequence[Any] | npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Return which inputs get an answer, bool, shape (n,)."""
        known: npt.NDArray[np.bool_] = self._answered(self._logits(inputs)).numpy()
        return known

    def _answered(self, logits: torch.Tensor) -> torch.Tensor:
        if self.threshold is None:
            return torch.ones(len(logits), dtype=torch.bool)
        return _margins(logits) > self.threshold

    def goes_on(self, inputs: Sequence[Any] | npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Return which inputs no early exit answers, bool, shape (n,)."""
        if self._early is None:
            return np.ones(len(inputs), dtype=np.bool_)
        early, above = self._early
        return _unsure(early._own_logits(_array(inputs)), above)

    def predict_proba(self, inputs: Sequence[Any] | npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the probability of each label, ``(n, K)``, in the order of ``labels``.

        They are the model's own and were not calibrated; a certificate says nothing of them.
        """
        return _probabilities(self._logits(inputs))

    def answers(
        self, inputs: Sequence[Any] | npt.NDArray[Any], *, size: int = 0
    ) -> list[Answer]:
        """Return all that is said of each input, of one pass through the model.

        Parameters
        ----------
        inputs : sequence
            What is predicted.
        size : int (default: 0)
            Labels of a set, as `predict_sets` gives them; 0 for no sets.

        Returns
        -------
        list of Answer
            One for each input.

        Raises
        ------
        SettingsError
            If there are not that many labels.
        """
        if size:
            self._check_size(size)
        logits = self._logits(inputs)
        sets = self._best(logits, size) if size else [()] * len(logits)
        rows = zip(self._named(logits), _probabilities(logits).tolist(), sets, strict=True)
        return [Answer(label, tuple(each), among) for label, each, among in rows]

    @property
    def weights_mib(self) -> float:
        """What the weights take, the adapter's included, in MiB."""
        held = self._model.state_dict().values()
        return float(sum(each.numel() * each.element_size() for each in held)) / 2**20

    def milliseconds(
        self,
        inputs: Sequence[Any] | npt.NDArray[Any],
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> float:
        """Return the median time of one prediction on this machine, each input alone.

        No certificate says anything of times: they are another machine's elsewhere.

        Parameters
        ----------
        inputs : sequence
            What is predicted, one after the other.
        clock : callable
            Gives seconds; `time.process_time` leaves out what other processes take
            (default: `time.perf_counter`).
        """
        self._logits(inputs[:2])  # the first pass prepares what later ones find ready
        times = []
        for place in range(len(inputs)):
            started = clock()
            self._logits(inputs[place : place + 1])
            times.append(clock() - started)
        return 1000 * float(np.median(times))

    @torch.inference_mode()
    def _logits(self, inputs: Sequence[Any] | npt.NDArray[Any]) -> torch.Tensor:
        raw = _array(inputs)
        if self._early is None:
            return self._own_logits(raw)
        # What was certified to go on is the early adapter itself, without an exit of its own.
        early, above = self._early
        logits = early._own_logits(raw)
        rows = np.flatnonzero(_unsure(logits, above))
        logits[rows] = self._own_logits(raw[rows])
        return logits

    @torch.inference_mode()
    @exact_float32()  # as a certificate's errors are counted
    def _own_logits(self, raw: npt.NDArray[Any]) -> torch.Tensor:
        known = self.inputs.normalize(raw)
        device = next(self._model.parameters()).device
        logits = torch.empty(len(known), len(self.labels))
        for start in range(0, len(known), _BATCH):
            rows = slice(start, start + _BATCH)
            encoded = moved(self.inputs.encode(known[rows]), device)
            logits[rows] = self._model(**encoded).logits.cpu()
        return logits


def _array(inputs: Sequence[Any] | npt.NDArray[Any]) -> npt.NDArray[Any]:
    if isinstance(inputs, str):
        raise DataError("a single text was given: give a list of texts, [text]")
    if isinstance(inputs, np.ndarray):
        return inputs
    return np.array(inputs, dtype=object if any(isinstance(i, str) for i in inputs) else None)


def _probabilities(logits: torch.Tensor) -> npt.NDArray[Any]:
    probabilities: npt.NDArray[Any] = logits.double().softmax(-1).numpy()
    return probabilities


def _margins(logits: torch.Tensor) -> torch.Tensor:
    best = logits.double().topk(2, dim=-1).values
    return best[:, 0] - best[:, 1]


def _unsure(logits: torch.Tensor, above: float) -> npt.NDArray[np.bool_]:
    """Return where no margin is above a threshold: what failed has none, and goes on, too."""
    unsure: npt.NDArray[np.bool_] = (~(_margins(logits) > above)).numpy()
    return unsure


def load_classifier(
    folder: str | Path,
    base: BaseModel | str | Path,
    *,
    labels: LabelSet | Sequence[str] | None = None,
    descriptions: Mapping[str, str] | None = None,
    inputs: InputSpec | None = None,
    early: Classifier | None = None,
    device: str = "auto",
) -> Classifier:
    """Load an exported adapter for prediction.

    Parameters
    ----------
    folder : str or Path
        An adapter folder, as `personalize` leaves it.
    base : BaseModel, str or Path
        The base model, or its folder or hub id. Its digest must be the one that the folder
        names.
    labels : LabelSet or Sequence[str], optional
        The labels, where the adapter was exported for labels that each user brings.
    descriptions : Mapping[str, str], optional
        Texts that stand for some of these labels or all, by name.
    inputs : InputSpec, optional
        How inputs are encoded, where the folder does not say.
    early : Classifier, optional
        The adapter of the early operating point that this one was certified with: it answers
        where its margin is above the folder's threshold, and this one answers the rest.
    device : str (default: "auto")
        Where a base model that is loaded here computes (`fedcert.devices.resolve_device`); one
        that is given stays where it is.

    Returns
    -------
    Classifier
        The base model with the adapter, ready to predict.

    Raises
    ------
    AdapterError
        If the folder is damaged, or made for other labels or another base model, or was not
        certified with this early exit.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise AdapterError(f"{folder}: there is no such folder")
    if not (folder / "adapter_config.json").is_file():
        raise AdapterError(f"{folder}: no adapter_config.json; this is not an adapter folder")
    about = read_classifier(folder)
    loaded = (
        base
        if isinstance(base, BaseModel)
        else _loaded(str(base), about, resolve_device(device))
    )
    if about is not None and not loaded.goes_by(about.base_digest):
        raise AdapterError(
            f"{folder}: the adapter was made for the base model {about.base_name!r} "
            f"({about.base_digest[:12]}), and this is another ({loaded.digest[:12]})"
        )
    if about is not None and not isinstance(about.labels, LabelSet):
        _check_order(folder, about.labels, loaded)
    loaded = _labeled(folder, loaded, about, labels, descriptions)
    spec = inputs or _inputs(folder, about)
    names = loaded.label_names
    if about is not None and about.labels and not isinstance(about.labels, LabelSet):
        names = about.labels
    return Classifier(
        exported_model(loaded, folder),
        spec.bound_to(loaded),
        names,
        threshold=None if about is None else about.threshold,
        adapter=exported_digest(folder),
        early=None if early is None else _exit(folder, about, early, names),
    )


def _exit(
    folder: Path, about: ClassifierFile | None, early: Classifier, names: Sequence[str]
) -> tuple[Classifier, float]:
    """Make sure that an adapter was certified to go on from an early one."""
    if about is None or about.early_exit is None:
        raise AdapterError(
            f"{folder}: the adapter was not certified with an early exit; predict without one"
        )
    adapter, above = about.early_exit
    if early.adapter != adapter or early.labels != tuple(names):
        raise AdapterError(
            f"{folder}: the early exit that was certified is the adapter {adapter[:12]}, and "
            f"this is another one ({early.adapter[:12]})"
        )
    if about.threshold is not None:
        raise AdapterError(
            f"{folder}: the adapter abstains below a margin, which was certified without early "
            "exits; predict without one"
        )
    return early, above


def _loaded(name: str, about: ClassifierFile | None, device: torch.device) -> BaseModel:
    if about is None:
        return load_base_model(name, device=device)
    revision = None if Path(name).exists() else about.base_revision
    return load_base_model(
        name,
        revision=None if revision == "local" else revision,
        digest=about.base_digest,
        dtype=about.dtype,
        device=device,
    )


def _labeled(
    folder: Path,
    base: BaseModel,
    about: ClassifierFile | None,
    labels: LabelSet | Sequence[str] | None,
    descriptions: Mapping[str, str] | None,
) -> BaseModel:
    """Give the base model its labels: those of the folder, or else the user's."""
    stored = about.labels if about is not None else ()
    if not stored and labels is None and base.takes_labels and not base.num_labels:
        raise AdapterError(
            f"{folder}: the adapter was exported without labels, for any; pass labels=[...]"
        )
    if stored and labels is not None:
        own = about.names if about is not None else ()
        asked = tuple(labels.names) if isinstance(labels, LabelSet) else tuple(labels)
        if own != asked:
            raise AdapterError(
                f"{folder}: the adapter was exported for the labels {', '.join(own)}, and not "
                f"for {', '.join(asked)}"
            )
    if stored and descriptions:
        raise AdapterError(
            f"{folder}: the adapter has texts of its own for its labels; leave out the "
            "descriptions"
        )
    if stored and base.takes_labels:
        return base.with_labels(stored)
    if labels is None or stored:
        return base
    return base.with_labels(labels, descriptions=descriptions or None)


def _check_order(folder: Path, stored: tuple[str, ...], base: BaseModel) -> None:
    """Refuse a folder whose labels are the base model's in another order, or not as many."""
    own = base.label_names
    swapped = stored != own and sorted(stored) == sorted(own)
    if stored and own and (swapped or len(stored) != len(own)):
        raise AdapterError(
            f"{folder}: the adapter's labels are {', '.join(stored)}, in this order, and the "
            f"base model's {', '.join(own)}; export the adapter again"
        )


def _inputs(folder: Path, about: ClassifierFile | None) -> InputSpec:
    if about is None or about.inputs is None:
        raise AdapterError(
            f"{folder}: the adapter does not say how inputs are encoded; export it again, or "
            "pass inputs= in Python, as the bundle has it"
        )
    try:
        return input_spec_from_config(about.inputs)
    except BundleError as error:
        raise AdapterError(f"{folder}: {error}") from error
