"""A graph -> `model.pt`: traced TorchScript, argument names those of the contract.

Without paths of the machine that built it. A process numbers the classes that it traces, so the
same graph gives the same bytes from one process to the next, not within one.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path

import torch
from torch import nn

from export.examples import example
from recommender.contract import Limits

FILE = "model.pt"


def write_torchscript(graph: nn.Module, limits: Limits, path: Path) -> None:
    """Trace and save. What a trace freezes by mistake, the parity check over other batches and
    lengths finds."""
    graph = graph.eval().requires_grad_(False)  # else loaded outputs refuse .numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in favour of torch.export; Triton serves it
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            graph,
            tuple(torch.from_numpy(a) for a in example(limits).values()),
            check_trace=False,
        )
        content = io.BytesIO()
        torch.jit.save(traced, content)
    _write_plain(content, path)


def _write_plain(content: io.BytesIO, path: Path) -> None:
    """Without what differs from one save to the next, and the source paths of this machine."""
    with zipfile.ZipFile(content) as saved, zipfile.ZipFile(path, "w") as plain:
        for name in saved.namelist():
            _, _, inside = name.partition("/")
            if not inside.endswith(".debug_pkl") and inside != ".data/serialization_id":
                plain.writestr(zipfile.ZipInfo(f"model/{inside}"), saved.read(name))
