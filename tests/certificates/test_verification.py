"""Verification from the record alone: forgeries fail by recomputation or by signer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from fedcert.certificates import (
    Certificate,
    Check,
    Choice,
    FirstStage,
    HybridRecipe,
    LedgerEntry,
    Recipe,
    SplitRecipe,
    SteelRecipe,
    UnionRecipe,
    VerificationReport,
    verify_record,
)
from fedcert.certificates.bounds import binomial_upper_bound
from fedcert.certificates.promises import GainOutcome, GainPromise
from fedcert.certificates.wording import TEMPLATES, Template
from fedcert.records.signing import public_hex
from fedcert.simulations.benchmarks.recipes import GibbsRecipe, KnownBestRecipe, VoteRecipe

from .conftest import ATTACKER, KEY, Issuer


def resigned(certificate: Certificate) -> Certificate:
    """Sign a changed record with a key that the forger does have."""
    signature = replace(certificate.signature, public_key=public_hex(ATTACKER))
    changed = replace(certificate, signature=signature)
    return changed.signed(ATTACKER)


def failed(report: VerificationReport) -> set[str]:
    return {check.name for check in report.failures}


def test_an_honest_certificate_passes_every_check(make: Issuer) -> None:
    report = verify_record(make(), public_key=public_hex(KEY))
    assert report.passed
    assert report.failures == ()
    assert [check.name for check in report.checks] == [
        "format",
        "signature",
        "recipe",
        "bound",
        "certified_on",
        "delta",
        "ledger",
        "witness",
        "statement",
        "assumptions",
        "index",
        "chance",
        "signer",
    ]


FORGERIES: dict[str, tuple[Callable[[Certificate], Certificate], str]] = {
    "a lower bound": (lambda c: replace(c, bound=0.1), "bound"),
    "the last digit of the bound": (lambda c: replace(c, bound=c.bound - 1e-6), "bound"),
    "fewer errors": (lambda c: replace(c, errors=0), "bound"),
    "more errors than examples": (lambda c: replace(c, errors=99), "bound"),
    "more certifying examples": (lambda c: replace(c, certified_on=800), "certified_on"),
    "fewer examples": (lambda c: replace(c, support_size=40), "certified_on"),
    "a smaller delta": (lambda c: replace(c, delta=0.01), "delta"),
    "a recipe with a smaller delta": (
        lambda c: replace(c, recipe=UnionRecipe(candidates=20_000, delta=0.01), delta=0.01),
        "bound",
    ),
    "fewer candidates": (
        lambda c: replace(c, recipe=UnionRecipe(candidates=2_000, delta=0.05)),
        "bound",
    ),
    "another recipe": (
        lambda c: replace(c, recipe=SteelRecipe(candidates=20_000, delta=0.05)),
        "bound",
    ),
    "a split that was none": (
        lambda c: replace(c, recipe=SplitRecipe(candidates=20_000, delta=0.05)),
        "certified_on",
    ),
    "a looser tolerance": (
        lambda c: replace(c, recipe=replace(c.recipe, margin_tolerance=0.0)),
        "statement",
    ),
    "an empty ledger": (lambda c: replace(c, ledger=()), "ledger"),
    "a cheaper ledger": (
        lambda c: replace(c, ledger=(LedgerEntry("luck", 0.0),)),
        "ledger",
    ),
    "a stronger sentence": (lambda c: replace(c, statement="It never errs."), "statement"),
    "a witness out of thin air": (lambda c: replace(c, witness="the moon"), "witness"),
    "more labels": (lambda c: replace(c, labels=(*c.labels, "x")), "statement"),
    "no assumptions": (lambda c: replace(c, assumptions=()), "assumptions"),
    "one assumption fewer": (
        lambda c: replace(c, assumptions=c.assumptions[1:]),
        "assumptions",
    ),
    "an index beyond M": (
        lambda c: replace(c, candidate=replace(c.candidate, index=20_000)),
        "index",
    ),
    "equal labels": (lambda c: replace(c, labels=("a", "a")), "format"),
    "a bound that is no number": (lambda c: replace(c, bound=float("nan")), "format"),
    "labels that will not come back": (
        lambda c: replace(c, labels=list(c.labels)),  # type: ignore[arg-type]
        "format",
    ),
    "a vector that is none": (
        lambda c: replace(c, candidate=replace(c.candidate, vector="")),
        "format",
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_signed_by_the_forger_fails_by_recomputation(make: Issuer, name: str) -> None:
    forge, check = FORGERIES[name]
    forged = forge(make())
    report = verify_record(resigned(forged) if check != "format" else forged)
    assert check in failed(report)
    assert "signature" not in failed(report)


@pytest.mark.parametrize(
    "name", [name for name, (_, check) in FORGERIES.items() if check != "format"]
)
def test_a_change_after_signing_breaks_the_signature(make: Issuer, name: str) -> None:
    forge, _ = FORGERIES[name]
    report = verify_record(forge(make()))
    assert "signature" in failed(report)
    [check] = [check for check in report.failures if check.name == "signature"]
    assert "changed after signing, or not signed by" in check.detail


def test_a_consistent_forgery_fails_by_its_signer(make: Issuer) -> None:
    forged = make(errors=0, key=ATTACKER)
    assert verify_record(forged).passed
    report = verify_record(forged, public_key=public_hex(KEY))
    assert failed(report) == {"signer"}
    assert report.failures[0].detail == (
        f"signed by {public_hex(ATTACKER)}, not by {public_hex(KEY)}"
    )


def test_another_public_key_cannot_be_pasted_in(make: Issuer) -> None:
    certificate = make(key=ATTACKER)
    pasted = replace(certificate.signature, public_key=public_hex(KEY))
    report = verify_record(replace(certificate, signature=pasted))
    assert failed(report) == {"signature"}


FIRST_STAGES: dict[str, tuple[FirstStage | None, str]] = {
    "fewer errors": (FirstStage(errors=0, profile=(1, 2, 97, 19_900, *[0] * 37)), "bound"),
    "a lighter crowd": (FirstStage(errors=1, profile=(0, 1, 99, 19_900, *[0] * 37)), "bound"),
    "a missing crowd": (FirstStage(errors=1, profile=(0, 1, *[0] * 39)), "bound"),
    "nobody else": (FirstStage(errors=1, profile=(0, 20_000, *[0] * 39)), "bound"),
    "more choosing examples": (FirstStage(errors=1, profile=(0, 3, 97, 19_900)), "index"),
    "none": (None, "bound"),
}


@pytest.mark.parametrize("name", FIRST_STAGES)
def test_a_forged_first_stage_fails_by_recomputation(make: Issuer, name: str) -> None:
    stage = FirstStage(errors=1, profile=(0, 3, 97, 19_900, *[0] * 37))
    honest = make(HybridRecipe(candidates=20_000, delta=0.05), first_stage=stage)
    assert verify_record(honest).passed
    forged, check = FIRST_STAGES[name]
    assert check in failed(verify_record(resigned(replace(honest, first_stage=forged))))


@pytest.mark.parametrize("kind", [GibbsRecipe, VoteRecipe, KnownBestRecipe])
def test_a_recipe_that_certifies_no_adapter_fails(make: Issuer, kind: type[Recipe]) -> None:
    forged = replace(make(), recipe=kind(candidates=20_000, delta=0.05))
    assert "recipe" in failed(verify_record(resigned(forged)))


def test_details_say_what_was_found(make: Issuer) -> None:
    report = verify_record(resigned(replace(make(), bound=0.1)))
    details = {check.name: check.detail for check in report.checks}
    assert details["bound"] == (
        "3 errors on 80 examples give 0.227860, but the record says 0.1"
    )
    assert details["index"] == "candidate 1234 of 20000"
    assert details["statement"] == "the statement does not say what the numbers say"


def test_a_useless_bound_is_true_and_called_useless(make: Issuer) -> None:
    report = verify_record(make(labels=["no", "yes"], errors=40))
    assert report.passed
    assert report.checks[-1].detail == "no better than guessing among 2 labels, 0.500000"


def test_better_words_leave_certificates_as_they_are(
    make: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mended sentence is a new template: both kinds verify, and no mixture of the two."""
    old = make()
    newest = Template(
        TEMPLATES[0].version + 1,
        lambda c: TEMPLATES[0].statement(c).replace("wrong label", "mistaken label"),
        lambda c: (*TEMPLATES[0].assumptions(c), "Nobody knows the future."),
    )
    for module in ("issuing", "verification"):
        monkeypatch.setattr(f"fedcert.certificates.{module}.TEMPLATES", (newest, *TEMPLATES))
    new = make()
    assert "mistaken label" in new.statement
    assert verify_record(new).passed
    assert verify_record(old).passed
    mixed = resigned(replace(old, assumptions=new.assumptions))
    assert failed(verify_record(mixed)) == {"assumptions"}
    mixed = resigned(replace(new, assumptions=old.assumptions))
    assert failed(verify_record(mixed)) == {"assumptions"}


def test_the_bounds_own_delta_is_named_where_promises_have_the_rest(make: Issuer) -> None:
    """Without it the words would give another bound to whoever computes it by hand."""
    promise = GainPromise(share=1.0)
    recipe = SplitRecipe(candidates=10, delta=0.025, promises=(promise,))
    outcome = promise.bound(
        GainOutcome(won=3, lost=0, at_least=0.0), recipe.ground(promise, Choice(index=1), 80)
    )
    made = make(recipe, errors=4, index=1, promises=(outcome,))
    assert "With probability at least 0.95 " in made.statement
    said = "That is the delta of the bound alone, 0.025: promises have the rest of 0.05."
    assert said in made.statement
    assert made.bound == binomial_upper_bound(4, 40, 0.025)
    # Earlier certificates said "all of delta", and verify as before.
    [second] = [template for template in TEMPLATES if template.version == 2]
    words = {"statement": second.statement(made), "assumptions": second.assumptions(made)}
    earlier = resigned(replace(made, **words))
    assert said not in earlier.statement
    assert verify_record(earlier).passed
    assert (
        "the bound alone" not in make(SplitRecipe(candidates=10, delta=0.05), index=1).statement
    )


def test_other_checks_are_appended(make: Issuer) -> None:
    report = verify_record(make())
    longer = report.extended([Check("bundle", False, "another bundle")])
    assert report.passed
    assert not longer.passed
    assert longer.checks[:-1] == report.checks
    assert longer.failures == (Check("bundle", False, "another bundle"),)


def test_a_report_without_checks_has_not_passed() -> None:
    assert not VerificationReport(()).passed
