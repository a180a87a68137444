"""A claim about anybody's own classifier, from a count of errors alone."""

from __future__ import annotations

from dataclasses import dataclass

from fedcert.certificates.bounds import (
    binomial_upper_bound,
    budget_of,
    confidence,
    uniform_weight,
)
from fedcert.errors import CertificateError

__all__ = ["Claim", "certify"]


@dataclass(frozen=True)
class Claim:
    """What a count of errors proves about a classifier.

    Attributes
    ----------
    errors : int
        Wrong labels among the certifying examples.
    n : int
        Number of certifying examples.
    delta : float
        Probability, over the draw of the examples, that the claim is false.
    candidates : int
        How many classifiers were compared on these examples.
    bound : float
        The error probability is at most this: a multiple of 1e-6 in (0, 1].
    """

    errors: int
    n: int
    delta: float
    candidates: int
    bound: float

    @property
    def statement(self) -> str:
        """The claim in a sentence, with what it takes for granted."""
        chosen = (
            "it was fixed before these examples were looked at"
            if self.candidates == 1
            else f"it is one of {self.candidates} that were fixed before these examples were "
            "looked at"
        )
        return (
            f"With probability at least {confidence(self.delta)} over the draw of the {self.n} "
            f"examples, the classifier's probability of a wrong label on a fresh example is at "
            f"most {self.bound:.6f}: it was wrong on {self.errors} of {self.n}. The examples "
            f"are an i.i.d. sample of what the classifier will meet, of a size that was fixed "
            f"without regard to their labels; all of them count, and {chosen}."
        )


def certify(errors: int, n: int, *, delta: float = 0.05, candidates: int = 1) -> Claim:
    """Bound the error probability of a classifier, whatever it is made of.

    Parameters
    ----------
    errors : int
        Wrong labels among the examples; an example that could not be evaluated is one.
    n : int
        Number of examples, an i.i.d. sample that neither training nor any choice has seen.
    delta : float (default: 0.05)
        Probability that the claim is false.
    candidates : int (default: 1)
        How many classifiers were compared on these examples; each pays an equal share of
        delta (Langford, JMLR 6, 2005, the Occam's razor bound).

    Returns
    -------
    Claim
        With the ``bound`` and a ``statement`` in words.

    Raises
    ------
    CertificateError
        If the counts are impossible, or delta does not lie between 0 and 1.

    Examples
    --------
    >>> claim = certify(errors=3, n=64)
    >>> claim.bound
    0.116717
    """
    if not 0 < delta < 1:
        raise CertificateError(f"delta must lie between 0 and 1, not {delta}")
    if candidates < 1:
        raise CertificateError(f"candidates must be at least 1, not {candidates}")
    if n < 1:
        raise CertificateError(f"n must be at least 1, not {n}")
    budget = budget_of(delta, uniform_weight(candidates))
    return Claim(errors, n, delta, candidates, binomial_upper_bound(errors, n, budget))
