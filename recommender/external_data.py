"""Does an ONNX file point to other files? Read from its bytes, so that nothing opens them.

ONNX Runtime reads what a tensor with `external_data` names: any file it may read. Neither the
onnx package nor a runtime is needed to see this coming: a walk over the protobuf fields below
which a tensor can lie, and over no others.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# message -> number of its field -> message in that field (onnx.proto3)
MESSAGES = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph",
                  22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
}  # fmt: skip
VARINT, BYTES, FIXED = 0, 2, {1: 8, 5: 4}  # kinds of fields; bytes of those of a fixed size
NAME, EXTERNAL_DATA, DATA_LOCATION = 8, 13, 14  # of a tensor


def external_tensors(path: Path) -> list[str]:
    """Names of the tensors whose values lie elsewhere.

    Raises ValueError where `path` is cut short or no ONNX file.
    """
    if not path.stat().st_size:
        raise ValueError("it is empty")
    with path.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    found, graphs = [], 0
    for message, fields in _messages(data):
        graphs += message == "graph"
        if message == "tensor" and (fields.get(DATA_LOCATION) or EXTERNAL_DATA in fields):
            found.append(bytes(fields.get(NAME, b"")).decode(errors="replace"))
    if not graphs:
        raise ValueError("it holds no graph")
    return found


def _messages(data: memoryview) -> Iterator[tuple[str, dict[int, Any]]]:
    """Every message on the way to a tensor, with the last value of each of its fields."""
    waiting = [("model", data)]  # no recursion: a file decides how deep it nests
    while waiting:
        message, view = waiting.pop()
        inside, last = MESSAGES.get(message, {}), {}
        for number, value in _fields(view):
            last[number] = value
            if number in inside and isinstance(value, memoryview):
                waiting.append((inside[number], value))
        yield message, last


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """(number, value) of each field: an int, or a view of the bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == VARINT:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        if kind == BYTES:
            size, at = _varint(message, at)
        elif kind in FIXED:
            size = FIXED[kind]
        else:
            raise ValueError(f"it has a field of kind {kind}")
        if at + size > len(message):
            raise ValueError("it is cut short")
        yield tag >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("it is cut short")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("it has a number of more than 64 bits")
