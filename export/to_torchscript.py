"""A graph -> `model.pt`: traced TorchScript, argument names those of the contract.

Without paths of the machine that built it. A process numbers the classes that it traces, so the
same graph gives the same bytes from one process to the next, not within one.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from export.examples import example
from recommender.contract import Limits

FILE = "model.pt"


def write_torchscript(graph: nn.Module, limits: Limits, path: Path) -> None:
    """Trace and save. What a trace freezes by mistake, the parity check over other batches and
    lengths finds."""
    content = io.BytesIO()
    torch.jit.save(traced(graph, limits), content)
    _write_plain(content, path)


def traced(graph: nn.Module, limits: Limits) -> Any:
    """The module that is saved, of a graph on the CPU: it may be moved anywhere."""
    graph = graph.eval().requires_grad_(False)  # else loaded outputs refuse .numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in favour of torch.export; Triton serves it
        module = torch.jit.trace(  # type: ignore[no-untyped-call]
            graph,
            tuple(torch.from_numpy(a) for a in example(limits).values()),
            check_trace=False,
        )
    _follow_inputs(module)
    return module


def _follow_inputs(traced: Any) -> None:
    """A trace writes the device it ran on into what creates tensors, and a server on a GPU would
    then mix two: let each be created where the tensors given to its module are."""
    for module in traced.modules():
        for name in module._c._method_names():
            graph = module._c._get_method(name).graph
            devices = [
                node
                for node in graph.findAllNodes("prim::Constant", True)
                if node.output().type().kind() == "DeviceObjType"
            ]
            if devices:
                given = next(i for i in graph.inputs() if i.type().kind() == "TensorType")
                there = graph.prependNode(graph.create("prim::device", [given], 1))
                there.output().setType(torch._C.DeviceObjType.get())
                for node in devices:
                    node.output().replaceAllUsesWith(there.output())
                    node.destroy()


def _write_plain(content: io.BytesIO, path: Path) -> None:
    """Without what differs from one save to the next, and the source paths of this machine."""
    with zipfile.ZipFile(content) as saved, zipfile.ZipFile(path, "w") as plain:
        for name in saved.namelist():
            _, _, inside = name.partition("/")
            if not inside.endswith(".debug_pkl") and inside != ".data/serialization_id":
                plain.writestr(zipfile.ZipInfo(f"model/{inside}"), saved.read(name))
