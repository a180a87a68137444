"""The benchmark of larger models: its page, and its smallest case."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fedcert.simulations.benchmarks import scale_case, scale_models
from fedcert.simulations.benchmarks.scale_page import scale_page

ROW: dict[str, Any] = {
    "model": "decoder",
    "layers": 2,
    "precision": "float32",
    "examples": 8,
    "device": "cpu",
    "parameters": 301_000_000,
    "tokens": 512,
    "frozen_seconds": 5.25,
    "candidate_seconds": 0.256,
    "speedup_vs_peft": 1234.4,
    "speedup_range": [999.6, 1300.0],
    "largest_loss_difference": 3e-6,
    "libraries_mib": 400.4,
    "mapped_mib": 1148.0,
    "own_peak_mib": 90.0,
    "own_formula_mib": 120.0,
    "peak_mib": 1650.0,
}
MEMORY = {"rss_mib": 1700.0, "pss_mib": 900.2, "own_mib": 200.0}
RECORD: dict[str, Any] = {
    "machine": {"cores": 2, "cpu": "a processor"},
    "repeats": 3,
    "table": [ROW],
    "sharing": {"alone": MEMORY, "together": MEMORY},
}


def test_the_page_shows_speed_and_memory() -> None:
    page = scale_page(RECORD)
    assert (
        "| decoder | 301 M | float32 | 2 | 8 | 5.25 | 256.0 | 2,000 | 1,234 "
        "| 1,000 to 1,300 | 3e-06 |" in page
    )
    assert "| decoder | float32 | 2 | 400 | 1148 | 90 | 120 | 1650 | 1668 |" in page
    assert "to the formula is 0.75." in page
    assert "| each of two processes | 1700 | 900 | 200 |" in page


def test_a_gpu_has_no_memory_of_the_processor() -> None:
    page = scale_page(RECORD | {"table": [ROW | {"device": "cuda:0"}]})
    assert "seconds are those of the clock" in page
    assert "## Memory" not in page


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_a_case_measures_a_model_of_its_own(
    precision: str,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48}
    for name in ("_VIT", "_DECODER"):
        heads = {"num_attention_heads": 4}
        monkeypatch.setattr(scale_models, name, getattr(scale_models, name) | small | heads)
    scale_models.save_random_models(tmp_path)
    case = {
        "model": scale_models.DECODER,
        "layers": 1,
        "precision": precision,
        "examples": 2,
        "candidates": 4,
        "repeats": 1,
        "device": "cpu",
    }
    monkeypatch.setattr("sys.argv", ["scale_case", json.dumps(case), str(tmp_path)])
    scale_case.main()
    row = json.loads(capsys.readouterr().out)
    assert row["tokens"] == 128
    assert row["parameters"] > 32_000 * 32
    assert row["largest_loss_difference"] < (0.1 if precision == "bfloat16" else 1e-4)
    assert row["own_formula_mib"] > 128
