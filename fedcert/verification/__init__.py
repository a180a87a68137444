"""Verifying a certificate against the things that it speaks about.

`fedcert.certificates.verify_record` needs only the record. Here the bundle shows that the
adapter is one of the paid-for candidates, the adapter folder that it is the certified one, and
the data that the errors were counted right and the choice was the recipe's. `verify` makes
every check that it was given the means for, and says what it did not check.
"""

from typing import TYPE_CHECKING

from fedcert.lazy import exporting

if TYPE_CHECKING:
    from fedcert.verification.checks import check_adapter, check_bundle
    from fedcert.verification.data import check_data
    from fedcert.verification.report import verify

__all__ = ["check_adapter", "check_bundle", "check_data", "verify"]

# A record is verified without a model library.
__getattr__ = exporting(
    __name__,
    {
        "check_adapter": "fedcert.verification.checks",
        "check_bundle": "fedcert.verification.checks",
        "check_data": "fedcert.verification.data",
        "verify": "fedcert.verification.report",
    },
)
