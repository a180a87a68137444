"""Certificates: bounds, recipes, the signed record, and its verification.

Needs NumPy, SciPy, cryptography, and rfc8785 alone, so that a verifier installs no model
library; a test asserts it.
"""

from fedcert.certificates.bounds import (
    GRID,
    WEIGHT_DENOMINATOR,
    binomial_upper_bound,
    budget_of,
    hoeffding_upper_bound,
    uniform_weight,
)
from fedcert.certificates.claims import Claim, certify
from fedcert.certificates.issuing import check_client, check_issuable, issue
from fedcert.certificates.kl_bounds import bounded_loss_upper_bound
from fedcert.certificates.promises import (
    AbstentionOutcome,
    AbstentionPromise,
    Answers,
    Evidence,
    GainOutcome,
    GainPromise,
    Ground,
    Outcome,
    Promise,
    SetsOutcome,
    SetsPromise,
    SimultaneousOutcome,
    SimultaneousPromise,
)
from fedcert.certificates.recipes import (
    Choice,
    Chosen,
    DefaultRecipe,
    FirstStage,
    HybridRecipe,
    LedgerEntry,
    MixedUnionRecipe,
    PosteriorSplitRecipe,
    Recipe,
    RecipeTable,
    Session,
    Span,
    SplitRecipe,
    SteelRecipe,
    SwapRecipe,
    UnionRecipe,
    WeightedUnionRecipe,
)
from fedcert.certificates.record import FORMAT, Candidate, Certificate, Digests, Signature
from fedcert.certificates.sample import Sample
from fedcert.certificates.verification import (
    Check,
    Unchecked,
    VerificationReport,
    verify_record,
)

__all__ = [
    "FORMAT",
    "GRID",
    "WEIGHT_DENOMINATOR",
    "AbstentionOutcome",
    "AbstentionPromise",
    "Answers",
    "Candidate",
    "Certificate",
    "Check",
    "Choice",
    "Chosen",
    "Claim",
    "DefaultRecipe",
    "Digests",
    "Evidence",
    "FirstStage",
    "GainOutcome",
    "GainPromise",
    "Ground",
    "HybridRecipe",
    "LedgerEntry",
    "MixedUnionRecipe",
    "Outcome",
    "PosteriorSplitRecipe",
    "Promise",
    "Recipe",
    "RecipeTable",
    "Sample",
    "Session",
    "SetsOutcome",
    "SetsPromise",
    "Signature",
    "SimultaneousOutcome",
    "SimultaneousPromise",
    "Span",
    "SplitRecipe",
    "SteelRecipe",
    "SwapRecipe",
    "Unchecked",
    "UnionRecipe",
    "VerificationReport",
    "WeightedUnionRecipe",
    "binomial_upper_bound",
    "bounded_loss_upper_bound",
    "budget_of",
    "certify",
    "check_client",
    "check_issuable",
    "hoeffding_upper_bound",
    "issue",
    "uniform_weight",
    "verify_record",
]
