"""Pages that benchmarks render from their records."""

from __future__ import annotations

from typing import Any

from fedcert.simulations.benchmarks.search_page import search_page

ROW: dict[str, Any] = {
    "model": "ViT",
    "layers": 1,
    "n": 64,
    "mode": "exhaustive float32",
    "speedup_vs_peft": 30.12,
    "ms_per_candidate": 0.5,
    "gemm_share": 0.5,
    "largest_loss_difference": 1e-6,
    "labels_changed": 0.0,
}
DROPPING: dict[str, Any] = {
    "scenario": "digits",
    "prior": "diffusion",
    "candidates": 10_000,
    "n": 64,
    "clients": 20,
    "speedup": 3.21,
    "scoring_speedup": 4.0,
    "drawing_share": 0.5,
    "same_winner": 0.95,
}
FINETUNING: dict[str, Any] = {
    "scenario": "intents",
    "n": 64,
    "candidates": 1000,
    "clients": 5,
    "steps": 50,
    "batch_size": 16,
    "new_client_seconds": 1.5,
    "new_client_test_error": 0.2,
    "peft_seconds": 6.0,
    "peft_test_error": 0.18,
    "cached_seconds": 1.0,
    "cached_test_error": 0.19,
    "default_seconds": 0.2,
    "default_test_error": 0.22,
    "default_vs_peft": 0.03,
    "time_vs_peft": 0.25,
    "time_vs_cached": 1.5,
}


def _record(**changes: Any) -> dict[str, Any]:
    record = {
        "machine": {"cores": 2, "cpu": "a processor"},
        "threads": 2,
        "repeats": 5,
        "table": [ROW],
        "dropping": [DROPPING],
        "new_client_vs_finetune": FINETUNING,
        "memory": {"model": "ViT", "candidates": 100_000, "peak_mib": 133.4},
    }
    return record | changes


def test_the_search_page_shows_every_measure() -> None:
    page = search_page(_record())
    assert "| ViT | 1 | 64 | exhaustive float32 | 30.1 | 0.50 | 50% | 1e-06 | 0.0% |" in page
    assert "| digits | 20 | 10,000 | 3.2 | 4.0 | 50% | 95% |" in page
    assert "| certify the default adapter | 0.20 | 0.220 |" in page
    assert "the default adapter 0.03 times as long" in page
    assert "0.25 times as long as the PEFT loop" in page
    assert page.endswith("added 133 MiB at its peak.\n")


def test_the_search_page_leaves_out_what_could_not_be_measured() -> None:
    page = search_page(_record(new_client_vs_finetune=None, dropping=[]))
    assert "fine-tuning" not in page
    assert "Early dropping" not in page
    assert "\n\n\n" not in page


def test_the_search_page_says_what_is_still_to_be_measured() -> None:
    record = _record()
    del record["new_client_vs_finetune"]
    page = search_page(record)
    assert page.endswith("Not measured yet: a new client against fine-tuning.\n")
    assert "Early dropping" in page
