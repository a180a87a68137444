"""The new client's part: personalize from the bundle and return the certificate."""

from __future__ import annotations

import numpy as np
from flwr.app import Message, MetricRecord, RecordDict

from fedcert.adapters import AdaptedModel
from fedcert.bundle import Bundle
from fedcert.clients.node import Node
from fedcert.errors import BundleError
from fedcert.flower_records import arrays_of, content, words_of
from fedcert.messages import METRICS, REPLY
from fedcert.personalization import Personalization, personalize
from fedcert.search import exported_wrong

__all__ = ["certify"]


def certify(message: Message, node: Node) -> RecordDict:
    """Personalize on the node's support set; only the certificate leaves the node."""
    manifest = str(words_of(message.content)["bundle"])
    bundle = Bundle.from_parts(manifest.encode(), arrays_of(message.content))
    base = node.base_model()
    if base.digest != bundle.base_digest:
        raise BundleError(
            f"the bundle is for another base model ({bundle.base_digest[:12]} instead of "
            f"{base.digest[:12]})"
        )
    result = personalize(
        bundle,
        AdaptedModel(base, bundle.space),
        node.scenario.support_examples(node.client, node.settings.certificate.support_size),
        client=node.client,
        key=node.signing_key(),
        folder=node.folder,
    )
    reply = content({"certificate": result.certificate.to_json()}, key=REPLY)
    measured = _test_error(bundle, node, result)
    reply[METRICS] = MetricRecord({"seconds": result.seconds, **measured})
    return reply


def _test_error(bundle: Bundle, node: Node, result: Personalization) -> dict[str, float]:
    """Measure the true error where the scenario has test examples: in simulations."""
    examples = node.scenario.test_examples(node.client)
    if examples is None:
        return {}
    wrong = exported_wrong(
        node.base_model(),
        result.adapter,
        examples,
        spec=bundle.inputs,
        margin_tolerance=result.certificate.recipe.margin_tolerance,
    )
    return {"test-error": float(np.mean(wrong)), "num-test-examples": len(examples)}
