"""Tables of places as int32: the same answers, and only where the places are for a scatter."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.narrow import narrow

ITEMS, WIDTH = 9, 3
PLACES = np.arange(ITEMS * WIDTH).reshape(ITEMS, WIDTH) % ITEMS


def graph(*, table: np.ndarray = PLACES, further: str = "", out: str = "") -> onnx.ModelProto:
    """What events say is added up at the places that their rows of a table name."""
    nodes = [
        helper.make_node("Gather", ["table", "history"], ["rows"]),
        helper.make_node("Flatten", ["rows"], ["places"], axis=1),
        helper.make_node("ScatterElements", ["none", "places", "said"], ["sum"], axis=1,
                         reduction="add"),
    ]  # fmt: skip
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
    made = helper.make_graph(nodes, "g", given, outputs, [numpy_helper.from_array(table, "table")])
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
