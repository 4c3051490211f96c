"""Do eager PyTorch, ONNX Runtime and TorchScript answer alike? Checked on the very files that
would be released, before anybody can see them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from export.examples import batches, single_rows
from recommender.contract import Array, Limits
from recommender.errors import ReleaseError
from recommender.models.graph import answer
from recommender.users import Users

TOLERANCE = 1e-4  # of scores

Answerer = Callable[[dict[str, Array]], Mapping[str, Array]]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """What release.json records of one format."""

    rows: int  # compared with eager
    identical: int  # of them with the same items in the same order
    largest_difference: float  # of scores


def check_parity(
    graph: nn.Module,
    files: Mapping[str, Path],
    *,
    limits: Limits,
    items: int,
    clock: int,
    users: Users,
) -> dict[str, Parity]:
    """Compare every file (model name -> model.onnx or model.pt) with `graph` on all of
    `examples.batches`, and rows alone with the same rows in their batch.

    Raises ReleaseError naming the model, the kind of input and the first difference.
    Items that change places are allowed only where their scores tie within TOLERANCE.
    """
    reports = {}
    for model, path in files.items():
        answerer = onnx_answerer(path) if path.suffix == ".onnx" else torchscript_answerer(path)
        rows, identical, largest = 0, 0, 0.0
        for name, arrays in batches(limits, items, clock, users):
            wanted = answer(graph, arrays, limits)
            _check_answered(wanted, arrays, items, name)
            seen = answerer(arrays)
            largest = max(largest, compare(wanted, seen, f"{model}, {name}"))
            identical += int((wanted["item"] == seen["item"]).all(axis=1).sum())
            rows += len(wanted["item"])
            picked = range(0, len(wanted["item"]), 16)
            for row, alone in zip(picked, single_rows(arrays, picked), strict=True):
                in_batch = {key: value[row : row + 1] for key, value in seen.items()}
                compare(in_batch, answerer(alone), f"{model}, {name}, row {row} alone")
        reports[model] = Parity(rows=rows, identical=identical, largest_difference=largest)
    return reports


def _check_answered(
    answered: Mapping[str, Array], arrays: Mapping[str, Array], items: int, where: str
) -> None:
    """Nobody with an item left to see goes without an answer: NaN weights, say, answer nothing."""
    for row in np.flatnonzero(answered["item"][:, 0] == 0):
        excluded = np.unique(arrays["exclude"][row])
        left = items - 1 - np.count_nonzero((excluded > 0) & (excluded < items))
        if left and not arrays["category_filter"][row].any():
            raise ReleaseError(
                f"the model gives no answer ({where}, row {row}) though {left} items are left",
                remedy="The release was not written; look for NaN in the run's weights.",
            )


def compare(wanted: Mapping[str, Array], seen: Mapping[str, Array], where: str) -> float:
    """The largest difference of scores; raises ReleaseError where the answers are not the same."""
    a, b = wanted["score"], seen["score"]
    finite = np.isfinite(a)
    if a.shape != b.shape or not (finite == np.isfinite(b)).all() or np.isnan(b).any():
        raise ReleaseError(
            f"parity failed ({where}): another number of answers than eager PyTorch, or NaN",
            remedy="The release was not written; mend the model or its export.",
        )
    gap = np.where(finite, np.abs(np.where(finite, a, 0) - np.where(finite, b, 0)), 0)
    swapped = wanted["item"] != seen["item"]
    if gap.max(initial=0) > TOLERANCE or (swapped & ~_tied(a)).any():
        row, rank = np.argwhere((gap > TOLERANCE) | (swapped & ~_tied(a)))[0]
        raise ReleaseError(
            f"parity failed ({where}): row {row}, rank {rank + 1}: item "
            f"{seen['item'][row, rank]} with {b[row, rank]:.6f} instead of item "
            f"{wanted['item'][row, rank]} with {a[row, rank]:.6f}",
            remedy="The release was not written; mend the model or its export.",
        )
    return float(gap.max(initial=0))


def _tied(score_BK: Array) -> Array:
    """[B, K]: a neighbour in the list has the same score within TOLERANCE. The last place may
    tie with an item outside the list."""
    with np.errstate(invalid="ignore"):
        close = np.abs(np.diff(score_BK, axis=1)) <= TOLERANCE
    tied = np.zeros(score_BK.shape, bool)
    tied[:, 1:] |= close
    tied[:, :-1] |= close
    tied[:, -1] |= np.isfinite(score_BK[:, -1])
    return tied


def onnx_answerer(path: Path) -> Answerer:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda arrays: dict(zip(names, session.run(names, arrays), strict=True))


def torchscript_answerer(path: Path) -> Answerer:
    module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    module.eval()

    @torch.inference_mode()
    def run(arrays: dict[str, Array]) -> Mapping[str, Array]:
        item, score = module(*(torch.from_numpy(a) for a in arrays.values()))
        return {"item": item.numpy(), "score": score.numpy()}

    return run
