"""Every family's release answers alike in the ONNX Runtime of NVIDIA's container, which computes
some operations on whole numbers wrongly (recommender/models/scorer.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from every_family import EVERY, MINE, Every
from onnx import TensorProto, helper

from recommender.release import Release

ROOT = Path(__file__).parent.parent
CONTAINERS = ROOT / "build" / "onnxruntime"  # as `make test` installs it, of tests/onnxruntime.txt
BROKEN = {"Clip", "Min", "Max", "ReduceMin"}  # of int64, on x86 CPUs, in 1.21 to 1.31

# Programs for a Python in which that ONNX Runtime is the one that is imported.
JUDGE = """
import json, sys
from pathlib import Path
import onnxruntime
from export import golden
from export.parity import compare, onnx_answerer
from recommender.contract import kind_of
from recommender.release import read_release
release, rows = read_release(Path(sys.argv[1]), int(sys.argv[2])), {}
for file in (file for file in release.files if file.endswith(".onnx")):
    model = Path(file).parts[0]
    answers = onnx_answerer(release.repository / file)
    for one in golden.read(release.home):
        if one.kind == kind_of(model):
            compare(one.outputs, answers(dict(one.inputs)), f"{model}, {one.name}")
            rows[model] = rows.get(model, 0) + len(next(iter(one.outputs.values())))
print(json.dumps({"version": onnxruntime.__version__, "rows": rows}))
"""
ANSWER = """
import sys
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
print(session.run(None, {"x": numpy.array([0, 5, 2**31 - 2], numpy.int64)})[0].tolist())
"""


def by_the_containers(program: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": f"{CONTAINERS}{os.pathsep}{ROOT}"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def clipping(path: Path, dtype: int = TensorProto.INT64, high: float = 2**31) -> Path:
    limits = [
        helper.make_tensor("low", dtype, [], [0]),
        helper.make_tensor("high", dtype, [], [high]),
    ]
    x, y = (helper.make_tensor_value_info(name, dtype, [3]) for name in "xy")
    node = helper.make_node("Clip", ["x", "low", "high"], ["y"])
    graph = helper.make_graph([node], "clip", [x], [y], limits)
    opset = helper.make_opsetid("", 18)
    onnx.save_model(helper.make_model(graph, opset_imports=[opset], ir_version=9), path)
    return path


def onnx_files(release: Release) -> list[str]:
    return [file for file in release.files if file.endswith(".onnx")]


def broken(path: Path) -> list[str]:
    """Operations of the model that this runtime computes wrongly."""
    model = onnx.shape_inference.infer_shapes(onnx.load_model(path))
    graph = model.graph
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.value_info, *graph.input, *graph.output)
    } | {one.name: one.data_type for one in graph.initializer}
    return [
        node.name or node.op_type
        for node in graph.node
        if node.op_type in BROKEN and kinds[node.input[0]] == TensorProto.INT64
    ]


def test_the_containers_runtime_is_one_that_computes_wrongly(tmp_path: Path) -> None:
    """Otherwise what follows would show nothing."""
    assert by_the_containers(ANSWER, clipping(tmp_path / "clip.onnx")) != "[0, 5, 2147483646]"


@pytest.mark.parametrize("family", EVERY)
def test_a_release_answers_there_as_at_its_export(every: Every, family: str) -> None:
    release = every.release(family)
    said = json.loads(by_the_containers(JUDGE, every.repository, release.version))
    wanted = (CONTAINERS / f"onnxruntime-{said['version']}.dist-info").exists()
    assert wanted, f"answered by onnxruntime {said['version']}"
    assert set(said["rows"]) == {Path(file).parts[0] for file in onnx_files(release)}
    assert min(said["rows"].values()) > 20


@pytest.mark.parametrize("family", [family for family in EVERY if family != MINE])
def test_no_graph_of_ours_has_operations_that_go_wrong(every: Every, family: str) -> None:
    for file in onnx_files(every.release(family)):
        assert broken(every.repository / file) == []


def test_such_an_operation_would_be_found(tmp_path: Path) -> None:
    assert broken(clipping(tmp_path / "whole.onnx")) == ["Clip"]
    assert broken(clipping(tmp_path / "floats.onnx", TensorProto.FLOAT)) == []
