"""A deployed federation on one machine: SuperLink and SuperNodes, TLS, node authentication."""

from fedcert.deployment.federation import Deployment
from fedcert.deployment.nodes import NodeSetup
from fedcert.deployment.runs import FinishedRun, Submission

__all__ = ["Deployment", "FinishedRun", "NodeSetup", "Submission"]
