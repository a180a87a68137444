"""Support sets as people have them: unreadable rows, repeats, and an empty client id."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import Family

from fedcert.adapters import AdaptedModel
from fedcert.bundles import Bundle
from fedcert.certificates import Certificate, Sample, verify_record
from fedcert.certificates.wording import TEMPLATES
from fedcert.data import Examples
from fedcert.data.examples import ALWAYS_WRONG
from fedcert.data.identity import collapsed_form
from fedcert.data.orders import in_drawn_order
from fedcert.errors import CertificateError, DataError, RefusalError
from fedcert.personalization import Personalization, commit_to, personalize
from fedcert.protocol.device import DeviceState
from fedcert.records.signing import sign
from fedcert.search import BatchedScorer, search
from fedcert.verification import check_data

from .conftest import KEY, SPLIT, UNION, Serve, with_input

BROKEN = (3, 11, 20)


def _broken(examples: Examples, bundle: Bundle) -> Examples:
    """Break some of the images, each in another way, and give one a label of nobody's."""
    images = np.array(examples.inputs)
    images[BROKEN[0], 0, 0, 0] = np.nan
    images[BROKEN[1], 0, 0, 0] = 1e6
    labels = np.array(examples.labels)
    labels[BROKEN[2]] = ALWAYS_WRONG
    return bundle.inputs.examples(images, labels)


@pytest.fixture(params=[UNION, SPLIT], ids=["union", "split"])
def examples(request: pytest.FixtureRequest, serve: Serve, bundle: Bundle) -> Examples:
    return _broken(serve(request.param).examples, bundle)


@pytest.fixture
def make(bundle: Bundle, model: AdaptedModel, tmp_path: Path) -> Any:
    def make(examples: Examples, **changes: Any) -> Personalization:
        arguments = {"client": "c-1", "key": KEY, "folder": tmp_path / "device"}
        return personalize(bundle, model, examples, **(arguments | changes))

    return make


def _failed(
    certificate: Certificate, bundle: Bundle, vit: Family, adapter: Path, examples: Examples
) -> list[str]:
    checks = check_data(certificate, bundle, vit.base, adapter, examples).checks
    return [check.name for check in checks if not check.passed]


def test_what_cannot_be_read_counts_as_an_error(
    make: Any, examples: Examples, bundle: Bundle, vit: Family
) -> None:
    assert sorted(np.flatnonzero(examples.labels == ALWAYS_WRONG)) == list(BROKEN)
    assert examples.raw is not None
    made = make(examples)
    certificate = made.certificate
    ordered = in_drawn_order(examples, certificate.candidate.seed)
    certifying = ordered.take(certificate.recipe.certifying(len(examples)).as_slice())
    assert certificate.support_size == len(examples)
    assert certificate.errors >= certifying.always_wrong > 0
    assert certificate.sample == Sample(unreadable=certifying.always_wrong)
    assert verify_record(certificate).passed
    assert not _failed(certificate, bundle, vit, made.adapter, examples)
    # Without them, or with one of them mended, these are not the certified examples.
    for other in (
        examples.usable,
        with_input(Examples(examples.inputs, examples.labels), 3, 1),
    ):
        assert _failed(certificate, bundle, vit, made.adapter, other) == ["support set"]


def test_and_has_no_part_in_the_choice(
    examples: Examples, bundle: Bundle, model: AdaptedModel
) -> None:
    scorer = BatchedScorer(model, margin_tolerance=1e-4)
    winners = [
        search(bundle.prior, scorer, part, seed="5" * 64, candidates=64)
        for part in (examples, examples.usable)
    ]
    assert winners[0].index == winners[1].index
    assert winners[0].errors == winners[1].errors + len(BROKEN)


def test_a_certificate_cannot_hide_it(
    make: Any, serve: Serve, bundle: Bundle, vit: Family
) -> None:
    examples = _broken(serve(UNION).examples, bundle)
    made = make(examples)
    changed = replace(made.certificate, sample=None)
    assert not verify_record(changed).passed
    checks = _failed(changed, bundle, vit, made.adapter, examples)
    assert checks == ["sample"]


# Repeats


def test_copies_are_refused_before_anything_is_spent(
    make: Any, serve: Serve, bundle: Bundle, vit: Family, tmp_path: Path
) -> None:
    examples = serve(SPLIT).examples
    # Five of each label: what the labels of the first ten are depends on last bits.
    ten = [row for label in (0, 1) for row in np.flatnonzero(examples.labels == label)[:5]]
    copied = examples.take(ten * 4)
    state = DeviceState(tmp_path / "state")
    doors: list[Any] = [
        lambda **said: make(copied, state=state, **said),
        lambda **said: commit_to(bundle, copied, client="c", key=KEY, state=state, **said),
    ]
    for door in doors:
        with pytest.raises(DataError, match="40 of the 40 support examples have an input that"):
            door()
        assert state.spent.purposes(copied) == [None] * 40
    made = make(copied, duplicates_are_real=True)
    assert made.certificate.sample == Sample(duplicates=40)
    assert not _failed(made.certificate, bundle, vit, made.adapter, copied)


def test_a_certificate_cannot_be_silent_about_copies(
    make: Any, serve: Serve, bundle: Bundle, vit: Family
) -> None:
    examples = serve(SPLIT).examples
    copied = examples.take([*range(len(examples)), 0, 0, 1])
    made = make(copied, duplicates_are_real=True)
    for template in TEMPLATES:
        silent = replace(made.certificate, sample=None)
        silent = replace(
            silent,
            statement=template.statement(silent),
            assumptions=template.assumptions(silent),
        )
        signature = replace(silent.signature, value=sign(KEY, silent.payload()))
        silent = replace(silent, signature=signature)
        assert verify_record(silent).passed  # the record alone cannot show it
        assert _failed(silent, bundle, vit, made.adapter, copied) == ["sample"]


def test_repeats_of_an_earlier_sample_are_in_the_certificate(
    make: Any, serve: Serve, tmp_path: Path
) -> None:
    state, examples = DeviceState(tmp_path / "state"), serve(SPLIT).examples
    state.spent.mark(examples.take(slice(6)), "training an upload")
    with pytest.raises(RefusalError, match="6 of the 40 examples are already spent on"):
        make(examples, state=state)
    said = {"state": state, "repeats_are_new": True}
    assert make(examples, **said).certificate.sample == Sample(repeats=6)
    assert make(examples, state=state).certificate.sample == Sample(repeats=6)


# Digests of before


def test_a_support_digest_of_before_still_verifies(
    make: Any, serve: Serve, bundle: Bundle, vit: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, examples = make(serve(UNION).examples), serve(UNION).examples
    digests = replace(
        made.certificate.digests,
        support=examples.multiset_digest(made.certificate.candidate.seed, collapsed_form),
    )
    unsigned = replace(made.certificate, digests=digests)
    value = sign(KEY, unsigned.payload())
    older = replace(unsigned, signature=replace(unsigned.signature, value=value))
    assert verify_record(older).passed
    assert not _failed(older, bundle, vit, made.adapter, examples)


# Clients without a name


@pytest.mark.parametrize("client", ["", "  ", "a\n"])
def test_what_issue_would_refuse_is_refused_before_anything_is_spent(
    make: Any, serve: Serve, bundle: Bundle, tmp_path: Path, client: str
) -> None:
    state, examples = DeviceState(tmp_path / "state"), serve(UNION).examples
    with pytest.raises(CertificateError, match="is no client id"):
        make(examples, client=client, state=state)
    with pytest.raises(CertificateError, match="is no client id"):
        commit_to(bundle, examples, client=client, key=KEY, state=state)
    unnamed = replace(bundle, labels=("other", ""))
    with pytest.raises(CertificateError, match=r"labels\[1\] must be text"):
        commit_to(unnamed, examples, client="c", key=KEY, state=state)
    assert state.spent.purposes(examples) == [None] * UNION
    assert not list((tmp_path / "state" / "openings").glob("*"))
