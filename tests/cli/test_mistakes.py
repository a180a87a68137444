"""Bad input: one line on stderr, a status that is not 0, and nothing half-written."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_sums import write_sums
from simulations.federation import CLIENTS, SCENARIO
from tiny_scenario import save_tiny_base

from cli.conftest import Outcome, Run, tree
from fedcert.data import Examples
from fedcert.pool.locking import only_one
from fedcert.scenarios import load_scenario
from fedcert.simulations.simulating import Simulation


def _check(shown: Outcome, text: str) -> None:
    assert shown.code == 1
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert len(lines) == 1, shown.err
    assert re.match(rf"error: .*{text}", lines[0]), lines[0]


@pytest.fixture
def personalize(run: Run, data: Path, bundle: Path, key: Path, tmp_path: Path) -> Any:
    """Personalize with some arguments changed; check that it fails and writes nothing."""

    def attempt(text: str, **changes: object) -> None:
        options = {
            "bundle": bundle,
            "client": "device",
            "key": key,
            "output": tmp_path / "device",
        }
        source = changes.pop("data", data)
        options |= {name.replace("_", "-"): value for name, value in changes.items()}
        flat = [part for name, value in options.items() for part in (f"--{name}", value)]
        before = tree(tmp_path)
        _check(run("personalize", source, *flat), text)
        assert tree(tmp_path) == before

    return attempt


def _saved(path: Path, inputs: Any, labels: Any) -> Path:
    np.savez(path, input=inputs, label=labels)
    return path


# Examples


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("none.csv", None, r"none\.csv: no such file"),
        ("empty.csv", b"", r"empty\.csv: no column 'label'; it has none at all"),
        ("header.csv", b"a,b,label\n", r"header\.csv: holds no examples"),
        ("empty.jsonl", b"", r"empty\.jsonl: holds no examples"),
        ("empty.npz", b"", r"empty\.npz: not a readable NPZ file"),
        ("wrong.txt", b"x", r"wrong\.txt: unknown file type; use one of \.csv, \.tsv, \.jsonl"),
        (
            "size.csv",
            b"a,b,label\n.1,.2,dark\n",
            r"an image has 2 values.*takes 1 x 4 x 4 = 16",
        ),
        (
            "words.csv",
            b"a,label\nx,dark\n",
            "no column 'input'; it has a, label; nor are the other",
        ),
        ("columns.csv", b"a,b\n1,2\n", "no column 'label'; it has a, b"),
        (
            "wide.csv",
            b"p" + b",p" * 63 + b"\n",
            "it has p, p, p, p, p, p, p, p, p, p and 54 more",
        ),
        ("ragged.csv", b"a,label\n1,dark\n2\n", "line 3 has another number of fields"),
        ("binary.csv", b"\xff\xfe\x00", r"not UTF-8 text \(.*\); save it as UTF-8"),
        ("text.npz", b"a,label\n", "not a readable NPZ file .numpy.savez"),
        ("broken.jsonl", b"{\n", "line 1 is not JSON"),
        ("keys.jsonl", b'{"x": 1}\n', "line 1: no column 'label'; it has x"),
        ("torn.npz", b"PK\x03\x04 torn", "not a readable NPZ file"),
    ],
)
def test_examples_that_cannot_be_read(
    personalize: Any, tmp_path: Path, name: str, content: bytes | None, text: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    personalize(text, data=tmp_path / name)


def test_a_folder_is_no_file_of_examples(personalize: Any, tmp_path: Path) -> None:
    personalize(f"{tmp_path.name}: a folder; name a file", data=tmp_path)


def test_a_file_in_the_place_of_a_folder_spends_nothing(
    run: Run, bundle: Path, key: Path, data: Path, tmp_path: Path
) -> None:
    taken = tmp_path / "taken"
    taken.touch()
    common = ("personalize", data, "--bundle", bundle, "--client", "c", "--key", key)
    state = ("--state", tmp_path / "state")
    shown = run(*common, *state, "--output", taken)
    assert shown.code == 1
    assert "taken: there is a file where a folder is needed" in shown.err
    assert run(*common, *state, "--output", tmp_path / "free").code == 0


def test_what_is_no_adapter_is_not_replaced_and_nothing_is_spent(
    run: Run, bundle: Path, key: Path, data: Path, tmp_path: Path
) -> None:
    notes = tmp_path / "taken" / "adapter" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("precious")
    common = ("personalize", data, "--bundle", bundle, "--client", "c", "--key", key)
    state = ("--state", tmp_path / "state")
    shown = run(*common, *state, "--output", tmp_path / "taken")
    assert shown.code == 1
    assert "is there and is no adapter folder" in shown.err
    assert notes.read_text() == "precious"
    # Nor does a precision that there is not.
    shown = run(*common, *state, "--output", tmp_path / "free", "--precision", "float16")
    assert (shown.code, "choose float32 or bfloat16" in shown.err) == (1, True)
    assert run(*common, *state, "--output", tmp_path / "free").code == 0


Change = Callable[[Any, Any], tuple[Any, Any]]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda x, y: (x, np.full(len(y), "purple")),
            "row 1 has the unknown label 'purple'; the labels of .* are dark, bright",
        ),
        (lambda x, y: (x, y + 1), "unknown label '2'"),
        (lambda x, y: (x, 0 * y), "all 40 support examples have the same label"),
        (lambda x, y: (x[:0], y[:0]), "holds no examples"),
        (
            lambda x, y: (x[:4], np.array([0, 1, 0, 1])),
            "4 examples are too few: even without an error .*; label at least",
        ),
        (lambda x, y: (x[:, :, :2], y), "an image has 8 values, but this model takes"),
        (lambda x, y: (x * np.nan, y), "row 1 holds NaN or an infinity"),
        (lambda x, y: (x + 5, y), r"row 1 has values outside \[0, 1\]"),
        (lambda x, y: (x[:7], y), r"not equally long: {'label': 40, 'input': 7}"),
    ],
)
def test_examples_that_do_not_fit(
    personalize: Any, examples: Examples, tmp_path: Path, change: Change, text: str
) -> None:
    personalize(
        text, data=_saved(tmp_path / "x.npz", *change(examples.inputs, examples.labels))
    )


# Bundle, base model, key


def _copied(bundle: Path, folder: Path) -> Path:
    shutil.copytree(bundle.parent / "base-model", folder / "base-model")
    return Path(shutil.copytree(bundle, folder / "bundle"))


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


def _of_another_version(bundle: Path) -> None:
    manifest = (bundle / "bundle.json").read_text()
    (bundle / "bundle.json").write_text(manifest.replace("bundle/1", "bundle/2"))
    write_sums(bundle)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda b: _flip(b / "bundle.safetensors"), r"damaged: bundle\.safetensors is not the"),
        (lambda b: (b / "bundle.json").unlink(), r"no bundle\.json; this is not a bundle"),
        (lambda b: (b / "bundle.safetensors").unlink(), r"no bundle\.safetensors"),
        (lambda b: (b / "bundle.json").write_bytes(b"{}"), "the bundle is damaged"),
        (lambda b: (b / "bundle.json").write_bytes(b""), "the bundle is damaged"),
        (lambda b: (b / "bundle.safetensors").write_bytes(b""), "the bundle is damaged"),
        (
            _of_another_version,
            r"the format 'fedcert\.bundle/2'; this version reads 'fedcert\.bundle/1'",
        ),
    ],
)
def test_a_damaged_bundle(
    personalize: Any, bundle: Path, tmp_path: Path, damage: Callable[[Path], None], text: str
) -> None:
    copy = _copied(bundle, tmp_path)
    damage(copy)
    personalize(text, bundle=copy)


def test_a_bundle_that_is_not_there(personalize: Any, tmp_path: Path) -> None:
    personalize("none: there is no such folder or file", bundle=tmp_path / "none")


def test_a_run_folder_is_no_bundle(personalize: Any, finished: Simulation) -> None:
    inside = finished.output / "bundle"
    personalize(f"this is a run folder, and its bundle is {inside}", bundle=finished.output)


@pytest.mark.parametrize("option", ["bundle_digest", "server_key"])
@pytest.mark.parametrize("text", ["abc", "0" * 63, "g" * 64])
def test_a_part_of_a_digest(personalize: Any, option: str, text: str) -> None:
    name = option.replace("_", "-")
    personalize(f"{name} must be 64 hexadecimal digits, and '{text}' is not", **{option: text})


def test_the_certificate_of_another_client_stays(
    run: Run, data: Path, bundle: Path, tmp_path: Path
) -> None:
    def made(client: str, key: str) -> Outcome:
        words = ("--bundle", bundle, "--key", tmp_path / key, "-o", tmp_path / "mine")
        return run("personalize", data, "--client", client, *words)

    assert made("first", "own.key").code == 0
    kept = tree(tmp_path / "mine")
    for client, key in (("second", "own.key"), ("first", "other.key")):
        expected = r"mine has a certificate of the client 'first' under the key .*; choose anot"
        _check(made(client, key), expected)
    assert tree(tmp_path / "mine") == kept
    assert made("first", "own.key").code == 0


def test_nothing_is_written_over_what_is_read(
    run: Run, data: Path, bundle: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copy(data, tmp_path / f"own{data.suffix}"))
    words = ("--bundle", bundle, "--key", tmp_path / "own.key", "--client", "device")
    content = own.read_bytes()
    _check(run("commit", own, *words, "-o", own), "own.* is what is read here; choose another")
    note = tmp_path / "note.txt"
    note.write_text("mine")
    shown = run("commit", own, *words, "-o", note)
    _check(shown, "note.txt is there already, and is not a commitment; choose another name")
    shown = run("bundle", "pack", bundle, "-o", note)
    _check(shown, "note.txt is there already, and is not an archive of a bundle")
    assert (own.read_bytes(), note.read_text()) == (content, "mine")
    # Nothing was spent: the same examples are committed to, twice over the same file.
    made = tmp_path / "commitment.json"
    for _ in range(2):
        assert run("commit", own, *words, "-o", made).code == 0
    shown = run("server", "issue-seed", made, "--state", tmp_path / "server", "-o", made)
    _check(shown, "commitment.json is what is read here")


def test_the_wrong_base_model(personalize: Any, tmp_path: Path) -> None:
    save_tiny_base(tmp_path / "other", seed=1)
    personalize("has other weights or another configuration", base_model=tmp_path / "other")


def test_a_base_model_that_is_not_there(personalize: Any, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    personalize("cannot load a base model from the folder", base_model=tmp_path / "empty")
    alone = shutil.copytree(bundle, tmp_path / "alone" / "bundle")
    personalize(r"needs the base model .*, which is in no hub: name its folder", bundle=alone)


def test_a_key_that_others_can_read(personalize: Any, key: Path, tmp_path: Path) -> None:
    shared = Path(shutil.copy(key, tmp_path / "shared.key"))
    shared.chmod(0o640)
    personalize(r"open to other users \(mode 640\); run: chmod 600 ", key=shared)


def test_a_key_that_is_none(personalize: Any, tmp_path: Path) -> None:
    path = tmp_path / "not.key"
    path.write_text("secret")
    path.chmod(0o600)
    personalize("is not an unencrypted private key in PEM form", key=path)


def test_keys_show_of_something_else(run: Run, tmp_path: Path) -> None:
    _check(run("keys", "show", tmp_path / "none"), "cannot read the key .*: No such file")
    _check(run("keys", "show", tmp_path), "cannot read the key .*: Is a directory")


# verify


@pytest.fixture
def device(run: Run, data: Path, bundle: Path, key: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "device"
    shown = run(
        *("personalize", data, "--bundle", bundle, "--client", "device"),
        *("--key", key, "--output", folder),
    )
    assert shown.code == 0
    return folder


def _failed(shown: Outcome) -> dict[str, str]:
    assert shown.code == 1
    assert shown.err == ""
    report = json.loads(shown.out)
    assert report["passed"] is False
    return {c["name"]: c["detail"] for c in report["checks"] if not c["passed"]}


def test_a_tampered_certificate(run: Run, device: Path) -> None:
    path = device / "certificate.json"
    record = json.loads(path.read_text())
    record["bound"] = 0.01
    path.write_text(json.dumps(record))
    failed = _failed(run("verify", path, "--json"))
    assert {"signature", "bound"} <= set(failed)
    assert "but the record says 0.01" in failed["bound"]
    shown = run("verify", path)
    assert (shown.code, shown.err) == (1, "")
    assert re.search("this certificate does not hold: .*signature.*bound", shown.out)
    assert re.search(r"FAILED\s+bound", shown.out)
    assert record["statement"] not in shown.out


def test_another_signer_than_expected(run: Run, device: Path) -> None:
    failed = _failed(
        run("verify", device / "certificate.json", "--public-key", "0" * 64, "--json")
    )
    assert set(failed) == {"signer"}
    assert failed["signer"].endswith(f"not by {'0' * 64}")


def test_dropped_or_relabeled_data(
    run: Run, device: Path, bundle: Path, examples: Examples, tmp_path: Path
) -> None:
    def failed(x: Any, y: Any) -> dict[str, str]:
        data = _saved(tmp_path / "other.npz", x, y)
        certificate = device / "certificate.json"
        return _failed(run("verify", certificate, "-b", bundle, "--data", data, "--json"))

    message = "these are not the examples that the certificate was made from"
    assert failed(examples.inputs[:-1], examples.labels[:-1]) == {"support set": message}
    relabeled = examples.labels.copy()
    relabeled[0] = 1 - relabeled[0]
    assert failed(examples.inputs, relabeled) == {"support set": message}


def test_another_adapter(run: Run, device: Path, bundle: Path) -> None:
    _flip(device / "adapter" / "adapter_model.safetensors")
    failed = _failed(run("verify", device / "certificate.json", "-b", bundle, "--json"))
    assert set(failed) == {"adapter"}


def test_another_bundle(run: Run, device: Path, bundle: Path, tmp_path: Path) -> None:
    copy = _copied(bundle, tmp_path)
    manifest = json.loads((copy / "bundle.json").read_text())
    manifest["labels"] = ["bright", "dark"]
    (copy / "bundle.json").write_text(json.dumps(manifest))
    write_sums(copy)
    failed = _failed(run("verify", device / "certificate.json", "-b", copy, "--json"))
    assert {"bundle", "labels", "seed"} <= set(failed)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "none.json: .*No such file|No such file"),
        (b"", r"the certificate \S+none\.json is damaged: it is not JSON"),
        (b"{", r"the certificate \S+none\.json is damaged: it is not JSON"),
        (b"[" * 100_000, r"the certificate \S+none\.json is damaged: it is not JSON"),
        (b"\xff", r"the certificate \S+none\.json is damaged: it is not JSON"),
        (b"[]", r"certificate must be an object, not \[\]"),
        (b"{}", r"certificate\.\w+ is missing"),
        (b'{"format": "fedcert.certificate/9"}', r"format is 'fedcert\.certificate/9'; this"),
    ],
)
def test_a_damaged_certificate(
    run: Run, tmp_path: Path, content: bytes | None, text: str
) -> None:
    path = tmp_path / "none.json"
    if content is not None:
        path.write_bytes(content)
    _check(run("verify", path), text)


def test_verify_asks_for_what_it_needs(run: Run, finished: Simulation, tmp_path: Path) -> None:
    source = finished.output / "clients" / CLIENTS[-1] / "certificate.json"
    certificate = shutil.copy(source, tmp_path / "certificate.json")
    bundle = finished.output / "bundle"
    _check(run("verify", certificate, "--data", "x.csv"), "--data needs --bundle")
    _check(run("verify", certificate, "--adapter", "x"), "--adapter needs --bundle")
    _check(
        run("verify", certificate, "--bundle", bundle, "--data", "x.csv"),
        "--data needs the adapter folder: give --adapter",
    )
    _check(
        run("verify", certificate, "--bundle", bundle, "--adapter", tmp_path / "none"),
        "none",
    )


# simulate, report, prior inspect


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nowhere"], "there is no scenario 'nowhere'; there is digits, "),
        (["no_such_module:Class"], "there is no scenario 'no_such_module:Class'"),
        (["--set", "trainig.steps=3"], "setting 'trainig': there is no such setting"),
        (["--set", "training.steps=0"], r"setting 'training\.steps': .*\(got 0\)"),
        (["--set", "training.steps"], "override 'training.steps' is not of the form key=value"),
        (["--set", "scenario.options.color=red"], "does not take these options.*'color'"),
        (["--settings", "none.toml"], r"none\.toml: cannot be read \(No such file"),
        (["--runner", "threads"], "there is no runner 'threads'; choose ray or inprocess"),
        (["--runner", "inproces"], "inprocess; did you mean 'inprocess'"),
        (["--set", "prior.kind=gausian"], "no such prior; .*; did you mean 'gaussian'"),
        (["--set", "certificate.recipe=stel"], "this version knows .*; did you mean 'steel'"),
    ],
    ids=str,
)
def test_a_simulation_that_cannot_begin_leaves_nothing_behind(
    run: Run, tmp_path: Path, arguments: list[str], text: str
) -> None:
    scenario = [] if not arguments[0].startswith("--") else [SCENARIO]
    output = tmp_path / "run"
    _check(run("simulate", *scenario, *arguments, "-o", output, "--json"), text)
    assert not output.exists()


@pytest.mark.parametrize("words", [["simulat"], ["deploy", "locl"], ["keys", "shwo"]])
def test_a_command_that_is_none_names_its_neighbor_once(run: Run, words: list[str]) -> None:
    shown = run(*words)
    assert shown.code == 2
    assert " ".join(shown.err.split()).count("Did you mean") == 1, shown.err


def test_a_folder_with_another_run(run: Run, finished: Simulation) -> None:
    before = tree(finished.output)
    options = ("--runner=inprocess", "-o", finished.output, "--json")
    shown = run("simulate", SCENARIO, *options, "--set", "server.min_pool=13")
    _check(shown, "holds a run with other settings .*; choose another folder, or remove")
    assert tree(finished.output) == before


def test_a_folder_that_another_run_is_still_at_work_in(run: Run, finished: Simulation) -> None:
    """Certificates are done by then, and the pool's own lock is free again."""
    before = tree(finished.output)
    resumed = ("simulate", "--settings", finished.output / "settings.toml")
    with only_one(finished.output / "pool" / "run-lock", what="the run folder"):
        shown = run(*resumed, "--runner=inprocess", "-o", finished.output)
    _check(shown, "is in use by another run .process [0-9]+ on ")
    after = tree(finished.output)
    assert {name for name in after if after[name] != before.get(name)} <= {"pool/run-lock"}


def test_a_report_of_something_else(run: Run, tmp_path: Path) -> None:
    def attempt(content: str | None, text: str) -> None:
        if content is not None:
            (tmp_path / "results.json").write_text(content)
        _check(run("report", tmp_path), text)
        assert not (tmp_path / "report.html").exists()

    attempt(None, r"no results\.json; this is no run folder")
    attempt("", r"results\.json: damaged, not JSON")
    attempt("[]", "results must be a dictionary")
    attempt("{}", "results lack the required key 'format'")
    attempt('{"format": "x", "scenario": "", "clients": []}', "results have 'format' 'x'")


def test_an_inspection_of_something_else(run: Run, tmp_path: Path) -> None:
    _check(run("prior", "inspect", tmp_path), r"no bundle\.json; this is not a bundle")


# A disk that is full


def _full(_handle: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_the_old_report(
    run: Run, finished: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(finished.output)
    monkeypatch.setattr(os, "fsync", _full)
    _check(run("report", finished.output), "No space left on device")
    assert tree(finished.output) == before


def test_a_full_disk_leaves_no_key(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", _full)
    _check(run("keys", "create", tmp_path / "my.key"), "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_adapter_and_certificate(
    personalize: Any,
    device: Path,
    examples: Examples,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fresh = load_scenario("tiny_scenario:Tiny", {}).support_examples("another device", 32)
    other = _saved(tmp_path / "other.npz", fresh.inputs, fresh.labels)
    monkeypatch.setattr(os, "fsync", _full)
    personalize("No space left on device", data=other)


def test_an_output_that_is_a_file(
    run: Run, data: Path, bundle: Path, key: Path, tmp_path: Path
) -> None:
    output = tmp_path / "taken"
    output.write_text("mine")
    options = ("--bundle", bundle, "--client", "device", "--key", key, "--output", output)
    _check(run("personalize", data, *options), "taken")
    small = ("--runner=inprocess", "--set", "server.min_pool=13", "--json")
    _check(run("simulate", SCENARIO, *small, "-o", output), "taken")
    assert output.read_text() == "mine"


def test_an_interrupted_command(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedcert.simulations.simulating.simulate", interrupted)
    shown = run("simulate", SCENARIO, "-o", tmp_path / "run", "--json")
    assert (shown.code, shown.out) == (130, "")
    assert re.fullmatch(r"interrupted; what was finished is kept, .* goes on\n", shown.err)
