"""A graph -> `model.pt`: traced TorchScript, argument names those of the contract."""

from __future__ import annotations

import warnings
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
        torch.jit.save(traced, str(path))
