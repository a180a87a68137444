"""What messages say beside their arrays: on the wire as before they had classes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from fedcert import messages
from fedcert.errors import ProtocolError
from fedcert.messages import (
    AdapterReply,
    AdapterRequest,
    AverageRequest,
    BaseRequest,
    CertifyReply,
    CertifyRequest,
    CommitReply,
    CommitRequest,
    HelloReply,
    Payload,
    PlanReply,
    PlanRequest,
    QuestionRequest,
    WarmRequest,
)
from fedcert.messages.flower import content, payload_of

ADAPTER: dict[str, Any] = {"space": {"rank": 2}, "training": {"steps": 3}, "seed": 7}
ON_THE_WIRE: list[tuple[Payload, dict[str, Any]]] = [
    (
        HelloReply("a", "new", 1, "0.9"),
        {"client": "a", "role": "new", "protocol": 1, "version": "0.9"},
    ),
    (
        HelloReply("a", "upstream", 1, "0.9", plans=True),
        {"client": "a", "role": "upstream", "protocol": 1, "version": "0.9", "plans": True},
    ),
    (AdapterRequest({"rank": 2}, {"steps": 3}, 7), ADAPTER),
    (AdapterReply("00ff"), {"space": "00ff"}),
    (AdapterReply("00ff", 0.5), {"space": "00ff", "mu": 0.5}),
    (
        QuestionRequest({"rank": 2}, {"steps": 3}, 7, {"kind": "mean", "words": {}}),
        {**ADAPTER, "question": {"kind": "mean", "words": {}}},
    ),
    (
        AverageRequest({"rank": 2}, {"kind": "fedavg"}, 7, 1),
        {"space": {"rank": 2}, "method": {"kind": "fedavg"}, "seed": 7, "round": 1},
    ),
    (
        WarmRequest({"rank": 8}, {"rank": 2}, {"steps": 3}, 4, 7),
        {
            "trunk": {"rank": 8},
            "space": {"rank": 2},
            "training": {"steps": 3},
            "done": 4,
            "seed": 7,
        },
    ),
    (
        BaseRequest({"rank": 8}, "00ff", {"rounds": 1}),
        {"trunk": {"rank": 8}, "digest": "00ff", "about": {"rounds": 1}},
    ),
    (PlanRequest("{}", [{}], [16]), {"bundle": "{}", "recipes": [{}], "sizes": [16]}),
    (PlanReply([[1]]), {"replays": [[1]]}),
    (CommitRequest("{}"), {"bundle": "{}"}),
    (CommitReply({"root": "00"}), {"commitment": {"root": "00"}}),
    (CertifyRequest({"seed": "00"}), {"seed": {"seed": "00"}}),
    (CertifyReply("{}"), {"certificate": "{}"}),
]


@pytest.mark.parametrize(("payload", "wire"), ON_THE_WIRE, ids=lambda p: type(p).__name__)
def test_a_payload_is_the_object_that_earlier_versions_know(
    payload: Payload, wire: dict[str, Any]
) -> None:
    assert payload.to_object() == wire
    assert payload_of(content(payload)) == wire
    assert type(payload).from_object(wire) == payload
    # What a later version adds is none of this one's business.
    assert type(payload).from_object(wire | {"later": 1}) == payload


def test_every_payload_is_on_the_wire_here() -> None:
    known = {name for name in messages.__all__ if isinstance(getattr(messages, name), type)}
    assert known == {type(payload).__name__ for payload, _ in ON_THE_WIRE} | {"Payload"}


def test_a_request_that_lacks_something_says_what() -> None:
    expected = "the message lacks seed, training; its sender has another version of fedcert"
    with pytest.raises(ProtocolError, match=f"^{re.escape(expected)}$"):
        AdapterRequest.from_object({"space": {}})


def test_the_identity_of_an_adapter_does_not_depend_on_the_question() -> None:
    question = {"kind": "mean", "words": {}}
    assert (
        QuestionRequest({}, {}, 1, question).identity() == AdapterRequest({}, {}, 1).identity()
    )


def test_the_page_lists_every_type_of_message() -> None:
    page = (Path(__file__).parents[2] / "docs" / "flower.md").read_text(encoding="utf-8")
    names = ("HELLO", "TRAIN", "PLAN", "CONTRIBUTE", "COMMIT", "CERTIFY")
    assert all(f"| `{getattr(messages, name)}` |" in page for name in names)
