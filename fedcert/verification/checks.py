"""Checks with the bundle and with the adapter folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fedcert.adapters.classifier_file import (
    CLASSIFIER_FILE,
    ClassifierFile,
    read_classifier,
)
from fedcert.adapters.constants import constant_adapters
from fedcert.adapters.head_file import HEAD_FILE, read_head
from fedcert.adapters.peft_format import (
    adapter_tensors,
    exported_digest,
    foreign_settings,
)
from fedcert.bundles import Bundle
from fedcert.canonical import digest_tensors
from fedcert.certificates import Certificate, Check
from fedcert.errors import AdapterError, CertificateError, FedcertError
from fedcert.personalization import candidate_seed
from fedcert.personalization.unlabeled import takes_unlabeled
from fedcert.protocol.seeds import recipe_for_attempt
from fedcert.search import draw

__all__ = ["MEMBERSHIP_TOLERANCE", "check_adapter", "check_bundle"]

# Bit equality across machines cannot be had; candidates lie much farther apart.
MEMBERSHIP_TOLERANCE = 1e-6


def check_bundle(certificate: Certificate, bundle: Bundle) -> list[Check]:
    """Check that the certificate follows from a bundle: recipe, seed and candidate."""
    digests = certificate.digests
    same = digests.bundle == bundle.digest
    checks = [
        Check(
            "bundle",
            same,
            f"the certificate names this bundle{_version(bundle)}"
            if same
            else f"the certificate names another bundle ({digests.bundle[:12]}, "
            f"this one{_version(bundle)} is {bundle.digest[:12]})",
        )
    ]
    parts: dict[str, tuple[object, object]] = {
        "base model": (digests.base_model, bundle.base_digest),
        "adapter space": (digests.space, bundle.space.digest),
        "prior": (digests.prior, bundle.prior.digest),
    }
    if not (bundle.takes_labels and certificate.label_texts is not None):
        parts["labels"] = ((certificate.labels, certificate.label_texts), (bundle.labels, None))
    for name, (claimed, actual) in parts.items():
        fits = claimed == actual
        checks.append(
            Check(name, fits, f"same {name} as the bundle's" if fits else f"another {name}")
        )
    checks.append(_recipe(certificate, bundle))
    checks.append(_seed(certificate, bundle))
    if certificate.unlabeled is not None:
        checks.append(_reads(certificate, bundle))
    if bundle.server is not None and certificate.protocol is not None:
        checks.append(_server(certificate.protocol.server, bundle.server))
    if all(check.passed for check in checks) and not certificate.recipe.refines:
        # Redrawing makes sense only from the right prior and seed; what was refined is no
        # draw, and only the data can show where it is from.
        checks.append(_candidate(certificate, bundle))
    return checks


def _version(bundle: Bundle) -> str:
    return "" if bundle.version is None else f", version {bundle.version} of its federation"


def check_adapter(certificate: Certificate, bundle: Bundle, adapter: Path) -> list[Check]:
    """Check that an adapter folder is the certified adapter, exported exactly.

    Parameters
    ----------
    certificate : Certificate
        The certificate.
    bundle : Bundle
        The bundle that it names.
    adapter : Path
        An adapter folder.

    Returns
    -------
    list of Check
        One check each for the tensors, for the configuration, and for what the folder says of
        labels and inputs.
    """
    coordinates = len(certificate.adapter_vector)
    try:
        space = bundle.space.holding(coordinates, labels=len(certificate.labels))
    except AdapterError:
        return [
            Check(
                "adapter",
                False,
                f"the certificate's adapter has {coordinates} coordinates, and this bundle's "
                f"space {bundle.space.dimension}: it belongs to another federation",
            )
        ]
    found = exported_digest(adapter)
    stated = digest_tensors(adapter_tensors(space, certificate.adapter_vector))
    same = found == certificate.digests.adapter
    export = stated == certificate.digests.adapter
    foreign = foreign_settings(bundle.space, adapter)
    return [
        Check(
            "adapter",
            same,
            "the adapter folder holds the certified tensors"
            if same
            else "the adapter folder holds other tensors than the certified ones",
        ),
        Check(
            "adapter settings",
            not foreign,
            "PEFT will apply the tensors as the certificate means"
            if not foreign
            else f"the adapter folder's configuration changes {', '.join(foreign)}",
        ),
        *_description(certificate, bundle, adapter),
        Check(
            "export",
            export,
            "the certified tensors are the candidate's"
            if export
            else "the certified tensors are not those of the candidate's vector",
        ),
    ]


def _description(certificate: Certificate, bundle: Bundle, adapter: Path) -> list[Check]:
    """Check what a folder says of itself, which whoever predicts with it goes by.

    Folders from before say nothing, and an adapter whose labels follow from the bundle may name
    none. Where texts stand for labels of the client's own they have to be there: without them
    bare names would be embedded.
    """
    about, head = read_classifier(adapter), read_head(adapter)
    named = [] if about is None else [(CLASSIFIER_FILE, about.names)]
    if head is not None:
        named.append((HEAD_FILE, head.names or ()))
    wrong = [file for file, names in named if names and names != certificate.labels]
    detail = "the adapter folder has the certified labels, in their order"
    if not any(names for _, names in named):
        detail = "the adapter folder names no label"
    if wrong:
        listed = ", ".join(dict(named)[wrong[0]])
        certified = ", ".join(certificate.labels)
        detail = f"{wrong[0]} has the labels {listed}, the certificate {certified}"
    elif about is not None and about.texts != certificate.label_texts:
        wrong = [CLASSIFIER_FILE]
        detail = f"{CLASSIFIER_FILE} describes the labels otherwise than the certificate"
    checks = [Check("adapter labels", not wrong, detail)] if named else []
    if about is not None and about.inputs is not None:
        same = about.inputs == bundle.inputs.to_config()
        detail = "the adapter folder encodes inputs as the bundle does"
        if not same:
            detail = f"{CLASSIFIER_FILE} encodes inputs otherwise than the bundle"
        checks.append(Check("adapter inputs", same, detail))
    return [*checks, *_who_answers(certificate, about)]


def _who_answers(certificate: Certificate, about: ClassifierFile | None) -> Iterator[Check]:
    """Check when a folder gives no answer, and which other adapter may answer first.

    What the certificate does not promise must not be there either: whoever predicts goes by
    the folder, and the bound is about an adapter that always answers, and alone.
    """
    outcomes = certificate.promises or ()
    margins = (each.answers_above() for each in outcomes)
    stated = next((margin for margin in margins if margin is not None), None)
    found = None if about is None else about.threshold
    if (stated, found) != (None, None):
        if stated is None:
            detail = f"{CLASSIFIER_FILE} has the threshold {found:g}, and none is promised"
        elif found == stated:
            detail = f"the adapter folder answers above the margin {stated:g}, as is promised"
        else:
            detail = f"{CLASSIFIER_FILE} does not have the promised threshold {stated:g}"
        yield Check("adapter threshold", found == stated, detail)
    exit_stated = next(filter(None, (each.early_exit() for each in outcomes)), None)
    exit_found = None if about is None else about.early_exit
    if (exit_stated, exit_found) != (None, None):
        detail = "the adapter folder names the early exit that is promised"
        if exit_found != exit_stated:
            detail = f"{CLASSIFIER_FILE} names another early exit than is promised"
        yield Check("adapter early exit", exit_found == exit_stated, detail)


def _recipe(certificate: Certificate, bundle: Bundle) -> Check:
    size, receipt = certificate.support_size, certificate.protocol
    which = f"this recipe for n = {size}"
    try:
        prescribed = bundle.recipes.recipe_for(size)
        if receipt is None:
            prescribed = prescribed.unwitnessed()
        else:
            which += f", with the delta of attempt {receipt.attempt}"
            prescribed = recipe_for_attempt(prescribed, receipt.attempt)
    except CertificateError as error:
        return Check("recipe table", False, str(error))
    if certificate.recipe != prescribed:
        return Check(
            "recipe table", False, f"the bundle prescribes another recipe for n = {size}"
        )
    return Check("recipe table", True, f"the bundle prescribes {which}")


def _server(found: str, named: str) -> Check:
    if found != named:
        return Check(
            "bundle's server",
            False,
            f"the server {found} issued the seed; the bundle names {named}",
        )
    return Check("bundle's server", True, f"the server that the bundle names, {named}")


def _seed(certificate: Certificate, bundle: Bundle) -> Check:
    receipt = certificate.protocol
    if receipt is not None:
        problem = certificate.grant.problem()
        detail = f"the server {receipt.server} issued the seed for this bundle"
        return Check("seed", problem is None, problem or detail)
    unlabeled = certificate.unlabeled
    expected = candidate_seed(
        bundle.digest,
        certificate.client,
        certificate.support_size,
        certificate.label_set,
        unlabeled,
    )
    salted = unlabeled is None or unlabeled.salt == bundle.digest
    fits = salted and certificate.candidate.seed == expected
    detail = (
        "the seed follows from bundle, client and n"
        if fits
        else "the seed does not follow from bundle, client and n: it was chosen"
    )
    return Check("seed", fits, detail)


def _reads(certificate: Certificate, bundle: Bundle) -> Check:
    """Check that inputs without labels have a part at all: else they would only vary seeds."""
    try:
        fits = takes_unlabeled(bundle, certificate.support_size)
    except FedcertError as error:
        return Check("unlabeled", False, str(error))
    detail = "the bundle's method reads inputs without labels"
    if not fits:
        detail = "the certificate names inputs without labels, and the bundle's rule reads none"
    return Check("unlabeled", fits, detail)


def _candidate(certificate: Certificate, bundle: Bundle) -> Check:
    candidate, vector = certificate.candidate, certificate.adapter_vector
    number = certificate.recipe.candidate_of(certificate.choice)
    constants = constant_adapters(bundle.space, len(certificate.labels))
    try:
        [drawn] = draw(
            certificate.recipe, bundle.prior, constants, candidate.seed,
            start=number, count=1,
        )  # fmt: skip
    except CertificateError as error:
        return Check("candidate", False, str(error))
    if vector.shape != drawn.shape:
        return Check("candidate", False, "the adapter's vector has another length")
    distance = float(np.max(np.abs(drawn - vector)))
    fits = distance <= MEMBERSHIP_TOLERANCE
    if certificate.recipe.centered:
        found = f"the adapter is {'' if fits else 'not '}the center of the bundle's prior"
    elif fits:
        found = f"candidate {number} was drawn again"
    else:
        found = f"the adapter is not candidate {number} of the seed"
    return Check("candidate", fits, f"{found} (difference {distance:.1e})")
