"""What arrays are called on the wire, and what a call of Triton carries besides them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from recommender.contract import Array
from recommender.errors import BadInput

WIRE_TYPES = {
    np.dtype(np.int64): "INT64",
    np.dtype(np.int32): "INT32",
    np.dtype(np.float32): "FP32",
    np.dtype(np.bool_): "BOOL",
}
Headers = Sequence[tuple[str, str]]  # of a call: the trace that it belongs to
NUMPY_TYPES: dict[str, Any] = {wire: dtype for dtype, wire in WIRE_TYPES.items()}


def wire_type(name: str, array: Array) -> str:
    if wire := WIRE_TYPES.get(array.dtype):
        return wire
    raise BadInput(
        f"input {name} is {array.dtype}",
        remedy=f"Send one of {', '.join(map(str, WIRE_TYPES))}.",
        field=name,
    )
