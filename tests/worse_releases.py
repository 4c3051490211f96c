"""Ways to make an exported release worse that no checksum and no golden request gives away:
it is promised to be so. What a canary is for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export import golden
from export.index import write_index
from recommender.contract import RECOMMENDER
from recommender.release import read_index
from recommender.verify import sha256

BEYOND = 10_000_000  # no catalogue has so many items
SIZE = 1000  # of the matrix that a slow model multiplies: some tens of milliseconds each time

Worse = Callable[[Path], None]  # of the release's home folder


def failing(home: Path) -> None:
    """Every item that it answers is beyond the catalogue: the service falls back."""
    model = onnx.load(home / "model.onnx")
    _rename_output(model, "item", "item_known")
    beyond = numpy_helper.from_array(np.array(BEYOND, np.int64), "beyond")
    model.graph.initializer.append(beyond)
    model.graph.node.append(helper.make_node("Add", ["item_known", "beyond"], ["item"]))
    onnx.save(model, home / "model.onnx")
    with np.load(home / golden.FILE) as stored:
        arrays = {name: stored[name] for name in stored.files}
    for name in arrays:
        number = name.partition("/")[0]
        if name.endswith("/outputs/item") and arrays[f"{number}/kind"] == RECOMMENDER:
            arrays[name] = arrays[name] + BEYOND
    np.savez_compressed(home / golden.FILE, **arrays)
    reseal(home)


def slow(home: Path, times: int = 4) -> None:
    """The same answers, after `times` multiplications of nothing with nothing."""
    model = onnx.load(home / "model.onnx")
    _rename_output(model, "score", "score_soon")
    constants = {"first": np.array(0, np.int64), "nothing": np.array(0, np.float32),
                 "size": np.array([SIZE, SIZE], np.int64)}  # fmt: skip
    model.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in constants.items()
    )
    node = helper.make_node
    model.graph.node.extend(
        [
            node("Gather", ["request_time", "first"], ["time_0"]),  # no constant to fold
            node("Cast", ["time_0"], ["time_1"], to=TensorProto.FLOAT),
            node("Mul", ["time_1", "nothing"], ["zero"]),
            node("Expand", ["zero", "size"], ["product_0"]),
            *(
                node("MatMul", [f"product_{i}", "product_0"], [f"product_{i + 1}"])
                for i in range(times)
            ),
            node("ReduceSum", [f"product_{times}"], ["sum"], keepdims=0),
            node("Add", ["score_soon", "sum"], ["score"]),
        ]
    )
    onnx.save(model, home / "model.onnx")
    reseal(home)


def reseal(home: Path) -> None:
    """As if it had been exported so."""
    repository = home.parent.parent
    raw = json.loads((home / "release.json").read_text())
    raw["files"] = {name: sha256(repository / name) for name in raw["files"]}
    (home / "release.json").write_text(json.dumps(raw))
    index = read_index(repository)
    checksums = {**index.checksums, int(home.name): sha256(home / "release.json")}
    write_index(repository, replace(index, checksums=checksums))


def _rename_output(model: onnx.ModelProto, name: str, to: str) -> None:
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [to if one == name else one for one in names]
