"""Flower records from and to the library's own types: the one module here that knows Flower.

Server and client side both need it, and neither may import the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from fedcert.canonical import canonical_json
from fedcert.errors import FedcertError
from fedcert.messages import ARRAYS, MANIFEST, REPLY, Payload

__all__ = ["arrays_of", "content", "failure_cause", "payload_of", "reply_of", "size_of"]

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_LONGEST_CAUSE = 300
# A certificate of a million coordinates takes 11 million characters.
_LONGEST_PAYLOAD = 64 * 2**20


def content(
    payload: Mapping[str, Any] | Payload,
    arrays: Mapping[str, npt.NDArray[Any]] | None = None,
    *,
    key: str = MANIFEST,
) -> RecordDict:
    """Pack a payload, and named arrays, into the records of one message.

    Parameters
    ----------
    payload : Payload or Mapping
        What the message says, as a JSON object.
    arrays : Mapping, optional
        Named arrays that go with it.
    key : str (default: `MANIFEST`)
        Name of the record that holds the JSON object.

    Returns
    -------
    RecordDict
        Records for a message.
    """
    said = payload.to_object() if isinstance(payload, Payload) else dict(payload)
    records = RecordDict({key: ConfigRecord({"json": canonical_json(said).decode()})})
    if arrays is not None:
        records[ARRAYS] = ArrayRecord(
            {name: Array(np.ascontiguousarray(array)) for name, array in arrays.items()}
        )
    return records


def payload_of(records: RecordDict, key: str = MANIFEST) -> dict[str, Any]:
    """Return the payload of a message.

    Raises
    ------
    FedcertError
        If there is none, as in a message of another library or version, or it is too long.
    """
    record = records.get(key)
    if not isinstance(record, ConfigRecord) or not isinstance(record.get("json"), str):
        raise FedcertError(f"the message has no {key!r} record; its sender is not fedcert")
    text = str(record["json"])
    if len(text) > _LONGEST_PAYLOAD:
        raise FedcertError(
            f"the message's {key!r} record has {len(text):,} characters, more than "
            f"{_LONGEST_PAYLOAD:,}"
        )
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FedcertError(f"the message's {key!r} record is not JSON") from error
    if not isinstance(payload, dict):
        raise FedcertError(f"the message's {key!r} record is not a JSON object")
    return payload


def arrays_of(records: RecordDict, *, most: int | None = None) -> dict[str, npt.NDArray[Any]]:
    """Return the named arrays of a message; an empty dict if it has none.

    Parameters
    ----------
    records : RecordDict
        The records of a message.
    most : int, optional
        Most bytes of all arrays together. It is compared before anything is decoded, since
        decoding makes copies.

    Raises
    ------
    FedcertError
        If they are too large, or the bytes of an array are damaged.
    """
    record = records.get(ARRAYS)
    if not isinstance(record, ArrayRecord):
        return {}
    size = sum(len(array.data) for array in record.values())
    if most is not None and size > most:
        raise FedcertError(
            f"the message's arrays have {size:,} bytes; at most {most:,} are taken"
        )
    return {name: _array(name, array) for name, array in record.items()}


def _array(name: str, packed: Array) -> npt.NDArray[Any]:
    try:
        array: object = packed.numpy()
    except Exception as error:  # NumPy raises many types on damaged bytes
        raise FedcertError(f"the message's array {name!r} cannot be read: {error}") from error
    if not isinstance(array, np.ndarray):  # NumPy takes an archive of arrays as well
        raise FedcertError(f"the message's array {name!r} cannot be read: it is not an array")
    return array


def reply_of(message: Message) -> dict[str, Any]:
    """Return the payload of a client's reply.

    Raises
    ------
    FedcertError
        If the client failed; the message is the cause, in one line.
    """
    if message.has_error():
        raise FedcertError(failure_cause(message.error.reason or f"code {message.error.code}"))
    payload = payload_of(message.content, REPLY)
    if "failed" in payload:
        raise FedcertError(failure_cause(str(payload["failed"])))
    return payload


def failure_cause(reason: str) -> str:
    """Reduce an error's reason, maybe a colored traceback, to its last line.

    Terminals and files get it as it is, so what cannot be printed is replaced.
    """
    lines = [line.strip() for line in _ANSI.sub("", reason).splitlines() if line.strip()]
    last = lines[-1][:_LONGEST_CAUSE] if lines else "no reason given"
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in last)


def size_of(records: RecordDict) -> int:
    """Return the bytes of a message's arrays and strings, with eight for a number."""
    total = 0
    for record in records.values():
        if isinstance(record, ArrayRecord):
            total += sum(len(array.data) for array in record.values())
        else:
            total += sum(_bytes_of(value) for value in record.values())
    return total


def _bytes_of(value: object) -> int:
    if isinstance(value, list):
        return sum(_bytes_of(item) for item in value)
    if isinstance(value, str):
        return len(value.encode(errors="surrogatepass"))
    # Numbers have one size, so that a run counts the same each time, timings and all.
    return len(value) if isinstance(value, bytes) else 8
