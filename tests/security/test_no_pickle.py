"""No file that somebody else wrote is ever run: no pickle, no code from a model's folder."""

from __future__ import annotations

import ast
import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import Family

from fedcert.data import ImageInputs, read_examples
from fedcert.errors import DataError, ModelError
from fedcert.models import load_base_model

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("fedcert", "strategies", "clients", "simulations")

MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
"""What runs text; methods of these names, such as a model's `eval`, are others."""
CALLS = {
    "torch.load",
    "torch.save",
    "torch.jit.load",
    "torch.hub.load",
    "yaml.load",
    "yaml.unsafe_load",
    "pandas.read_pickle",
    "pd.read_pickle",
}
# What reads NumPy's formats may unpickle objects unless it is told not to.
NUMPY = {"np.load", "numpy.load"}
# The model libraries take pickled weights, and code, from a folder unless they are told not to.
FACTORIES = {"from_pretrained"}


def _sources() -> Iterator[Path]:
    for folder in FOLDERS:
        yield from sorted((ROOT / folder).rglob("*.py"))


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _options(call: ast.Call) -> dict[str | None, object]:
    return {
        word.arg: word.value.value if isinstance(word.value, ast.Constant) else ...
        for word in call.keywords
    }


def dangers(source: str) -> set[str]:
    """Name what in a source file could run what it reads."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.split(".")[0] in MODULES}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = {str(node.module), *(f"{node.module}.{a.name}" for a in node.names)}
            found |= {name for name in names if name.split(".")[0] in MODULES or name in CALLS}
        elif isinstance(node, ast.Call):
            name, options = _name(node.func), _options(node)
            if name in CALLS | BUILTINS:
                found.add(name)
            if name in NUMPY and options.get("allow_pickle") is not False:
                found.add(name)
            last = name.rpartition(".")[2]
            if last in FACTORIES and "Peft" not in name:
                if options.get("trust_remote_code") is not False:
                    found.add(f"{name} with code")
                weights = "Config" not in name and "Tokenizer" not in name
                if weights and options.get("use_safetensors") is not True:
                    found.add(f"{name} with pickled weights")
        elif isinstance(node, ast.keyword) and node.arg in {
            "allow_pickle",
            "trust_remote_code",
        }:
            plainly_false = isinstance(node.value, ast.Constant) and node.value.value is False
            found |= set() if plainly_false else {str(node.arg)}
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import joblib.memory",
        "from shelve import open",
        "from torch import load",
        "import torch\ntorch.load('x')",
        "import numpy as np\nnp.load('x')",
        "np.load('x', allow_pickle=True)",
        "np.load('x', allow_pickle=flag)",
        "import yaml\nyaml.load('x')",
        "eval('1')",
        "exec(text)",
        "AutoModel.from_pretrained('x')",
        "AutoModel.from_pretrained('x', trust_remote_code=False)",
        "AutoConfig.from_pretrained('x')",
        "f(trust_remote_code=True)",
    ],
)
def test_the_scan_has_teeth(source: str) -> None:
    assert dangers(source)


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "np.load('x', allow_pickle=False)",
        "import json\njson.load(file)",
        "AutoConfig.from_pretrained('x', trust_remote_code=False)",
        "AutoModel.from_pretrained('x', trust_remote_code=False, use_safetensors=True)",
        "re.compile('x')",
    ],
)
def test_the_scan_lets_harmless_code_be(source: str) -> None:
    assert not dangers(source)


def test_no_source_file_runs_what_it_reads() -> None:
    sources = list(_sources())
    assert len(sources) > 150
    found = {
        str(path.relative_to(ROOT)): names
        for path in sources
        if (names := dangers(path.read_text(encoding="utf-8")))
    }
    assert found == {}


class _Payload:
    """Unpickling one of these writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.path,))


def test_the_payload_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(_Payload(tmp_path / "owned")))
    assert (tmp_path / "owned").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_pickled_weights_are_refused(vit: Family, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "base"
    vit.base.model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save({"x": _Payload(tmp_path / "owned")}, folder / name)
    with pytest.raises(ModelError, match="cannot load a base model"):
        load_base_model(str(folder), num_labels=2)
    assert not (tmp_path / "owned").exists()


def test_code_in_a_models_folder_is_not_run(vit: Family, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    vit.base.model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "evil"
    config["auto_map"] = {
        "AutoConfig": "evil.Config",
        "AutoModelForImageClassification": "evil.Model",
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'owned')!r}).touch()\n"
        "class Config: pass\nclass Model: pass\n"
    )
    with pytest.raises(ModelError, match="cannot load a base model"):
        load_base_model(str(folder), num_labels=2)
    assert not (tmp_path / "owned").exists()


def test_objects_in_a_users_data_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    evil = np.array([_Payload(tmp_path / "owned")], dtype=object)
    np.savez(path, input=evil, label=np.array(["a"]))
    spec = ImageInputs(channels=1, height=1, width=1, low=0.0, high=1.0)
    with pytest.raises(DataError, match="an array of Python objects"):
        read_examples(path, spec=spec, labels=("a", "b"))
    assert not (tmp_path / "owned").exists()
