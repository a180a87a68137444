"""Local differential privacy for uploads: clipping, noise, and accounting.

With it a client's upload is noisy before it leaves the client, so the server need not be
trusted, and everything made from uploads (means, directions, prior, bundle) has the same
guarantee. It costs much more accuracy than noise added by a trusted server would.
"""

from fedcert.privacy.gaussian import delta_of, epsilon_of, mu_of
from fedcert.privacy.ledger import ReleaseLedger
from fedcert.privacy.mechanism import UploadPrivacy, clipped

__all__ = [
    "ReleaseLedger",
    "UploadPrivacy",
    "clipped",
    "delta_of",
    "epsilon_of",
    "mu_of",
]
