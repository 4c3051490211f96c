"""A graph -> `model.onnx`: dynamic batch and history length, the contract's tensor names.

The file names no path of the machine that built it and points to no other file.
"""

from __future__ import annotations

import io
import logging
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import onnx
import torch
from torch import nn

from export.examples import example
from recommender.contract import RECOMMENDER, Kind, Limits, inputs, outputs
from recommender.errors import ReleaseError

FILE = "model.onnx"
OPSET = 18


def write_onnx(graph: nn.Module, limits: Limits, path: Path, kind: Kind = RECOMMENDER) -> None:
    """Export `graph` and check that names and dynamic dimensions are the contract's.

    Raises ReleaseError where the exporter froze a dimension or renamed a tensor.
    """
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=limits.history)
    given, wanted = inputs(limits, kind), outputs(limits, kind)
    shapes = {t.name: {0: batch} | ({1: length} if -1 in t.dims else {}) for t in given}
    # The exporter prints its progress, whatever `verbose` says.
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            graph,
            tuple(torch.from_numpy(a) for a in example(limits, kind).values()),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=shapes,
            input_names=[t.name for t in given],
            output_names=[t.name for t in wanted],
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _strip(model)
    _check(model, limits, kind)
    onnx.save_model(model, path)


def _strip(model: onnx.ModelProto) -> None:
    """Stack traces and source paths of this machine do not belong into a release."""
    graph = model.graph
    for holder in (model, graph, *graph.node, *graph.value_info, *graph.initializer,
                   *graph.input, *graph.output, *model.functions):  # fmt: skip
        if hasattr(holder, "metadata_props"):
            del holder.metadata_props[:]
        if hasattr(holder, "doc_string"):
            holder.doc_string = ""


def _check(model: onnx.ModelProto, limits: Limits, kind: Kind) -> None:
    for found, wanted in (
        (model.graph.input, inputs(limits, kind)),
        (model.graph.output, outputs(limits, kind)),
    ):
        names = [v.name for v in found]
        if names != [t.name for t in wanted]:
            raise ReleaseError(
                f"the exported graph has tensors {names}",
                remedy=f"The contract wants {[t.name for t in wanted]}: mend the forward().",
            )
        for value, tensor in zip(found, wanted, strict=True):
            dims = value.type.tensor_type.shape.dim
            seen = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in dims)
            if seen != (-1, *tensor.dims):
                raise ReleaseError(
                    f"the exported graph has {tensor.name} as {list(seen)}",
                    remedy=f"The contract wants {[-1, *tensor.dims]}: mend the model's forward().",
                )
