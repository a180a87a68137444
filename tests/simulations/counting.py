"""A ClientApp that counts what its nodes were asked, to test grids with."""

from __future__ import annotations

import os
import time

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid


def counting_app() -> ClientApp:
    """Count messages; or raise, die, or sleep on the way."""
    app = ClientApp()

    @app.query("count")
    def count(message: Message, context: Context) -> Message:
        """Say who one is, and how often one was asked."""
        seen = context.state.get("seen", MetricRecord({"n": 0}))["n"] + 1
        context.state["seen"] = MetricRecord({"n": seen})
        here = {"partition": int(context.node_config["partition-id"]), "seen": seen}
        return Message(RecordDict({"m": MetricRecord(here)}), reply_to=message)

    @app.query("raise")
    def fail(message: Message, context: Context) -> Message:
        raise ValueError("no data here")

    @app.query("die")
    def die(message: Message, context: Context) -> Message:
        os._exit(1)

    @app.query("sleep")
    def sleep(message: Message, context: Context) -> Message:
        time.sleep(30)
        return Message(RecordDict(), reply_to=message)

    return app


def ask(grid: Grid, kind: str, nodes: list[int] | None = None) -> list[Message]:
    targets = nodes or list(grid.get_node_ids())
    return [
        Message(RecordDict(), dst_node_id=node, message_type=f"query.{kind}")
        for node in targets
    ]


def counts(replies: list[Message]) -> dict[int, int]:
    records = [dict(reply.content["m"]) for reply in replies]
    return {int(r["partition"]): int(r["seen"]) for r in records}
