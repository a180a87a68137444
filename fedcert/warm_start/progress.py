"""How far a warm start has come: one file, written anew after each round."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedcert.atomic import write_atomically
from fedcert.canonical import canonical_json, digest_json
from fedcert.errors import RunError
from fedcert.named_arrays import prefixed, under
from fedcert.warm_start.trunk import Trunk, TrunkTensors

__all__ = ["WarmProgress"]

_TRUNK, _MOMENT = "trunk/", "moment/"


@dataclass
class WarmProgress:
    """What the server has after a number of rounds.

    Attributes
    ----------
    tensors : TrunkTensors
        The trunk.
    moments : dict
        Of the server's optimizer.
    rounds : list of dict
        What each round was like: clients, loss, norm, bytes.
    weights : dict
        Of the clients, where their tail counts.
    clients : list of str
        Who has trained the trunk so far, sorted; such a client must not plan.
    planners : list of str
        Who was kept out of it to plan, sorted.
    trainers : list of str
        Among whom private rounds are dealt out, sorted; empty without such a promise.
    release : str
        What a private warm start is called in the account of its folder.
    """

    tensors: TrunkTensors
    moments: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)
    clients: list[str] = field(default_factory=list)
    planners: list[str] = field(default_factory=list)
    trainers: list[str] = field(default_factory=list)
    release: str = ""

    def save(self, path: Path, identity: dict[str, Any]) -> None:
        """Write it in full or not at all.

        Parameters
        ----------
        path : Path
            The file.
        identity : dict
            What the trunk follows from: a JSON object, of which the digest is kept.
        """
        words = {
            "identity": digest_json(identity),
            "rounds": self.rounds,
            "weights": self.weights,
            "clients": self.clients,
            "planners": self.planners,
            "trainers": self.trainers,
            "release": self.release,
        }
        arrays: dict[str, npt.NDArray[Any]] = {
            **prefixed(_TRUNK, self.tensors),
            **prefixed(_MOMENT, self.moments),
        }
        metadata = {"fedcert": canonical_json(words).decode()}
        write_atomically(path, save(arrays, metadata))

    @classmethod
    def read(cls, path: Path, trunk: Trunk, identity: dict[str, Any]) -> Self:
        """Read it, or begin.

        Parameters
        ----------
        path : Path
            The file; if it is missing, nothing was done yet.
        trunk : Trunk
            What is trained.
        identity : dict
            As in `save`.

        Returns
        -------
        WarmProgress
            As of the last round.

        Raises
        ------
        RunError
            If it was made with other settings, or is damaged.
        """
        if not path.is_file():
            return cls(trunk.zeros())
        try:
            with safe_open(path, framework="numpy") as file:
                words = json.loads(file.metadata()["fedcert"])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            known = words.pop("identity")
            done = cls(under(_TRUNK, arrays), under(_MOMENT, arrays), **words)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{path} is damaged ({error}); remove it, and the warm start begins anew"
            ) from error
        if known != digest_json(identity):
            raise RunError(
                f"{path} is of a warm start with other settings or another base model; choose "
                "another run folder"
            )
        return done
