"""`import fedcert` is the Python interface: complete, documented, and imported when used."""

from __future__ import annotations

import inspect
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

import fedcert
from fedcert.data import read_examples
from fedcert.protocol.spent import SpentLedger

BLESSED = Path(__file__).parent / "blessed" / "v1"


def test_everything_that_is_named_is_there_and_documented() -> None:
    for name in fedcert.__all__:
        value = getattr(fedcert, name)
        assert name == "__version__" or inspect.getdoc(value), name
    assert set(dir(fedcert)) >= set(fedcert.__all__)


def test_a_mistyped_name_gets_a_hint() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import fedcert; fedcert.personalise"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Did you mean: 'personalize'?" in done.stderr
    assert set(fedcert.__all__) <= set(dir(fedcert))


def test_a_bundle_and_a_file_become_an_adapter_and_a_certificate(tmp_path: Path) -> None:
    bundle = fedcert.load_bundle(BLESSED / "gaussian")
    done = fedcert.personalize(
        bundle,
        BLESSED / "data" / "union.npz",
        client="somebody",
        output=tmp_path / "mine",
        key=tmp_path / "my.key",
        base_model=str(BLESSED / "run" / "base-model"),
    )
    report = fedcert.verify(done.certificate, bundle=bundle, adapter=done.adapter)
    assert report.passed
    assert {"data", "public-key"} <= {left.name for left in report.unchecked}
    assert (tmp_path / "my.state").is_dir()


def test_what_a_node_trained_on_certifies_nothing_here(tmp_path: Path) -> None:
    bundle = fedcert.load_bundle(BLESSED / "gaussian")
    examples = read_examples(
        BLESSED / "data" / "union.npz", spec=bundle.inputs, labels=bundle.labels
    )
    SpentLedger(tmp_path / "state").mark(examples, "training an upload")
    made = partial(
        fedcert.personalize,
        bundle,
        examples,
        client="somebody",
        output=tmp_path / "mine",
        key=tmp_path / "client.key",
        base_model=str(BLESSED / "run" / "base-model"),
    )
    with pytest.raises(fedcert.FedcertError, match="already spent on: training an upload"):
        made()
    assert not (tmp_path / "client.state").exists()
    # Whoever knows better names the folder.
    assert made(state=tmp_path / "other").certificate.support_size == len(examples)
