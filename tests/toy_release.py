"""A release of the toy model that loads in a second, and a Triton for it that can go and come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import toy
from bento_process import write_release
from triton_process import Returning

from recommender.contract import RECOMMENDER_ONNX, RECOMMENDER_TORCHSCRIPT
from serving import tritonserver


def toy_release(folder: Path, models: tuple[str, ...] = (RECOMMENDER_ONNX,)) -> Path:
    """The repository, below `folder`."""
    repository = folder / "repository"
    toy.write_onnx(folder / "model.onnx")
    toy.add_model(repository, RECOMMENDER_ONNX, "onnxruntime", folder / "model.onnx")
    if RECOMMENDER_TORCHSCRIPT in models:
        toy.write_torchscript(folder / "model.pt")
        toy.add_model(repository, RECOMMENDER_TORCHSCRIPT, "pytorch", folder / "model.pt")
    write_release(repository, toy.LIMITS, items=toy.ITEMS - 1, models=models)
    return repository


def beside(triton: Returning, **more: str) -> dict[str, str]:
    """Settings of a service that this Triton answers."""
    return {
        "RECSERVE_REPOSITORY": str(triton.repository),
        "RECSERVE_TRITON": f"grpc://127.0.0.1:{triton.ports.grpc}",
        "RECSERVE_DEADLINE_MS": "2000",  # a loaded test machine is no outage
        **more,
    }


@contextmanager
def returning(folder: Path, models: tuple[str, ...] = (RECOMMENDER_ONNX,)) -> Iterator[Returning]:
    """A Triton that has loaded it."""
    server = Returning(toy_release(folder, models), folder / "triton.log")
    try:
        yield server
    finally:
        tritonserver.stop(server.process)
