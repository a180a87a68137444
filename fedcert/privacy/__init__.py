"""Differential privacy: clipping, noise, and accounting.

Local (`UploadPrivacy`): a client's upload is noisy before it leaves the client, and everything
made from uploads (means, directions, prior, bundle) has the same guarantee. The server need not
be trusted by a client that states its demand itself (`PrivacyDemand`); the others add the noise
that the run's settings, and so the server, ask for. It costs much more accuracy than noise
added by a trusted server.

Central (`MeanPrivacy`, and `RoundsPrivacy` over rounds): the server sees plain uploads, and
publishes their noised mean alone.
"""

from fedcert.privacy.central import MeanPrivacy
from fedcert.privacy.demand import PrivacyDemand
from fedcert.privacy.gaussian import delta_of, epsilon_of, mu_of
from fedcert.privacy.ledger import ReleaseLedger
from fedcert.privacy.mechanism import GaussianPrivacy, UploadPrivacy, clipped
from fedcert.privacy.rounds import RoundsPrivacy, dealt_clients

__all__ = [
    "GaussianPrivacy",
    "MeanPrivacy",
    "PrivacyDemand",
    "ReleaseLedger",
    "RoundsPrivacy",
    "UploadPrivacy",
    "clipped",
    "dealt_clients",
    "delta_of",
    "epsilon_of",
    "mu_of",
]
