"""A graph -> `model.onnx`: dynamic batch and history length, the contract's tensor names.

The file names no path of the machine that built it and points to no other file.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from export.examples import example
from export.scatters import narrow, spare_copies
from recommender.contract import RECOMMENDER, Kind, Limits, Tensor, inputs, outputs
from recommender.errors import ReleaseError
from recommender.models.exported import Exported

FILE = "model.onnx"
OPSET = 18


def write_onnx(graph: nn.Module, limits: Limits, path: Path, kind: Kind = RECOMMENDER) -> None:
    """Export `graph` and check that names and dynamic dimensions are the contract's.

    Traced, as the TorchScript is: 1 s where torch.export takes 20, and ONNX Runtime answers 6%
    faster (measured on MovieLens-100K). What a trace freezes by mistake, the parity check over
    other batches and lengths finds. An adapted model is a program of torch.export and cannot be
    traced: its own exporter takes it.

    Raises ReleaseError where the exporter froze a dimension or renamed a tensor.
    """
    given, wanted = inputs(limits, kind), outputs(limits, kind)
    is_program = any(isinstance(module, Exported) for module in graph.modules())
    # The exporter of programs prints its progress, whatever `verbose` says.
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")  # tracing is deprecated; Triton serves TorchScript, too
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            graph.eval().requires_grad_(False),
            tuple(torch.from_numpy(a) for a in example(limits, kind).values()),
            path,
            dynamo=is_program,
            opset_version=OPSET,
            dynamic_axes={t.name: _open(t) for t in (*given, *wanted)},
            input_names=[t.name for t in given],
            output_names=[t.name for t in wanted],
        )
    model = onnx.load_model(path)
    _strip(model)
    if not is_program:
        spare_copies(model)
    narrow(model)
    _restore_unread(model, given)
    _check(model, limits, kind)
    onnx.save_model(model, path)


def _open(tensor: Tensor) -> dict[int, str]:
    """Axis -> name of those whose size a request decides."""
    return {0: "batch"} | {axis: "length" for axis, n in enumerate(tensor.dims, 1) if n == -1}


def _strip(model: onnx.ModelProto) -> None:
    """Stack traces and source paths of this machine do not belong into a release."""
    graph = model.graph
    for holder in (model, graph, *graph.node, *graph.value_info, *graph.initializer,
                   *graph.input, *graph.output, *model.functions):  # fmt: skip
        if hasattr(holder, "metadata_props"):
            del holder.metadata_props[:]
        if hasattr(holder, "doc_string"):
            holder.doc_string = ""


def _restore_unread(model: onnx.ModelProto, given: Sequence[Tensor]) -> None:
    """The tracer drops inputs that no operation reads; a caller sends them all the same."""
    kept = {value.name: value for value in model.graph.input}
    for tensor in given:
        if tensor.name not in kept:
            shape = [_open(tensor).get(axis, n) for axis, n in enumerate((-1, *tensor.dims))]
            element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
            kept[tensor.name] = onnx.helper.make_tensor_value_info(tensor.name, element, shape)
    del model.graph.input[:]
    order = [t.name for t in given]
    model.graph.input.extend(sorted(kept.values(), key=lambda v: order.index(v.name)))


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
            _check_dims(value.type.tensor_type.shape.dim, tensor)


def _check_dims(found: Sequence[onnx.TensorShapeProto.Dimension], tensor: Tensor) -> None:
    """A size that the exporter could not follow through the graph becomes the contract's, which
    ONNX Runtime and the parity check hold it to."""
    wanted = (-1, *tensor.dims)
    seen = [d.dim_value if d.HasField("dim_value") else None for d in found]
    pairs = zip(seen, wanted, strict=False)
    if len(seen) != len(wanted) or any(size not in (None, n) for size, n in pairs):
        raise ReleaseError(
            f"the exported graph has {tensor.name} as {seen}",
            remedy=f"The contract wants {list(wanted)}: mend the model's forward().",
        )
    for dim, size in zip(found, wanted, strict=True):
        if size != -1:
            dim.dim_value = size
