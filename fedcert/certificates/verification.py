"""Checking a certificate from its record alone.

These checks need no model and no data: the signature, the bound computed again, and the
words compared with the numbers. With the bundle, the adapter, or the data at hand, other
modules append their checks to the same report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from fedcert.certificates.record import FORMAT, Certificate
from fedcert.certificates.wording import TEMPLATES, Template, whole_ledger
from fedcert.errors import CertificateError, FedcertError

__all__ = ["Check", "Unchecked", "VerificationReport", "verify_record"]


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Parameters
    ----------
    name : str
        What was checked, in one or two words.
    passed : bool
        Whether it held.
    detail : str
        What was found, or what is wrong, in a sentence.
    """

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Unchecked:
    """Something that a verification left open.

    Parameters
    ----------
    name : str
        As the option that would close it, without dashes.
    detail : str
        What is open, a sentence that begins with "whether".
    option : str or None
        What to give, and where it takes more than that, what else; None if nothing can
        close it any more.
    """

    name: str
    detail: str
    option: str | None


@dataclass(frozen=True)
class VerificationReport:
    """The outcomes of all checks of one certificate, in the order they were made.

    Parameters
    ----------
    checks : tuple of Check
        A report without checks has not passed.
    unchecked : tuple of Unchecked
        What was left open. A pass says nothing about it (default: none is named).
    """

    checks: tuple[Check, ...]
    unchecked: tuple[Unchecked, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every check held."""
        return bool(self.checks) and not self.failures

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that did not hold."""
        return tuple(check for check in self.checks if not check.passed)

    @property
    def reasons(self) -> str:
        """What the failed checks found, each reason once."""
        return "; ".join(dict.fromkeys(check.detail for check in self.failures))

    def extended(self, checks: Iterable[Check]) -> VerificationReport:
        """Return a report with more checks appended."""
        return replace(self, checks=(*self.checks, *checks))

    def left_open(self, *items: Unchecked) -> VerificationReport:
        """Return a report that names more that was not checked."""
        return replace(self, unchecked=(*self.unchecked, *items))

    def require(self) -> None:
        """Raise `CertificateError` unless every check held."""
        if not self.passed:
            raise CertificateError(f"the certificate does not verify: {self.reasons}")


def verify_record(
    certificate: Certificate, *, public_key: str | None = None
) -> VerificationReport:
    """Check everything about a certificate that its record alone can show.

    A pass means: whoever holds the key claims these error counts, and *if* the counts and
    the assumptions are true, the bound follows. It never raises for a bad certificate.

    Parameters
    ----------
    certificate : Certificate
        As read or as issued.
    public_key : str or None
        The expected signer, 64 hexadecimal digits. Without it anybody's signature passes
        (default: None).
    """
    well_formed = _guarded("format", _format, certificate)
    if not well_formed.passed:
        return VerificationReport((well_formed,))
    checks = [_guarded(name, check, certificate) for name, check in _CHECKS.items()]
    if certificate.recipe.promises or certificate.promises:
        checks.append(_guarded("promises", _promises, certificate))
    report = VerificationReport((well_formed, *checks))
    if public_key is None:
        return report
    return report.extended([_signer(certificate, public_key)])


_Outcome = tuple[bool, str]


def _guarded(
    name: str, check: Callable[[Certificate], _Outcome], certificate: Certificate
) -> Check:
    try:
        return Check(name, *check(certificate))
    except FedcertError as error:
        return Check(name, False, str(error))


def _format(certificate: Certificate) -> _Outcome:
    certificate.payload()
    if Certificate.from_json(certificate.to_json()) != certificate:
        return False, "the record changes when it is written and read again"
    return True, f"well-formed {FORMAT}"


def _signature(certificate: Certificate) -> _Outcome:
    key = certificate.signature.public_key
    if not certificate.is_signed_by(key):
        return False, f"the record was changed after signing, or not signed by {key}"
    return True, f"signed by {key}"


def _bound(certificate: Certificate) -> _Outcome:
    errors, trials = certificate.errors, certificate.certified_on
    bound = certificate.recipe.bound(errors, trials, certificate.choice)
    found = f"{errors} errors on {trials} examples give {bound:.6f}"
    if certificate.bound != bound:
        return False, f"{found}, but the record says {certificate.bound!r}"
    return True, found


def _certified_on(certificate: Certificate) -> _Outcome:
    n = certificate.support_size
    expected = certificate.recipe.certifies_on(certificate.choice, n).size
    found = f"of {certificate.support_size} examples the recipe certifies on {expected}"
    if certificate.certified_on != expected:
        return False, f"{found}, but the record says {certificate.certified_on}"
    return True, found


def _delta(certificate: Certificate) -> _Outcome:
    expected = certificate.recipe.total_delta
    if certificate.delta != expected:
        return (
            False,
            f"the recipe's delta is {expected}, but the record says {certificate.delta}",
        )
    return True, f"delta is {certificate.delta}"


def _ledger(certificate: Certificate) -> _Outcome:
    if certificate.ledger != whole_ledger(certificate.recipe, certificate.support_size):
        return False, "the ledger is not the one that the recipe keeps"
    return True, "the ledger is the recipe's"


def _promises(certificate: Certificate) -> _Outcome:
    recipe, outcomes = certificate.recipe, certificate.promises or ()
    made, kept = [p.kind for p in recipe.promises], [o.kind for o in outcomes]
    if made != kept:
        return False, f"the recipe promises {made}, and the record holds {kept}"
    for promise, outcome in zip(recipe.promises, outcomes, strict=True):
        promise.check_delta(_delta_of_all_attempts(certificate))
        ground = recipe.ground(promise, certificate.choice, certificate.support_size)
        if promise.bound(outcome, ground) != outcome:
            return (
                False,
                f"the counts of {promise.kind!r} do not give the bounds that it states",
            )
        promise.check_beside(outcome, errors=certificate.errors, trials=ground.trials)
    return True, f"the counts give what is promised: {', '.join(kept)}"


def _delta_of_all_attempts(certificate: Certificate) -> float:
    """Return what a client may spend in all: a retry may be picked among its certificates."""
    recipe, receipt = certificate.recipe, certificate.protocol
    if receipt is None:
        return certificate.delta
    return max(certificate.delta, replace(recipe, delta=receipt.granted).total_delta)


def _witness(certificate: Certificate) -> _Outcome:
    receipt = certificate.protocol
    if receipt is None:
        amiss = _amiss_alone(certificate)
        return amiss is None, amiss or "unwitnessed: no server issued the seed"
    if certificate.witness != receipt.witness(certificate.recipe):
        return False, "the witness is not the one that issued the seed"
    problem = certificate.grant.problem()
    if problem is not None:
        return False, problem
    return True, f"the server {receipt.server} issued the seed of attempt {receipt.attempt}"


def _amiss_alone(certificate: Certificate) -> str | None:
    """Say what of a certificate takes a server's seed, and it has none."""
    if certificate.witness is not None:
        return "it names a witness, but carries no server's receipt of the seed"
    if certificate.recipe.randomized:
        return "its bound is randomized by a seed that no server issued"
    if any(promise.takes_server for promise in certificate.recipe.promises):
        return "it promises to hold with others, and no server counts these"
    return None


def _statement(certificate: Certificate) -> _Outcome:
    if not _worded(certificate):
        return False, "the statement does not say what the numbers say"
    return True, "the statement says what the numbers say"


def _assumptions(certificate: Certificate) -> _Outcome:
    for template in _worded(certificate) or TEMPLATES:
        if certificate.assumptions == template.assumptions(certificate):
            earlier = ", in the words of earlier versions" if template != TEMPLATES[0] else ""
            return True, f"the assumptions are complete{earlier}"
    return False, "the assumptions are not the ones that the bound rests on"


def _worded(certificate: Certificate) -> list[Template]:
    """Return the templates that make the statement of the numbers."""
    return [t for t in TEMPLATES if t.statement(certificate) == certificate.statement]


def _index(certificate: Certificate) -> _Outcome:
    recipe = certificate.recipe
    recipe.check_choice(certificate.choice, certificate.support_size)
    return True, f"candidate {certificate.candidate.index} of {recipe.hypotheses}"


def _recipe(certificate: Certificate) -> _Outcome:
    certificate.recipe.require_exportable()
    return True, f"a recipe of kind {certificate.recipe.kind!r} certifies an adapter"


def _chance(certificate: Certificate) -> _Outcome:
    # A bound at or above chance is true and useless; the detail says so.
    verdict = "better than" if certificate.nonvacuous else "no better than"
    labels = len(certificate.labels)
    return True, f"{verdict} guessing among {labels} labels, {certificate.chance:.6f}"


_CHECKS: dict[str, Callable[[Certificate], _Outcome]] = {
    "signature": _signature,
    "recipe": _recipe,
    "bound": _bound,
    "certified_on": _certified_on,
    "delta": _delta,
    "ledger": _ledger,
    "witness": _witness,
    "statement": _statement,
    "assumptions": _assumptions,
    "index": _index,
    "chance": _chance,
}


def _signer(certificate: Certificate, public_key: str) -> Check:
    found = certificate.signature.public_key
    if found != public_key.lower():
        return Check("signer", False, f"signed by {found}, not by {public_key}")
    return Check("signer", True, f"signed by the expected key {found}")
