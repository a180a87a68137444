"""The bundle: what a device downloads to personalize on its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedcert.adapters.space import AdapterSpace
from fedcert.adapters.task import Task
from fedcert.atomic import replaced_folder, write_atomically
from fedcert.bundles.archives import pack, read_archive
from fedcert.bundles.reference import arrays_of, examples_from
from fedcert.canonical import canonical_json, digest_json, digest_tensors
from fedcert.certificates.recipes import RecipeTable
from fedcert.data.examples import Examples
from fedcert.data.inputs import InputSpec
from fedcert.data.kinds import input_spec_from_config
from fedcert.errors import BundleError, FedcertError, ModelError, UnknownKindError
from fedcert.label_set import LabelSet
from fedcert.models.base import BaseModel, load_base_model
from fedcert.named_arrays import under
from fedcert.planning.plan import Plan
from fedcert.priors.base import Prior
from fedcert.priors.registry import prior_from_parts
from fedcert.records import Digest, OrAbsent, Record, parse_json

__all__ = ["FORMAT", "Bundle"]

FORMAT = "fedcert.bundle/1"
_MANIFEST, _TENSORS, _SUMS = "bundle.json", "bundle.safetensors", "bundle.sha256"


@dataclass(frozen=True)
class _Manifest(Record):
    what = "bundle"
    format = FORMAT

    base_model: dict[str, Any]
    space: dict[str, Any]
    prior: dict[str, Any]
    inputs: dict[str, Any]
    labels: tuple[str, ...]
    recipes: RecipeTable
    notes: dict[str, Any]
    tensors: Digest
    plan: OrAbsent[Plan] = None
    server: OrAbsent[Digest] = None


@dataclass(frozen=True)
class Bundle:
    """Prior, adapter space, base model id, task and recipe table of one federation.

    Attributes
    ----------
    base_name, base_revision : str
        Hub id and revision; for a local model the folder's own name and ``"local"``.
    base_digest : str
        Digest of the base model's weights and configuration: its true identity. In bundles
        from before, of its weights alone.
    space : AdapterSpace
        The coordinates of adapters, with their basis.
    prior : Prior
        What candidates are drawn from.
    inputs : InputSpec
        How inputs are encoded.
    labels : tuple of str
        Names of the classes, by index; empty if each client brings its own.
    recipes : RecipeTable
        How a support set of n examples is to be spent.
    notes : Mapping[str, Any]
        What was chosen and why, and what the audits found: a JSON object.
    plan : Plan or None
        The plan that the recipe table is from, if recipes were planned.
    server : str or None
        Public key of the server whose seeds count, 64 hexadecimal digits; None, and absent
        from the manifest, if the bundle names none.
    reference : Examples or None
        A labeled sample of what all clients meet together, that nothing else used; it stands
        among the arrays. None if the bundle has none.
    """

    base_name: str
    base_revision: str
    base_digest: str
    space: AdapterSpace
    prior: Prior
    inputs: InputSpec
    labels: tuple[str, ...]
    recipes: RecipeTable
    notes: Mapping[str, Any]
    plan: Plan | None = None
    server: str | None = None
    reference: Examples | None = None

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return all arrays: the space's basis, the prior's, and the reference sample's."""
        basis = {f"space.{name}": array for name, array in self.space.basis.items()}
        prior = {f"prior.{name}": array for name, array in self.prior.tensors().items()}
        sample = {} if self.reference is None else arrays_of(self.reference)
        return basis | prior | {f"reference.{name}": each for name, each in sample.items()}

    def manifest(self) -> dict[str, Any]:
        """Return all else, with a digest of the arrays: a JSON object."""
        # Without a plan, or a server, there is no such key: the digests of such bundles stay
        # what they were.
        planned = {} if self.plan is None else {"plan": self.plan.to_config()}
        served = {} if self.server is None else {"server": self.server}
        return (
            planned
            | served
            | {
                "format": FORMAT,
                "base_model": {
                    "name": self.base_name,
                    "revision": self.base_revision,
                    "digest": self.base_digest,
                },
                "space": self.space.to_config(),
                "prior": {"kind": self.prior.kind, "config": self.prior.config()},
                "inputs": self.inputs.to_config(),
                "labels": list(self.labels),
                "recipes": self.recipes.to_config(),
                "notes": dict(self.notes),
                "tensors": digest_tensors(self.tensors()),
            }
        )

    @cached_property
    def digest(self) -> str:
        """Identity of the bundle: a digest over everything in it."""
        return digest_json(self.manifest())

    @property
    def version(self) -> int | None:
        """Its number among the versions of its federation; None if nobody numbered it."""
        number = self.notes.get("version")
        return number if isinstance(number, int) else None

    def save(self, folder: Path) -> None:
        """Write the bundle as a folder, in full or not at all."""
        with replaced_folder(folder) as staging:
            for name, content in self.files().items():
                write_atomically(staging / name, content)

    def pack(self, archive: Path) -> str:
        """Write the bundle as one file, in full or not at all; see `fedcert.bundles.archives`.

        Returns
        -------
        str
            The file's SHA-256 digest. The same bundle gives the same bytes.
        """
        return pack(self.files(), archive)

    def files(self) -> dict[str, bytes]:
        """Return the files of the bundle's folder, by name.

        ``bundle.sha256`` lists the two others, as the program ``sha256sum`` does. It names
        the file that a download has damaged; whose bundle it is, the digest alone tells.
        """
        files = {_MANIFEST: self.manifest_bytes(), _TENSORS: save(_contiguous(self.tensors()))}
        sums = [f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in files]
        return files | {_SUMS: "".join(sums).encode()}

    def manifest_bytes(self) -> bytes:
        """Return the manifest as canonical JSON."""
        return canonical_json(self.manifest())

    @classmethod
    def load(cls, path: Path) -> Bundle:
        """Read what `save` or `pack` wrote, and check it.

        Parameters
        ----------
        path : Path
            A folder, or an archive.

        Raises
        ------
        BundleError
            If a file is missing or damaged, or something does not fit; the message names
            the file.
        """
        if not path.exists():
            raise BundleError(f"{path}: there is no such folder or file")
        files = read_archive(path) if path.is_file() else _read_folder(path)
        for name in (_MANIFEST, _TENSORS, _SUMS):
            if name not in files:
                raise BundleError(f"{path}: no {name}; {_why_none(path)}")
        _check_sums(path, files)
        try:
            tensors = load(files[_TENSORS])
        except SafetensorError as error:
            raise BundleError(
                f"{path}: the bundle is damaged: {_TENSORS} cannot be read ({error})"
            ) from error
        return cls.from_parts(files[_MANIFEST], tensors)

    @classmethod
    def from_parts(cls, manifest: bytes, tensors: Mapping[str, npt.NDArray[Any]]) -> Bundle:
        """Rebuild a bundle from `manifest_bytes` and `tensors`.

        Raises
        ------
        BundleError
            If it is damaged or of another version.
        """
        try:
            content = parse_json(manifest, "manifest")
            if isinstance(content, dict) and content.get("format", FORMAT) != FORMAT:
                raise BundleError(
                    f"the bundle has the format {content['format']!r}; "
                    f"this version reads {FORMAT!r}"
                )
            found = _Manifest.from_object(content)
            if digest_tensors(tensors) != found.tensors:
                raise BundleError("the bundle is damaged: its arrays do not match its manifest")
            base, prior = found.base_model, found.prior
            bundle = cls(
                base_name=base["name"],
                base_revision=base["revision"],
                base_digest=base["digest"],
                space=AdapterSpace.from_config(found.space, under("space.", tensors)),
                prior=prior_from_parts(
                    prior["kind"], prior["config"], under("prior.", tensors)
                ),
                inputs=input_spec_from_config(found.inputs),
                labels=found.labels,
                recipes=found.recipes,
                notes=found.notes,
                plan=found.plan,
                server=found.server,
                reference=examples_from(under("reference.", tensors)),
            )
            bundle._check_whole()
            if bundle.digest != digest_json(content):
                # What is skipped here would make another bundle of the same digest.
                raise BundleError("the bundle is damaged: it holds something unknown")
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise BundleError(f"the bundle is damaged: {error}") from error
        except BundleError:
            raise
        except UnknownKindError as error:
            raise BundleError(f"the bundle cannot be used here: {error}") from error
        except FedcertError as error:
            raise BundleError(f"the bundle is damaged: {error}") from error
        return bundle

    def load_base(
        self, name: str | None = None, *, device: torch.device | None = None
    ) -> BaseModel:
        """Load the base model that the bundle was made for.

        Parameters
        ----------
        name : str, optional
            A folder or hub id, if not the bundle's own.
        device : torch.device, optional
            Where it goes; by default it stays on the CPU.

        Returns
        -------
        BaseModel
            The model, known by its digest.
        """
        local = self.base_revision == "local"
        if not name and local and not Path(self.base_name).exists():
            raise ModelError(
                f"the bundle needs the base model {self.base_name!r} (digest "
                f"{self.base_digest[:12]}), which is in no hub: name its folder with "
                "--base-model"
            )
        revision = None if name or local else self.base_revision
        return load_base_model(
            name or self.base_name,
            num_labels=len(self.labels),
            revision=revision,
            digest=self.base_digest,
            device=device,
        )

    @property
    def takes_labels(self) -> bool:
        """Whether each client brings labels of its own."""
        return not self.labels

    def task(
        self,
        base: BaseModel | None = None,
        *,
        labels: LabelSet | Sequence[str] | None = None,
        descriptions: Mapping[str, str] | None = None,
    ) -> Task:
        """Return what the bundle's adapters are for.

        Parameters
        ----------
        base : BaseModel, optional
            The bundle's base model; by default it is loaded as the bundle says.
        labels : LabelSet or Sequence[str], optional
            A client's own, if the bundle leaves them to clients.
        descriptions : Mapping[str, str], optional
            Texts that stand for some of them or all, by name.

        Returns
        -------
        Task
            With the base model, the space, the inputs, and the labels.

        Raises
        ------
        BundleError
            If the bundle has labels itself, or its base model has.
        """
        base = base or self.load_base()
        if self.takes_labels != base.takes_labels or (labels is not None and self.labels):
            raise BundleError(
                "the bundle leaves the labels to clients, and its base model has its own"
                if self.takes_labels
                else f"the bundle's labels are {', '.join(self.labels)}, and here they are not "
                "for a client to bring"
            )
        if labels is None:
            return Task(base, self.space, self.inputs, self.labels)
        return Task(base, self.space, self.inputs, ()).with_labels(
            labels, descriptions=descriptions
        )

    def with_plan(self, plan: Plan) -> Bundle:
        """Return the bundle with a plan and the recipe table that follows from it."""
        return replace(self, recipes=plan.table(), plan=plan)

    def _check_whole(self) -> None:
        if self.space.base_digest != self.base_digest:
            raise BundleError("the bundle is damaged: its space belongs to another base model")
        if self.prior.dimension != self.space.dimension:
            raise BundleError(
                f"the bundle is damaged: its prior has {self.prior.dimension} coordinates, "
                f"its space {self.space.dimension}"
            )
        if self.plan is not None and self.plan.table() != self.recipes:
            raise BundleError("the bundle is damaged: its recipes are not those of its plan")
        labels = () if self.reference is None else self.reference.labels
        if len(labels) and not -1 <= min(labels) <= max(labels) < len(self.labels):
            raise BundleError("the bundle is damaged: its reference sample has other labels")


def _why_none(path: Path) -> str:
    """Say what else a path leads to than a bundle."""
    if (path / "bundle" / _MANIFEST).is_file():
        return f"this is a run folder, and its bundle is {path / 'bundle'}"
    return "this is not a bundle, or a part of one"


def _read_folder(folder: Path) -> dict[str, bytes]:
    files = {}
    # A link to the latest version may change in between; all files must be of one version.
    folder = folder.resolve()
    for name in (_MANIFEST, _TENSORS, _SUMS):
        try:
            files[name] = (folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue  # `load` names what is missing
        except OSError as error:
            raise BundleError(
                f"{folder}: the bundle is damaged: cannot read {name} ({error.strerror})"
            ) from error
    return files


def _check_sums(path: Path, files: Mapping[str, bytes]) -> None:
    """Raise `BundleError` unless every file is the one that the list of sums was made for."""
    listed: dict[str, str] = {}
    for line in files[_SUMS].decode(errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        listed[name] = digest
    for name in (_MANIFEST, _TENSORS):
        if listed.get(name) != hashlib.sha256(files[name]).hexdigest():
            raise BundleError(
                f"{path}: the bundle is damaged: {name} is not the file that {_SUMS} lists; "
                "one of the two is broken or of another version. Get the bundle again"
            )


def _contiguous(tensors: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Copy what is a view: safetensors writes the memory behind an array."""
    return {name: np.ascontiguousarray(array) for name, array in tensors.items()}
