"""The messages that server and clients share: types, payloads, and keys of records.

Arrays travel as named NumPy arrays, everything else, the *payload*, as one canonical JSON
string, so this module needs no Flower; the apps wrap both in Flower's records. Each type of
message has a class for the payload of its request, and one for that of its reply.

What a client needs to know of a run's settings comes by one of two roads. What the result
depends on is in the request: the adapter space, ``training`` with ``seed``, the recipes, and
the sizes to plan for. What is the node's own business is in the run config that Flower gives
to each node: ``scenario`` (its task, unless it has data of its own), ``privacy`` (a node adds
noise by what it was told, not by what a server asks), ``certificate.support_size``,
``search``, ``client.cache_mib``, ``client.cache_disk_mib``, ``training.lora_ranks``, and, in a
simulation alone, ``seed`` for the keys of virtual clients.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Self

from fedcert.canonical import sha256_hex
from fedcert.errors import ProtocolError

__all__ = [
    "ARRAYS",
    "AVERAGE",
    "BASE",
    "CERTIFY",
    "CLIENT_ID",
    "COMMIT",
    "CONTRIBUTE",
    "HELLO",
    "MANIFEST",
    "METRICS",
    "NEW",
    "PLAN",
    "PROTOCOL_VERSION",
    "REPLY",
    "TRAIN",
    "UPSTREAM",
    "WARM",
    "AdapterReply",
    "AdapterRequest",
    "AverageRequest",
    "BaseRequest",
    "CertifyReply",
    "CertifyRequest",
    "CommitReply",
    "CommitRequest",
    "HelloReply",
    "Payload",
    "PlanReply",
    "PlanRequest",
    "QuestionRequest",
    "WarmRequest",
    "client_id",
]

CLIENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a client id must look like: ids become names of files on both sides."""


def client_id(name: str) -> str:
    """Return a name as a client id: itself, or a digest if it cannot be the name of a file."""
    return name if CLIENT_ID.fullmatch(name) else f"client-{sha256_hex(name.encode())[:16]}"


HELLO = "query.hello"
"""Who are you, and what is your role? Asked once per run."""

WARM = "train.trunk"
"""Do a client's part of a round of the warm start, and upload how far the trunk moved."""

BASE = "query.base"
"""Make the base model that came of the warm start, and keep it."""

TRAIN = "train.adapter"
"""Fine-tune an adapter and upload it."""

CONTRIBUTE = "train.contribute"
"""Answer a question about the client's own adapter; only the sum of answers is used."""

AVERAGE = "train.average"
"""Do one round of a method that averages something, and upload the update."""

PLAN = "query.plan"
"""Replay recipes on the client's own examples, and return the bounds alone."""

COMMIT = "evaluate.commit"
"""Keep the bundle, and commit to the support set."""

CERTIFY = "evaluate.certify"
"""Personalize with the seed that answers the commitment, and return the certificate."""

ARRAYS = "arrays"
"""Key of the record with arrays: an adapter, or a bundle's tensors."""

MANIFEST = "manifest"
"""Key of the record with a bundle's manifest, or the adapter space."""

REPLY = "reply"
"""Key of the record with a reply's payload."""

METRICS = "metrics"
"""Key of the record with numbers about the work: examples, loss, seconds."""

UPSTREAM, NEW = "upstream", "new"
"""The roles that a client can have."""

PROTOCOL_VERSION = 1
"""Raised by every change of the messages that the other side would misunderstand."""


@dataclass(frozen=True)
class Payload:
    """What a message says beside its arrays; its fields are the members of a JSON object."""

    def to_object(self) -> dict[str, Any]:
        """Return the JSON object; what is None is left out."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @classmethod
    def from_object(cls, payload: Mapping[str, Any]) -> Self:
        """Read what `to_object` gave; what a later version adds is passed over.

        Raises
        ------
        ProtocolError
            If something is missing. Values are checked by whoever uses them.
        """
        there = {field.name: field for field in fields(cls)}
        missing = sorted(
            name
            for name, field in there.items()
            if name not in payload and field.default is MISSING
        )
        if missing:
            raise ProtocolError(
                f"the message lacks {', '.join(missing)}; its sender has another version of "
                "fedcert"
            )
        return cls(**{name: payload[name] for name in there if name in payload})


@dataclass(frozen=True)
class HelloReply(Payload):
    """Reply to `HELLO`, whose request says nothing.

    Attributes
    ----------
    client : str
        The client's id, stable over runs.
    role : str
        `UPSTREAM` or `NEW`.
    protocol : int
        The client's `PROTOCOL_VERSION`; early versions name none.
    version : str
        Its version of fedcert, for people.
    plans : bool or None
        True if an upstream client would rather plan than train.
    """

    client: Any = None
    role: Any = None
    protocol: Any = None
    version: Any = None
    plans: Any = None


@dataclass(frozen=True)
class WarmRequest(Payload):
    """Request of `WARM`; the reply is arrays alone, how far every B moved.

    Attributes
    ----------
    trunk : Mapping
        What is trained together: `fedcert.warm_start.Trunk`. Arrays whose names begin with
        ``trunk.`` are its B; those with ``basis.`` are the space's.
    space : Mapping
        The space of the personal adapter, on the base model as it was.
    training : Mapping
        How to train: `fedcert.warm_start.TrunkTraining`.
    done : int
        Joint steps of the rounds before.
    seed : int
        Of the training.
    """

    trunk: Mapping[str, Any]
    space: Mapping[str, Any]
    training: Mapping[str, Any]
    done: int
    seed: int


@dataclass(frozen=True)
class BaseRequest(Payload):
    """Request of `BASE`; the arrays are every B after the last round. The reply says nothing.

    Attributes
    ----------
    trunk : Mapping
        As in `WarmRequest`.
    digest : str
        What the base model with the trunk in its weights must have.
    about : Mapping
        What is noted beside it.
    """

    trunk: Mapping[str, Any]
    digest: str
    about: Mapping[str, Any]


@dataclass(frozen=True)
class AdapterRequest(Payload):
    """Request of `TRAIN`; the arrays are the basis of the space.

    Attributes
    ----------
    space : Mapping
        The adapter space.
    training : Mapping
        How to train: `fedcert.adapters.FinetuneSettings`.
    seed : int
        Of the training.
    """

    space: Mapping[str, Any]
    training: Mapping[str, Any]
    seed: int

    def identity(self) -> dict[str, Any]:
        """Return what a client's adapter depends on: a JSON object."""
        return {"space": self.space, "training": self.training, "seed": self.seed}


@dataclass(frozen=True)
class AdapterReply(Payload):
    """Reply to `TRAIN`; the arrays are the adapter.

    Attributes
    ----------
    space : str
        Digest of the adapter space.
    mu : float or None
        What the client has released, if there is noise: the Gaussian privacy of all its noisy
        uploads together.
    """

    space: Any = None
    mu: Any = None


@dataclass(frozen=True)
class QuestionRequest(AdapterRequest):
    """Request of `CONTRIBUTE`; the reply is arrays alone.

    Attributes
    ----------
    question : Mapping
        Its ``kind``, and its settings as ``words``. Arrays whose names begin with
        ``question.`` belong to it; those with ``basis.`` are the space's.
    """

    question: Mapping[str, Any]


@dataclass(frozen=True)
class AverageRequest(Payload):
    """Request of `AVERAGE`; the reply is arrays alone.

    Arrays whose names begin with ``basis.`` are the space's, those with ``state.`` the server's
    state.

    Attributes
    ----------
    space : Mapping
        The adapter space.
    method : Mapping
        The method with its settings: `fedcert.methods.Method.to_config`.
    seed : int
        Of the run.
    round : int
        Number of the round, from 1 on.
    """

    space: Mapping[str, Any]
    method: Mapping[str, Any]
    seed: int
    round: int

    def identity(self) -> dict[str, Any]:
        """Return what the rounds of one run have in common: a JSON object."""
        return {"space": self.space, "method": self.method, "seed": self.seed}


@dataclass(frozen=True)
class PlanRequest(Payload):
    """Request of `PLAN`; the arrays are the bundle's.

    Attributes
    ----------
    bundle : str
        The manifest of a bundle without a plan.
    recipes : list
        What to replay.
    sizes : list of int
        Sizes of support sets.
    """

    bundle: str
    recipes: list[Any]
    sizes: list[int]


@dataclass(frozen=True)
class PlanReply(Payload):
    """Reply to `PLAN`: bounds, as `fedcert.planning.replays_to_config` gives them."""

    replays: Any = None


@dataclass(frozen=True)
class CommitRequest(Payload):
    """Request of `COMMIT`: a bundle's manifest; the arrays are the bundle's."""

    bundle: str


@dataclass(frozen=True)
class CommitReply(Payload):
    """Reply to `COMMIT`: what `fedcert.protocol.commitment.Commitment` writes."""

    commitment: Any = None


@dataclass(frozen=True)
class CertifyRequest(Payload):
    """Request of `CERTIFY`: the seed with its receipt, as `SeedGrant` writes it."""

    seed: Any


@dataclass(frozen=True)
class CertifyReply(Payload):
    """Reply to `CERTIFY`: the certificate's JSON text."""

    certificate: Any = None
