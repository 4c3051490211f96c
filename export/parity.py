"""Do eager PyTorch, ONNX Runtime and TorchScript answer alike? Checked on the very files that
would be released, of every kind of model, before anybody can see them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from export.examples import batches, single_rows
from recommender.contract import Array, Limits, kind_of
from recommender.errors import ReleaseError
from recommender.models.beside import modules
from recommender.models.graph import Graph, answer
from recommender.users import Users

TOLERANCE = 1e-4  # of scores

Answerer = Callable[[dict[str, Array]], Mapping[str, Array]]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """What release.json records of one format."""

    rows: int  # compared with eager
    identical: int  # of them with the same items in the same order (without items: all of them)
    largest_difference: float  # of scores, or of their parts


def check_parity(
    graph: Graph,
    files: Mapping[str, Path],
    *,
    limits: Limits,
    items: int,
    clock: int,
    users: Users,
) -> dict[str, Parity]:
    """Compare every file (model name -> model.onnx or model.pt) with its kind of `graph` on all of
    `examples.batches`, and rows alone with the same rows in their batch.

    Raises ReleaseError naming the model, the kind of input and the first difference.
    Items that change places are allowed only where their scores tie within TOLERANCE.
    """
    reports, eager = {}, modules(graph, limits)
    for model, path in files.items():
        kind = kind_of(model)
        answerer = onnx_answerer(path) if path.suffix == ".onnx" else torchscript_answerer(path)
        rows, identical, largest = 0, 0, 0.0
        for name, arrays in batches(limits, items, clock, users, kind):
            wanted = answer(eager[kind], arrays, limits, kind)
            _check_answered(wanted, arrays, items, name)
            seen = answerer(arrays)
            largest = max(largest, compare(wanted, seen, f"{model}, {name}"))
            identical += _identical(wanted, seen)
            rows += _rows(wanted)
            picked = range(0, _rows(wanted), 16)
            for row, alone in zip(picked, single_rows(arrays, picked), strict=True):
                in_batch = {key: value[row : row + 1] for key, value in seen.items()}
                compare(in_batch, answerer(alone), f"{model}, {name}, row {row} alone")
        reports[model] = Parity(rows=rows, identical=identical, largest_difference=largest)
    return reports


def _rows(answered: Mapping[str, Array]) -> int:
    return len(next(iter(answered.values())))


def _identical(wanted: Mapping[str, Array], seen: Mapping[str, Array]) -> int:
    """Rows that list the same items in the same order."""
    if "item" not in wanted:
        return _rows(wanted)
    return int((wanted["item"] == seen["item"]).all(axis=1).sum())


def _check_answered(
    answered: Mapping[str, Array], arrays: Mapping[str, Array], items: int, where: str
) -> None:
    """Nobody with an item left to see goes without an answer: NaN weights, say, answer nothing."""
    if "item" not in answered:
        return
    for row in np.flatnonzero(answered["item"][:, 0] == 0):
        excluded = np.unique(arrays["exclude"][row])
        left = items - 1 - np.count_nonzero((excluded > 0) & (excluded < items))
        if left and not arrays["category_filter"][row].any():
            raise ReleaseError(
                f"the model gives no answer ({where}, row {row}) though {left} items are left",
                remedy="The release was not written; look for NaN in the run's weights.",
            )


def compare(wanted: Mapping[str, Array], seen: Mapping[str, Array], where: str) -> float:
    """The largest difference of scores (or of their parts); raises ReleaseError where the answers
    are not the same."""
    gaps = {name: _gap(a, seen[name], where) for name, a in wanted.items() if name != "item"}
    bad = {name: gap > TOLERANCE for name, gap in gaps.items()}
    if "item" in wanted:
        swapped = wanted["item"] != seen["item"]
        bad["score"] |= swapped & ~_tied(wanted["score"])
    for name, found in bad.items():
        if found.any():
            place = tuple(np.argwhere(found)[0])
            raise ReleaseError(
                f"parity failed ({where}): row {place[0]}, {_said(seen, name, place)} instead of "
                f"{_said(wanted, name, place)}",
                remedy="Mend the model or its export: it is not served.",
            )
    return max(float(gap.max(initial=0)) for gap in gaps.values())


def _gap(a: Array, b: Array, where: str) -> Array:
    """How far the two are apart, 0 where both are -inf."""
    finite = np.isfinite(a)
    if a.shape != b.shape or not (finite == np.isfinite(b)).all() or np.isnan(b).any():
        raise ReleaseError(
            f"parity failed ({where}): another number of answers than eager PyTorch, or NaN",
            remedy="Mend the model or its export: it is not served.",
        )
    gap: Array = np.where(finite, np.abs(np.where(finite, a, 0) - np.where(finite, b, 0)), 0)
    return gap


def _said(answered: Mapping[str, Array], name: str, place: tuple[int, ...]) -> str:
    value = f"{answered[name][place]:.6f}"
    if "item" in answered:
        return f"rank {place[1] + 1}: item {answered['item'][place]} with {value}"
    return f"{name} {list(map(int, place[1:]))} = {value}"


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
        return {"item": item.numpy(), "score": score.numpy()}  # only recommenders are TorchScript

    return run
