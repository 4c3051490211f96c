"""A scorer as a program: its operations and weights, without the Python it came from.

    any nn.Module ─> torch.export ─> graph.pt2 ─> Exported, a Scorer like every other

How an adapted model (recommender/adapter.py) lies in a run folder. The file is written and read
without pickle; it is a program all the same: read only what you trust, as with any code.
"""

from __future__ import annotations

import json
import logging
import re
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from recommender.contract import Limits
from recommender.errors import RunError, shown
from recommender.models.scorer import UserInputs

FILE = "graph.pt2"
# What a file of plain tensors consists of; the rest is legacy pickles, custom objects, libraries.
_PLAIN = re.compile(
    r"[^/]+/(archive_(format|version)|byteorder|\.data/(version|serialization_id)"
    r"|models/model\.json|data/weights/weight_\d+|data/constants/tensor_\d+"
    r"|data/(weights/model_weights|constants/model_constants)_config\.json"
    r"|data/sample_inputs/model\.pt)"
)


class Exported(nn.Module):
    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        self.program = program
        self.graph = program.module(check_guards=False)

    def train(self, mode: bool = True) -> Exported:
        """A program has one mode, that of evaluation, and knows no other."""
        self.training = False
        return self

    def forward(self, user: UserInputs) -> Tensor:
        scores_BN: Tensor = self.graph(*user)
        return scores_BN


class _Flat(nn.Module):
    """The scorer with tensors for arguments: a program's inputs are no NamedTuple."""

    def __init__(self, scorer: nn.Module) -> None:
        super().__init__()
        self.scorer = scorer

    def forward(
        self,
        history_BL: Tensor,
        time_BL: Tensor,
        weight_BL: Tensor,
        request_time_B1: Tensor,
        features_BU: Tensor,
    ) -> Tensor:
        user = UserInputs(history_BL, time_BL, weight_BL, request_time_B1, features_BU)
        scores_BN: Tensor = self.scorer(user)
        return scores_BN.to(torch.float32)


def export_scorer(scorer: nn.Module, example: UserInputs, limits: Limits) -> Exported:
    """`scorer` for any batch and any length up to the release's longest bucket.

    `example` is a batch of 2 or more: one of 1 would be taken for a constant. Raises RunError
    with the exporter's reason.
    """
    batch, length = Dim("batch"), Dim("length", max=limits.history)
    shapes = [{0: batch, 1: length}] * 3 + [{0: batch}] * 2
    flat = _Flat(scorer).eval().requires_grad_(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.getLogger("torch.fx").setLevel(logging.ERROR)
            program = torch.export.export(flat, tuple(example), dynamic_shapes=shapes)
    except Exception as error:  # the exporter's own, and whatever the scorer raises
        raise RunError(
            f"the module cannot be exported: {type(error).__name__}: {_reason(error)}",
            remedy="`What exports and what does not` in docs/models.md has the usual causes.",
        ) from error
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            node.meta.pop("stack_trace", None)  # source paths of this machine
    program.example_inputs = None  # would be written as a pickle
    return Exported(program)


def _reason(error: Exception) -> str:
    """The one line of a long message that says what happened."""
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if "specialized it to be a constant" in line]
    return shown((told or lines or ["no message"])[0], 200)


def write(scorer: Exported, path: Path) -> None:
    torch.export.save(scorer.program, path)


def read(path: Path, items: int) -> Exported:
    """Raises RunError where the file is broken, holds a pickle, or scores other than `items`."""
    try:
        with zipfile.ZipFile(path) as archive:
            if (broken := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"{broken} is damaged")
            if (foreign := _not_plain(archive)) is not None:
                raise ValueError(f"{foreign} is no plain tensor")
        program = torch.export.load(path)
        width = next(iter(reversed(program.graph.nodes))).args[0][0].meta["val"].shape[1]
    except (OSError, ValueError, KeyError, AttributeError, IndexError, AssertionError,
            RuntimeError, zipfile.BadZipFile) as error:  # fmt: skip
        raise RunError(
            f"{path} is broken: {shown(str(error), 120)}", remedy="Run `recserve adapt` again."
        ) from error
    if width != items:
        raise RunError(
            f"{path} scores {width} items, the catalogue has {items} with padding",
            remedy="Run `recserve adapt` again.",
        )
    return Exported(program)


def _not_plain(archive: zipfile.ZipFile) -> str | None:
    """The first entry that reading would hand to pickle, or to a loader of libraries."""
    for entry in archive.infolist():
        name = entry.filename
        if not _PLAIN.fullmatch(name) or ("/sample_inputs/" in name and entry.file_size):
            return name
        if name.endswith("_config.json"):
            for payload in json.loads(archive.read(entry))["config"].values():
                if payload["use_pickle"]:
                    return str(payload["path_name"])
    return None
