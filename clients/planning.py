"""The planning client's part: replay recipes on its own examples, and return bounds alone."""

from __future__ import annotations

import time
from functools import partial

from flwr.app import Message, MetricRecord, RecordDict

from fedcert.adapters.constants import constant_adapters
from fedcert.bundles import Bundle
from fedcert.certificates import Recipe
from fedcert.clients.certifying import check_base
from fedcert.clients.node import Node
from fedcert.data.orders import in_drawn_order
from fedcert.errors import ProtocolError
from fedcert.messages import METRICS, REPLY, UPSTREAM, PlanReply, PlanRequest
from fedcert.messages.flower import arrays_of, content, payload_of
from fedcert.personalization.keeping import kept_of
from fedcert.planning import ClientReplay, plan_client, replays_to_config
from fedcert.protocol.seeds import recipe_for_attempt
from fedcert.randomness import derive_seed
from fedcert.search import BatchedScorer

__all__ = ["plan"]


def plan(message: Message, node: Node) -> RecordDict:
    """Replay what the server asks for, as if this client were a new one.

    Its examples are spent with that. Sizes beyond what it has are left out.

    Raises
    ------
    ProtocolError
        If this is no upstream client, or it has fewer examples than any of the sizes.
    """
    if node.role != UPSTREAM:
        raise ProtocolError("only upstream clients plan: a new client's examples certify")
    started = time.perf_counter()
    request = PlanRequest.from_object(payload_of(message.content))
    bundle = Bundle.from_parts(str(request.bundle).encode(), arrays_of(message.content))
    check_base(bundle, node)
    # New clients start with their first attempt, which has less than all of delta.
    recipes = [recipe_for_attempt(Recipe.from_config(r), 1) for r in request.recipes]
    examples = node.scenario.training_examples(node.client)
    sizes = [int(n) for n in request.sizes if n <= len(examples)]
    if not sizes:
        raise ProtocolError(f"its {len(examples)} examples are fewer than any size to plan for")
    # Before anything can depend on them.
    node.state().spent.mark(examples, "planning")
    seed = derive_seed("planning", bundle.digest, node.client)
    task = node.task_of(bundle)
    scorer = BatchedScorer(
        node.model_of(task),
        margin_tolerance=max(recipe.margin_tolerance for recipe in recipes),
    )
    replays = ClientReplay(
        bundle.prior,
        scorer,
        in_drawn_order(examples, seed).take(slice(max(sizes))),
        seed=seed,
        candidates=max(recipe.candidates for recipe in recipes),
        constants=constant_adapters(bundle.space, task.base.num_labels),
        keep=partial(kept_of, task=task, prior=bundle.prior, reference=bundle.reference),
    )
    found = replays_to_config(plan_client(replays, recipes, sizes))
    reply = content(PlanReply(found), key=REPLY)
    reply[METRICS] = MetricRecord({"seconds": time.perf_counter() - started})
    return reply
