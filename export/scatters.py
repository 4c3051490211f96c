"""What ScatterElements of an ONNX graph adds up, with less moved for it; the answers stay.

- Tables of places: int64 -> int32, half of what a batch moves to look them up. PyTorch names
  places by int64 alone; ScatterElements takes int32, too. Changed are tables whose rows are looked
  up and then name places, and nothing else.
- What is added: not a copy of it. The exporter of traces cuts it to the shape of the places, for
  it cannot see that both are of one shape.

On MovieLens-100K int32 is worth 2 to 6% of a batch, the copies up to 3% (docs/quality.md).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper

_SHAPES = ("Flatten", "Reshape")  # what may stand between a looked-up row and its scatter
Readers = dict[str, list[onnx.NodeProto]]  # tensor -> nodes that take it


def spare_copies(model: onnx.ModelProto) -> None:
    """In place. Where the shapes differ after all, the graph fails at its first request: that is
    why parity asks at several lengths before anything is released."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type == "ScatterElements":
            _, places, added = node.input
            if added in made_by and _cuts_to(places, made_by[added], made_by):
                node.input[2] = made_by[added].input[0]
    _drop_unread(model.graph)


def _drop_unread(graph: onnx.GraphProto) -> None:
    read = {value.name for value in graph.output}
    for node in reversed(graph.node):  # each stands after those that it reads
        if read.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            read.update(node.input)


def _cuts_to(places: str, node: onnx.NodeProto, made_by: Mapping[str, onnx.NodeProto]) -> bool:
    """Is `node` a Slice whose ends are the shape of `places`?"""
    ends = made_by.get(node.input[2]) if node.op_type == "Slice" else None
    return ends is not None and ends.op_type == "Shape" and ends.input[0] == places


def narrow(model: onnx.ModelProto) -> None:
    """In place."""
    readers: Readers = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    given_out = {value.name for value in model.graph.output}
    for table in model.graph.initializer:
        if table.data_type != onnx.TensorProto.INT64 or len(table.dims) != 2:
            continue
        looked_up = readers[table.name]
        if not looked_up or not all(_reads_rows(node, table.name) for node in looked_up):
            continue
        if all(_names_places(node.output[0], readers, given_out) for node in looked_up):
            places = numpy_helper.to_array(table)
            if np.abs(places).max(initial=0) <= np.iinfo(np.int32).max:
                table.CopyFrom(numpy_helper.from_array(places.astype(np.int32), table.name))
    del model.graph.value_info[:]  # types in between, some of which are others now


def _reads_rows(node: onnx.NodeProto, table: str) -> bool:
    return node.op_type == "Gather" and list(node.input).index(table) == 0


def _names_places(name: str, readers: Readers, given_out: set[str]) -> bool:
    """Is the tensor nothing but the places of ScatterElements?"""
    return name not in given_out and all(
        node.op_type == "Shape"
        or (node.op_type == "ScatterElements" and list(node.input).index(name) == 1)
        or (
            node.op_type in _SHAPES
            and node.input[0] == name
            and _names_places(node.output[0], readers, given_out)
        )
        for node in readers[name]
    )
