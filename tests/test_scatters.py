"""What scatters add up: tables of places as int32 and no copies, the same answers, and nothing else
is touched."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from every_family import Every
from onnx import TensorProto, helper, numpy_helper

from export.scatters import narrow, spare_copies

ITEMS, WIDTH = 9, 3
PLACES = np.arange(ITEMS * WIDTH).reshape(ITEMS, WIDTH) % ITEMS


def graph(
    *, table: np.ndarray = PLACES, further: str = "", out: str = "", cut: str = ""
) -> onnx.ModelProto:
    """What events say is added up at the places that their rows of a table name; `cut` to the shape
    of a tensor, as the exporter of traces does."""
    nodes = [
        helper.make_node("Gather", ["table", "history"], ["rows"]),
        helper.make_node("Flatten", ["rows"], ["places"], axis=1),
    ]
    if cut:
        nodes.append(helper.make_node("Shape", [cut], ["shape"]))
        nodes.append(helper.make_node("Slice", ["said", "start", "shape"], ["cut"]))
    nodes.append(
        helper.make_node("ScatterElements", ["none", "places", "cut" if cut else "said"], ["sum"],
                         axis=1, reduction="add")
    )  # fmt: skip
    outputs = [helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["batch", ITEMS])]
    if further:
        nodes.append(helper.make_node(further, ["places"], ["more"]))
        outputs.append(helper.make_tensor_value_info("more", TensorProto.INT64, None))
    if out:
        outputs.append(helper.make_tensor_value_info(out, TensorProto.INT64, None))
    given = [
        helper.make_tensor_value_info("history", TensorProto.INT64, ["batch", "length"]),
        helper.make_tensor_value_info("none", TensorProto.FLOAT, ["batch", ITEMS]),
        helper.make_tensor_value_info("said", TensorProto.FLOAT, ["batch", "all"]),
    ]
    held = {"table": table, "start": np.zeros(2, np.int64)}
    values = [numpy_helper.from_array(value, name) for name, value in held.items()]
    made = helper.make_graph(nodes, "g", given, outputs, values)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def answers(model: onnx.ModelProto) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    generator = np.random.default_rng(0)
    return session.run(
        None,
        {
            "history": generator.integers(0, ITEMS, (4, 5)),
            "none": np.zeros((4, ITEMS), np.float32),
            "said": generator.random((4, 5 * WIDTH), np.float32),
        },
    )


def table_of(model: onnx.ModelProto) -> np.ndarray:
    return numpy_helper.to_array(model.graph.initializer[0])


def test_a_table_of_places_becomes_int32_and_the_answers_stay() -> None:
    model = graph()
    before = answers(model)
    narrow(model)
    assert table_of(model).dtype == np.int32
    np.testing.assert_array_equal(table_of(model), PLACES)
    np.testing.assert_array_equal(answers(model)[0], before[0])


@pytest.mark.parametrize("changed", [
    {"further": "Neg"},
    {"out": "rows"},
    {"out": "places"},
    {"table": np.where(PLACES == 7, 2**31, PLACES)},
], ids=str)  # fmt: skip
def test_what_is_more_than_places_stays_int64(changed: dict[str, object]) -> None:
    model = graph(**changed)  # type: ignore[arg-type]
    narrow(model)
    assert table_of(model).dtype == np.int64


def test_a_shape_of_the_places_may_be_asked() -> None:
    model = graph(further="Shape")
    before = answers(model)
    narrow(model)
    assert table_of(model).dtype == np.int32
    for seen, wanted in zip(answers(model), before, strict=True):
        np.testing.assert_array_equal(seen, wanted)


def test_what_is_added_is_not_copied_first() -> None:
    model = graph(cut="places")
    before = answers(model)
    spare_copies(model)
    assert "Slice" not in operators(model)
    np.testing.assert_array_equal(answers(model)[0], before[0])


def test_what_is_read_elsewhere_too_is_still_made() -> None:
    model = graph(cut="places", out="cut")
    model.graph.output[-1].type.tensor_type.elem_type = TensorProto.FLOAT
    before = answers(model)
    spare_copies(model)
    for seen, wanted in zip(answers(model), before, strict=True):
        np.testing.assert_array_equal(seen, wanted)


def test_what_is_longer_than_its_places_stays_cut() -> None:
    model = graph(cut="rest")
    model.graph.input.append(helper.make_tensor_value_info("rest", TensorProto.FLOAT, [2, 4]))
    spare_copies(model)
    assert operators(model)["Slice"] == 1


@pytest.mark.parametrize("family", ["deep", "ease", "item-knn"])
def test_a_release_adds_up_by_int32_and_without_copies(every: Every, family: str) -> None:
    """Whatever stands between a table and its scatter in the exporter's graph."""
    model = onnx.load_model(every.onnx(family))
    made_by = {name: node for node in model.graph.node for name in node.output}
    added = [n.input[2] for n in model.graph.node if n.op_type == "ScatterElements"]
    assert added
    assert "Slice" not in {made_by[name].op_type for name in added if name in made_by}
    tables = [value for value in model.graph.initializer if value.name.endswith("_item")]
    assert tables
    assert {value.data_type for value in tables} == {TensorProto.INT32}


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)
