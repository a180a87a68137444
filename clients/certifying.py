"""The new client's part: commit to its examples, then personalize with the seed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from flwr.app import Message, MetricRecord, RecordDict

from fedcert.adapters import AdaptedModel
from fedcert.atomic import replaced_folder
from fedcert.bundles import Bundle
from fedcert.certificates import Certificate
from fedcert.certificates.by_label import ERRORS_FILE
from fedcert.clients.node import Node
from fedcert.data.examples import Examples
from fedcert.errors import BundleError, CertificateError, RefusalError
from fedcert.messages import (
    METRICS,
    REPLY,
    CertifyReply,
    CertifyRequest,
    CommitReply,
    CommitRequest,
)
from fedcert.messages.flower import arrays_of, content, payload_of
from fedcert.personalization import Personalization, commit_to, personalize
from fedcert.personalization.unlabeled import takes_unlabeled
from fedcert.protocol.seeds import SeedGrant
from fedcert.search import BatchedScorer

__all__ = ["certify", "check_base", "commit"]


def commit(message: Message, node: Node) -> RecordDict:
    """Commit to the node's support set, and keep the bundle until the seed comes.

    Nothing in the commitment reveals an example.
    """
    request = CommitRequest.from_object(payload_of(message.content))
    bundle = Bundle.from_parts(str(request.bundle).encode(), arrays_of(message.content))
    check_base(bundle, node)
    _check_server(bundle, node)
    examples = _support(node)
    commitment = commit_to(
        bundle,
        examples,
        client=node.client,
        key=node.signing_key(),
        state=node.state(),
        duplicates_are_real=node.duplicates_are_real,
        repeats_are_new=node.repeats_are_new,
        labels=node.task_of(bundle).label_set if bundle.takes_labels else None,
        unlabeled=_unlabeled(node, bundle, len(examples)),
    )
    # In a deployment the next message finds a new process: nothing lasts but files.
    bundle.save(_kept(node))
    return content(CommitReply(commitment.to_object()), key=REPLY)


def certify(message: Message, node: Node) -> RecordDict:
    """Personalize with the seed of the commitment; only the certificate leaves the node."""
    grant = SeedGrant.from_object(CertifyRequest.from_object(payload_of(message.content)).seed)
    bundle = Bundle.load(_kept(node))
    check_base(bundle, node)
    model = node.model_of(node.task_of(bundle))
    _keep_earlier(node, grant)
    examples = _support(node)
    result = personalize(
        bundle,
        model,
        examples,
        client=node.client,
        key=node.signing_key(),
        folder=node.folder,
        precision=node.settings.search.precision,
        compile_stacked=node.settings.search.compile,
        state=node.state(),
        grant=grant,
        duplicates_are_real=node.duplicates_are_real,
        unlabeled=_unlabeled(node, bundle, len(examples)),
    )
    reply = content(CertifyReply(result.certificate.to_json()), key=REPLY)
    measured = _test_error(bundle, model, node, result)
    reply[METRICS] = MetricRecord({"seconds": result.seconds, **measured})
    shutil.rmtree(_kept(node))
    return reply


def _check_server(bundle: Bundle, node: Node) -> None:
    """Refuse a server whose seeds anybody can compute before committing to examples.

    Raises
    ------
    RefusalError
        If the node has a key of its own, as in a deployment, and the server has none.
    """
    if node.key_path is not None and bundle.server is None:
        raise RefusalError(
            "the server runs without the setting server.state: key and seeds follow from the "
            "run's seed, as in a simulation, so whoever knows that could try seeds before "
            "committing to examples, and no certificate could be trusted; set server.state to "
            "a folder of the server that outlives runs; if it is set, the bundle is from "
            "before that, and another output begins anew"
        )


def _keep_earlier(node: Node, grant: SeedGrant) -> None:
    """Put aside what an earlier attempt left: it holds as before, and has more of delta.

    The server has its certificate, if that arrived; the adapter is nowhere but here.
    """
    made, adapter = node.folder / "certificate.json", node.folder / "adapter"
    try:
        earlier = Certificate.read(made)
    except CertificateError:  # there is none, or nothing that could be kept
        return
    if earlier.protocol == grant.receipt or not adapter.is_dir():
        return
    with replaced_folder(node.folder / "earlier" / earlier.digest[:16]) as staging:
        shutil.copytree(adapter, staging / "adapter")
        shutil.copy(made, staging)
        if (note := node.folder / ERRORS_FILE).is_file():
            shutil.copy(note, staging)


def _kept(node: Node) -> Path:
    return node.folder / "bundle"


def _support(node: Node) -> Examples:
    size = node.settings.certificate.support_size
    return node.scenario.support_examples(node.client, size)


def _unlabeled(node: Node, bundle: Bundle, size: int) -> Examples | None:
    """Return the node's inputs without labels, if the bundle has a use for them.

    What one run's method cannot use stays unspent for another's.
    """
    if not takes_unlabeled(bundle, size):
        return None
    return node.scenario.unlabeled_inputs(node.client)


def check_base(bundle: Bundle, node: Node) -> None:
    """Raise `BundleError` if a bundle is for another base model or other labels."""
    base = node.base_model(bundle.base_digest)
    if not base.goes_by(bundle.base_digest):
        raise BundleError(
            f"the bundle is for another base model ({bundle.base_digest[:12]} instead of "
            f"{base.digest[:12]})"
        )
    if bundle.labels != node.scenario.labels:
        raise BundleError(
            f"the bundle has the labels {', '.join(bundle.labels)}, in this order, and this "
            f"node's task has {', '.join(node.scenario.labels)}"
        )


def _test_error(
    bundle: Bundle, model: AdaptedModel, node: Node, result: Personalization
) -> dict[str, float]:
    """Measure the true error where the scenario has test examples: in simulations.

    Clients may have test examples in common, so these go through the search's scorer, which
    shares the frozen layers. Nothing in the certificate depends on them.
    """
    examples = node.scenario.test_examples(node.client)
    if examples is None:
        return {}
    certificate = result.certificate
    scorer = BatchedScorer(model, margin_tolerance=certificate.recipe.margin_tolerance)
    wrong = scorer.score(certificate.adapter_vector[None], examples).wrong
    return {"test-error": float(np.mean(wrong)), "num-test-examples": len(examples)}
