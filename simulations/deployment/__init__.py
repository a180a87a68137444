"""A deployed federation on one machine: SuperLink and SuperNodes, TLS, node authentication."""

from fedcert.simulations.deployment.federation import Deployment
from fedcert.simulations.deployment.nodes import NodeSetup
from fedcert.simulations.deployment.runs import FinishedRun, Submission

__all__ = ["Deployment", "FinishedRun", "NodeSetup", "Submission"]
