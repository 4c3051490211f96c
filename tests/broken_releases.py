"""Ways to break release 2 of a good repository: each is a function of the repository's folder.

`sealed` ones are written into release.json as if they had been exported so: no checksum gives
them away.
"""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import polars as pl
import torch
import toy
from bento_process import write_index, write_release
from onnx import TensorProto, helper, numpy_helper

from recommender.contract import RECOMMENDER_ONNX, RECOMMENDER_TORCHSCRIPT
from recommender.release import read_index
from recommender.verify import sha256

MODELS = (RECOMMENDER_ONNX, RECOMMENDER_TORCHSCRIPT)
INDEX, RELEASE = "releases.json", f"{RECOMMENDER_ONNX}/2/release.json"
CATALOGUE, USERS = f"{RECOMMENDER_ONNX}/2/catalogue.parquet", f"{RECOMMENDER_ONNX}/2/users.parquet"
ONNX, TORCH = f"{RECOMMENDER_ONNX}/2/model.onnx", f"{RECOMMENDER_TORCHSCRIPT}/2/model.pt"

Break = Callable[[Path], object]


def write_good(repository: Path) -> None:
    """Releases 1 and 2 of different weights; 2 serves."""
    for version in (1, 2):
        made = repository.parent / f"made-{version}"
        made.mkdir()
        model = toy.Toy(seed=6 + version)
        toy.write_onnx(made / "model.onnx", model)
        toy.write_torchscript(made / "model.pt", model)
        for name, backend in zip(MODELS, toy.FILES, strict=True):
            weights = made / toy.FILES[backend]
            toy.add_model(repository, name, backend, weights, versions=(version,))
        write_release(repository, toy.LIMITS, items=toy.ITEMS - 1, models=MODELS, version=version)


# --- of any file


def removed(name: str) -> Break:
    return lambda repository: (repository / name).unlink()


def written(name: str, content: bytes) -> Break:
    return lambda repository: (repository / name).write_bytes(content)


def cut(name: str, to: int) -> Break:
    return lambda repository: (repository / name).write_bytes((repository / name).read_bytes()[:to])


def copied(source: str, target: str) -> Break:
    return lambda repository: shutil.copy(repository / source, repository / target)


def exchanged(one: str, other: str) -> Break:
    def change(repository: Path) -> None:
        a, b = repository / one, repository / other
        content = a.read_bytes()
        a.write_bytes(b.read_bytes())
        b.write_bytes(content)

    return change


def flipped(name: str) -> Break:
    def change(repository: Path) -> None:
        content = bytearray((repository / name).read_bytes())
        content[len(content) // 2] ^= 1
        (repository / name).write_bytes(content)

    return change


def overwritten(name: str, part: slice) -> Break:
    def change(repository: Path) -> None:
        content = bytearray((repository / name).read_bytes())
        content[part] = bytes(len(content[part]))
        (repository / name).write_bytes(content)

    return change


def linked(name: str) -> Break:
    """A link in the place of a file or folder, which now lies outside of the repository."""

    def change(repository: Path) -> None:
        outside = repository.parent / "outside"
        shutil.rmtree(outside, ignore_errors=True)
        outside.mkdir()
        shutil.move(repository / name, outside / "it")
        (repository / name).symlink_to(outside / "it")

    return change


def sealed(*changes: Break) -> Break:
    def change(repository: Path) -> None:
        for one in changes:
            one(repository)
        folders = [repository / model / "2" for model in MODELS]
        files = {
            str(path.relative_to(repository)): sha256(path)
            for folder in folders
            for path in folder.iterdir()
            if path.name != "release.json"
        }
        said(RELEASE, files=files)(repository)
        index = read_index(repository)
        assert index.serving is not None
        write_index(repository, serving=index.serving, releases=index.releases)

    return change


# --- of what is JSON


def said(name: str, **values: Any) -> Break:
    def change(repository: Path) -> None:
        raw = json.loads((repository / name).read_text())
        (repository / name).write_text(json.dumps({**raw, **values}))

    return change


def unsaid(name: str, key: str) -> Break:
    def change(repository: Path) -> None:
        raw = json.loads((repository / name).read_text())
        del raw[key]
        (repository / name).write_text(json.dumps(raw))

    return change


def limit(name: str, value: object) -> Break:
    def change(repository: Path) -> None:
        raw = json.loads((repository / RELEASE).read_text())
        said(RELEASE, limits={**raw["limits"], name: value})(repository)

    return change


def named(name: str, checksum: str = "0" * 64) -> Break:
    """One more file in release.json."""

    def change(repository: Path) -> None:
        raw = json.loads((repository / RELEASE).read_text())
        said(RELEASE, files={**raw["files"], name: checksum})(repository)

    return change


# --- of tables and configs


def table(name: str, alter: Callable[[pl.DataFrame], pl.DataFrame]) -> Break:
    def change(repository: Path) -> None:
        frame = pl.read_parquet(repository / name)
        alter(frame).write_parquet(repository / name)

    return sealed(change)


def config(model: str, old: str, new: str) -> Break:
    def change(repository: Path) -> None:
        path = repository / model / "config.pbtxt"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return change


# --- of ONNX models


def onnx_model(alter: Callable[[onnx.ModelProto], object]) -> Break:
    def change(repository: Path) -> None:
        model = onnx.load(repository / ONNX)
        alter(model)
        onnx.save(model, repository / ONNX)

    return sealed(change)


def renamed(old: str, new: str) -> Callable[[onnx.ModelProto], None]:
    def alter(model: onnx.ModelProto) -> None:
        for value in (*model.graph.input, *model.graph.output):
            value.name = new if value.name == old else value.name
        for node in model.graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]

    return alter


def dim(name: str, position: int, value: int) -> Callable[[onnx.ModelProto], None]:
    def alter(model: onnx.ModelProto) -> None:
        for one in (*model.graph.input, *model.graph.output):
            if one.name == name:
                one.type.tensor_type.shape.dim[position].dim_value = value

    return alter


def without_input(model: onnx.ModelProto) -> None:
    """The category filter is a constant: nothing to send."""
    (kept,) = (i for i in model.graph.input if i.name == "category_filter")
    model.graph.input.remove(kept)
    zero = torch.zeros(1, 1, dtype=torch.int64).numpy()
    model.graph.initializer.append(numpy_helper.from_array(zero, "category_filter"))


def another_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("mood", TensorProto.INT64, ["batch", 1]))


def another_output(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Identity", ["score"], ["logit"]))
    model.graph.output.append(
        helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["batch", toy.LIMITS.answers])
    )


def double_score(model: onnx.ModelProto) -> None:
    renamed("score", "narrow")(model)
    (score,) = (o for o in model.graph.output if o.name == "narrow")
    score.name, score.type.tensor_type.elem_type = "score", TensorProto.DOUBLE
    model.graph.node.append(helper.make_node("Cast", ["narrow"], ["score"], to=TensorProto.DOUBLE))


def custom_op(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type, model.graph.node[0].domain = "Telepathy", "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def external(location: str) -> Callable[[onnx.ModelProto], None]:
    """The item table lies in another file."""

    def alter(model: onnx.ModelProto) -> None:
        tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
        onnx.external_data_helper.set_external_data(tensor, location)
        tensor.ClearField("raw_data")

    return alter


def external_in_a_branch(model: onnx.ModelProto) -> None:
    """In a graph of a node of the graph, where a look at the initializers does not find it."""
    constant = numpy_helper.from_array(torch.zeros(4).numpy(), "hidden")
    onnx.external_data_helper.set_external_data(constant, "/etc/hostname")
    constant.ClearField("raw_data")
    made = helper.make_node("Constant", [], ["made"], value=constant)
    value = helper.make_tensor_value_info("made", TensorProto.FLOAT, [4])
    branch = helper.make_graph([made], "branch", [], [value])
    model.graph.node.append(
        helper.make_node("If", ["never"], ["x"], then_branch=branch, else_branch=branch)
    )
    never = numpy_helper.from_array(torch.zeros(1, dtype=torch.bool).numpy(), "never")
    model.graph.initializer.append(never)


# --- of TorchScript files


class Changed(toy.Toy):
    """The toy with `alter` over its (item, score)."""

    def __init__(self, alter: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.alter = alter

    def forward(self, history, history_time, history_weight, request_time, user_features,
                exclude, category_filter):  # fmt: skip
        return self.alter(*super().forward(history, history_time, history_weight, request_time,
                                           user_features, exclude, category_filter))  # fmt: skip


class Renamed(toy.Toy):
    def forward(self, history, history_time, history_weight, request_time, user_features,
                seen, category_filter):  # fmt: skip
        return super().forward(history, history_time, history_weight, request_time,
                               user_features, seen, category_filter)  # fmt: skip


class Short(toy.Toy):
    def __init__(self) -> None:
        super().__init__()
        self.place = torch.zeros(15)

    def forward(self, history, history_time, history_weight, request_time, user_features,
                exclude, category_filter):  # fmt: skip
        weight = history_weight + self.place[-history_weight.shape[1] :]
        return super().forward(history, history_time, weight, request_time,
                               user_features, exclude, category_filter)  # fmt: skip


class Unfiltered(toy.Toy):
    def forward(self, history, history_time, history_weight, request_time, user_features, exclude):
        zero = torch.zeros_like(request_time)
        return super().forward(history, history_time, history_weight, request_time,
                               user_features, exclude, zero)  # fmt: skip


def torchscript(model: torch.nn.Module, inputs: int = 7) -> Break:
    def change(repository: Path) -> None:
        example = tuple(torch.from_numpy(a) for a in toy.batch(3, 5).values())[:inputs]
        with warnings.catch_warnings(action="ignore"):  # deprecated in favour of torch.export
            torch.jit.trace(model, example, check_trace=False).save(str(repository / TORCH))

    return sealed(change)


class Trap:
    """Whoever unpickles it creates the file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def marker(repository: Path) -> Path:
    return repository.parent / "unpickled"


def plain_pickle(repository: Path) -> None:
    (repository / TORCH).write_bytes(pickle.dumps(Trap(marker(repository))))


def torch_saved(repository: Path) -> None:
    torch.save({"weights": torch.zeros(3), "trap": Trap(marker(repository))}, repository / TORCH)
