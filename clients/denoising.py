"""A client's part in the federated prior: answers from its own adapter, to be summed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import Message, RecordDict
from safetensors.numpy import load_file, save

from fedcert.adapters import AdapterSpace
from fedcert.arrays import FloatArray
from fedcert.atomic import write_atomically
from fedcert.canonical import digest_json
from fedcert.clients.adapting import own_adapter
from fedcert.clients.node import Node
from fedcert.errors import FedcertError
from fedcert.messages import REPLY, QuestionRequest
from fedcert.messages.flower import arrays_of, content, payload_of
from fedcert.named_arrays import under
from fedcert.priors import DiffusionPrior, LatentSpace
from fedcert.priors.denoiser import Denoiser, add_noise, velocity
from fedcert.protocol.uses import TRAINING
from fedcert.randomness import small_seed

__all__ = ["answer", "contribute"]

Arrays = dict[str, npt.NDArray[Any]]


def contribute(message: Message, node: Node) -> RecordDict:
    """Answer one question of the server; the adapter is trained for the first of them.

    It stays on the client's disk, so that a fresh process can answer the next question.
    """
    request = QuestionRequest.from_object(payload_of(message.content))
    arrays, asked = arrays_of(message.content), request.identity() | node.training_identity()
    path = node.folder / "federated" / f"{digest_json(asked)}.safetensors"
    if not path.is_file():
        space = AdapterSpace.from_config(request.space, under("basis.", arrays))
        purpose = f"{TRAINING} for the federated prior"
        own = own_adapter(request, space, node, purpose=purpose)
        write_atomically(path, save({"adapter": own.vector}))
    adapter = load_file(path)["adapter"].astype(np.float64)
    question = request.question
    found = answer(
        str(question["kind"]),
        question["words"],
        under("question.", arrays),
        adapter,
        client=node.client,
    )
    return content({}, found, key=REPLY)


def answer(
    kind: str,
    words: Mapping[str, Any],
    arrays: Mapping[str, npt.NDArray[Any]],
    adapter: FloatArray,
    *,
    client: str,
) -> Arrays:
    """Return what a client adds to the sum that the server asks for.

    Parameters
    ----------
    kind : str
        Which sum.
    words, arrays
        The question's settings and arrays.
    adapter : numpy.ndarray
        The client's own, shape ``(d,)``.
    client : str
        Its id, for the noise that it draws.

    Returns
    -------
    Arrays
        Arrays by name, which the server adds up over clients.

    Raises
    ------
    FedcertError
        If there is no such question.
    """
    if kind not in _ANSWERS:
        raise FedcertError(f"this version cannot answer the question {kind!r}")
    return _ANSWERS[kind](words, arrays, adapter, client)


def _mean(_words: Any, _arrays: Any, adapter: FloatArray, _client: str) -> Arrays:
    return {"sum": adapter}


def _variance(_words: Any, arrays: Any, adapter: FloatArray, _client: str) -> Arrays:
    return {"sum": (adapter - arrays["mean"]) ** 2}


def _power(_words: Any, arrays: Any, adapter: FloatArray, _client: str) -> Arrays:
    standard = (adapter - arrays["mean"]) / arrays["scale"]
    return {"sum": np.outer(standard, standard @ arrays["basis"])}


def _gram(_words: Any, arrays: Any, adapter: FloatArray, _client: str) -> Arrays:
    along = (adapter - arrays["mean"]) / arrays["scale"] @ arrays["basis"]
    return {"sum": np.outer(along, along)}


def _components(_words: Any, arrays: Any, adapter: FloatArray, _client: str) -> Arrays:
    own = LatentSpace.from_tensors(arrays).encode(adapter)
    return {"sum": np.outer((arrays["directions"] @ own) ** 3, own)}


def _denoise(words: Any, arrays: Any, adapter: FloatArray, client: str) -> Arrays:
    """Train the denoiser on noisy versions of one adapter; return how its weights moved."""
    network = Denoiser.from_arrays(arrays, schedule=DiffusionPrior.schedule)
    before, network = network.arrays(), network.requires_grad_(True)
    generator = torch.Generator().manual_seed(small_seed("noise", words["seed"], client))
    optimizer = torch.optim.AdamW(network.parameters(), lr=words["rate"], weight_decay=1e-3)
    for _ in range(int(words["steps"])):
        loss = _loss(network, arrays, adapter, int(words["batch"]), generator)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return {name: array - before[name] for name, array in network.arrays().items()}


def _judge(words: Any, arrays: Any, adapter: FloatArray, client: str) -> Arrays:
    network = Denoiser.from_arrays(arrays, schedule=DiffusionPrior.schedule)
    generator = torch.Generator().manual_seed(small_seed("judge", words["seed"], client))
    with torch.no_grad():
        loss = _loss(network, arrays, adapter, 1024, generator)
    return {"loss": np.array([float(loss)])}


def _loss(
    network: Denoiser,
    arrays: Mapping[str, npt.NDArray[Any]],
    adapter: FloatArray,
    count: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Return the mean square error of the v-prediction on noisy versions of an adapter."""
    clean = torch.from_numpy(LatentSpace.from_tensors(arrays).encode(adapter))
    alphas_cumprod = torch.from_numpy(DiffusionPrior.schedule.alphas_cumprod)
    steps = torch.randint(len(alphas_cumprod), (network.copies, count), generator=generator)
    noise = torch.randn(
        network.copies, count, len(clean), generator=generator, dtype=torch.float64
    )
    alpha_bar = alphas_cumprod[steps][..., None]
    predicted: torch.Tensor = network(add_noise(clean, noise, alpha_bar), steps)
    return (predicted - velocity(clean, noise, alpha_bar)).square().mean()


_ANSWERS: dict[str, Callable[[Any, Any, FloatArray, str], Arrays]] = {
    "mean": _mean,
    "variance": _variance,
    "power": _power,
    "gram": _gram,
    "components": _components,
    "denoise": _denoise,
    "judge": _judge,
}
