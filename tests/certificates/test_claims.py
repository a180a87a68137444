"""A bound for anybody's own classifier: the same as a recipe with as many candidates gives."""

from __future__ import annotations

import pytest

from fedcert.certificates import UnionRecipe
from fedcert.certificates.claims import certify
from fedcert.errors import CertificateError


@pytest.mark.parametrize("candidates", [1, 20, 1000])
@pytest.mark.parametrize(("errors", "n"), [(0, 16), (3, 64), (64, 64)])
def test_it_is_the_bound_of_a_union(errors: int, n: int, candidates: int) -> None:
    recipe = UnionRecipe(candidates=candidates, delta=0.05)
    claim = certify(errors, n, candidates=candidates)
    assert claim.bound == recipe.bound(errors, n)
    assert f"{claim.bound:.6f}" in claim.statement
    assert f"wrong on {errors} of {n}" in claim.statement


@pytest.mark.parametrize(
    "wrong",
    [
        {"errors": 65, "n": 64},
        {"errors": -1, "n": 64},
        {"errors": 0, "n": 0},
        {"errors": 0, "n": 64, "delta": 0.0},
        {"errors": 0, "n": 64, "delta": 1.0},
        {"errors": 0, "n": 64, "delta": float("nan")},
        {"errors": 0, "n": 64, "candidates": 0},
    ],
)
def test_impossible_counts_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(CertificateError):
        certify(**wrong)  # type: ignore[arg-type]


def test_no_confidence_is_rounded_up_to_certainty() -> None:
    assert "at least 0.99999999 over" in certify(0, 64, delta=1e-8).statement
