"""What a real tritonserver loads with our backends, and what it refuses with which reason."""

from __future__ import annotations

import asyncio

import pytest
import toy
from triton_process import assert_equal, controlled, infer, load

from export.triton_config import config_text
from recommender.errors import ReleaseError


def replaced(old, new):
    def change(text):
        assert old in text
        return text.replace(old, new)

    return change


def dims_of(name, old, new):
    return replaced(f'name: "{name}"\n  {old}', f'name: "{name}"\n  {new}')


INT64, FP32 = "data_type: TYPE_INT64\n  dims: ", "data_type: TYPE_FP32\n  dims: "
ACCELERATOR = (
    'optimization { execution_accelerators { cpu_execution_accelerator { name: "openvino" } } }'
)

# backend, change of the config, change of the weights, words of the reason
BROKEN = {
    "onnx: an input has another name": (
        "onnxruntime",
        replaced('"exclude"', '"exclusions"'),
        None,
        ("exclusions", "exclude"),
    ),
    "onnx: an input has other dims": (
        "onnxruntime",
        replaced("dims: 8", "dims: 9"),
        None,
        ("exclude", "[9]", "8"),
    ),
    "onnx: a fixed dim is declared dynamic": (
        "onnxruntime",
        dims_of("user_features", f"{INT64}2", f"{INT64}-1"),
        None,
        ("user_features", "[-1]"),
    ),
    "onnx: an output has another type": (
        "onnxruntime",
        dims_of("score", FP32, INT64),
        None,
        ("score", "int64"),
    ),
    "onnx: an output has other dims": (
        "onnxruntime",
        dims_of("item", f"{INT64}10", f"{INT64}11"),
        None,
        ("item", "[11]"),
    ),
    "onnx: threads are no number": (
        "onnxruntime",
        replaced('string_value: "1"', 'string_value: "two"'),
        None,
        ("intra_op_thread_count", "two"),
    ),
    "onnx: an unknown accelerator": (
        "onnxruntime",
        lambda text: text + ACCELERATOR,
        None,
        ("execution_accelerators",),
    ),
    "onnx: a GPU on a machine without": (
        "onnxruntime",
        replaced("count: 1\n}\ndynamic", "count: 1\n  kind: KIND_GPU\n}\ndynamic"),
        None,
        ("GPU",),
    ),
    "onnx: the file is missing": (
        "onnxruntime",
        None,
        lambda path: path.unlink(),
        ("model.onnx is missing",),
    ),
    "onnx: the file is cut short": (
        "onnxruntime",
        None,
        lambda path: path.write_bytes(path.read_bytes()[:1000]),
        ("model.onnx cannot be read",),
    ),
    "torch: an input has another name": (
        "pytorch",
        replaced('"exclude"', '"exclusions"'),
        None,
        ("exclusions", "exclude"),
    ),
    "torch: an output has other dims": (
        "pytorch",
        dims_of("item", f"{INT64}10", f"{INT64}11"),
        None,
        ("item", "[11]"),
    ),
    "torch: an output has another type": (
        "pytorch",
        dims_of("score", FP32, INT64),
        None,
        ("score", "float32"),
    ),
    "torch: threads are no number": (
        "pytorch",
        replaced('string_value: "1"', 'string_value: "-1"'),
        None,
        ("INTRA_OP_THREAD_COUNT", "-1"),
    ),
    "torch: the file is missing": (
        "pytorch",
        None,
        lambda path: path.unlink(),
        ("model.pt is missing",),
    ),
    "torch: the file is cut short": (
        "pytorch",
        None,
        lambda path: path.write_bytes(path.read_bytes()[:1000]),
        ("model.pt cannot be read",),
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_does_not_fit_is_refused_at_load_with_the_reason(toy_server, toy_weights, case):
    backend, change_config, change_file, words = BROKEN[case]
    model = "broken_" + "".join(c if c.isalnum() else "_" for c in case)
    text = config_text(model, backend, toy.LIMITS)
    text = change_config(text) if change_config else text
    toy.add_model(toy_server.repository, model, backend, toy_weights[backend], config=text)
    if change_file:
        path = toy_server.repository / model / "1" / toy.FILES[backend]
        copy = path.read_bytes()
        path.unlink()
        path.write_bytes(copy)
        change_file(path)
    with pytest.raises(ReleaseError) as refusal:
        load(toy_server, (model,))
    assert model in refusal.value.what
    for word in words:
        assert word in refusal.value.what
    assert "\n" not in str(refusal.value)


def test_torchscript_inputs_named_by_index_go_to_their_argument(toy_server, toy_weights):
    """In any order of the config, as in the native backend."""
    model = "toy_indexed"
    text = config_text(model, "pytorch", toy.LIMITS)
    names = list(toy.batch(1, 4))
    for index, name in enumerate(names):
        text = text.replace(f'"{name}"', f'"in__{index}"')
    head, first, second, rest = text.split("input {\n", 3)
    text = "input {\n".join((head, second, first, rest))
    toy.add_model(toy_server.repository, model, "pytorch", toy_weights["pytorch"], config=text)
    load(toy_server, (model,))
    arrays = toy.batch(3, 16)
    renamed = {f"in__{i}": arrays[name] for i, name in enumerate(names)}
    assert_equal(infer(toy_server.address("grpc"), model, renamed), toy.eager(arrays))


def test_exactly_the_wanted_versions_are_loaded(toy_server):
    text = (toy_server.repository / "toy_onnx" / "config.pbtxt").read_text()

    async def move(control):
        seen = []
        for versions in ([1, 2], [2], [1]):
            await control.load("toy_onnx", versions, text)
            for _ in range(200):  # the old version goes when its requests have ended
                if await control.versions("toy_onnx") == versions:
                    break
                await asyncio.sleep(0.05)
            seen.append(await control.versions("toy_onnx"))
        return seen

    assert controlled(toy_server, move) == [[1, 2], [2], [1]]


def test_a_release_whose_version_folder_is_missing_is_refused(toy_server):
    with pytest.raises(ReleaseError, match="toy_onnx"):
        load(toy_server, ("toy_onnx",), version=77)
    load(toy_server, ("toy_onnx",), version=1)
