"""What every test shares: no network, a cache of its own, and tiny models made on the fly."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

_CACHE = tempfile.mkdtemp(prefix="fedcert-tests-")
# Set before any library reads them, and inherited by subprocesses. With one thread small
# models run faster on a busy machine.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TRANSFORMERS_VERBOSITY="error",
    FLWR_TELEMETRY_ENABLED="0",
    FEDCERT_CACHE=_CACHE,
    FEDCERT_STATE=str(Path(_CACHE) / "state"),
)
# `make test-portability` sets another number.
os.environ.setdefault("OMP_NUM_THREADS", "1")

if TYPE_CHECKING:
    from tiny_models import Family


@pytest.fixture(scope="session", autouse=True)
def _cache_folder() -> Iterator[None]:
    yield
    shutil.rmtree(_CACHE, ignore_errors=True)


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return _made("vit", tmp_path_factory)


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return _made("bert", tmp_path_factory)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return _made("llama", tmp_path_factory)


@pytest.fixture(scope="session")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return _made("roberta", tmp_path_factory)


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return _made("qwen", tmp_path_factory)


@pytest.fixture(params=["vit", "bert", "llama"])
def family(request: pytest.FixtureRequest) -> Family:
    """Each kind of base model in turn: image encoder, text encoder, decoder."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["vit", "bert", "llama", "roberta", "qwen"])
def any_family(request: pytest.FixtureRequest) -> Family:
    """Also a head of two linear modules, and a decoder that mixes kinds of layers."""
    return request.getfixturevalue(request.param)


def _made(name: str, factory: pytest.TempPathFactory) -> Family:
    # Imported here, so that tests without models need not wait for torch.
    from tiny_models import make_family

    folder: Path = factory.mktemp("bases") / name
    return make_family(name, folder)
