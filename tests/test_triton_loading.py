"""What a real tritonserver loads with our backends, and what it refuses with which reason."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import warnings

import psutil
import pytest
import torch
import toy
from triton_process import SCHEMES, assert_equal, at_once, controlled, infer, load, stubs_of

from client.tensors import connect
from export.triton_config import ServingConfig, config_text
from recommender.errors import ReleaseError, Unavailable


def replaced(old, new):
    def change(text):
        assert old in text
        return text.replace(old, new)

    return change


def dims_of(name, old, new):
    return replaced(f'name: "{name}"\n  {old}', f'name: "{name}"\n  {new}')


INT64, FP32 = "data_type: TYPE_INT64\n  dims: ", "data_type: TYPE_FP32\n  dims: "

# backend, change of the config, words of the reason
BROKEN = {
    "onnx: an input has another name": (
        "onnxruntime",
        replaced('"exclude"', '"exclusions"'),
        ("exclusions", "exclude"),
    ),
    "onnx: an input has other dims": (
        "onnxruntime",
        replaced("dims: 8", "dims: 9"),
        ("exclude", "[9]", "8"),
    ),
    "onnx: a fixed dim is declared dynamic": (
        "onnxruntime",
        dims_of("user_features", f"{INT64}2", f"{INT64}-1"),
        ("user_features", "[-1]"),
    ),
    "onnx: an output has another type": (
        "onnxruntime",
        dims_of("score", FP32, INT64),
        ("score", "int64"),
    ),
    "onnx: an output has other dims": (
        "onnxruntime",
        dims_of("item", f"{INT64}10", f"{INT64}11"),
        ("item", "[11]"),
    ),
    "torch: an input has another name": (
        "pytorch",
        replaced('"exclude"', '"exclusions"'),
        ("exclusions", "exclude"),
    ),
    "torch: outputs are numbered with a gap": (
        "pytorch",
        lambda text: text.replace('"item"', '"out__0"').replace('"score"', '"out__2"'),
        ("out__0", "out__2"),
    ),
    "torch: its optimized execution is neither on nor off": (
        "pytorch",
        replaced('"true"', '"perhaps"'),
        ("DISABLE_OPTIMIZED_EXECUTION", "'perhaps'"),
    ),
    "torch: an output has other dims": (
        "pytorch",
        dims_of("item", f"{INT64}10", f"{INT64}11"),
        ("item", "[11]"),
    ),
    "torch: an output has another type": (
        "pytorch",
        dims_of("score", FP32, INT64),
        ("score", "float32"),
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_config_that_does_not_fit_the_model_is_refused_with_the_reason(
    toy_server, toy_weights, case
):
    """By the backend itself, as natively: what else is broken, tests/test_broken_releases.py."""
    backend, change, words = BROKEN[case]
    model = "broken_" + "".join(c if c.isalnum() else "_" for c in case)
    text = change(config_text(model, backend, toy.LIMITS))
    with pytest.raises(ReleaseError) as refusal:
        add_and_load(toy_server, toy_weights, model, backend, text)
    assert model in refusal.value.what
    for word in words:
        assert word in refusal.value.what
    assert "\n" not in str(refusal.value)


def add_and_load(server, weights, model, backend, text):
    """Whatever the config says: `load_release` would refuse one that is not the contract's."""
    toy.add_model(server.repository, model, backend, weights[backend], config=text)
    controlled(server, lambda control: control.load(model, [1], text))


def test_torchscript_inputs_named_by_index_go_to_their_argument(toy_server, toy_weights):
    """In any order of the config, as in the native backend."""
    model = "toy_indexed"
    text = config_text(model, "pytorch", toy.LIMITS)
    names = list(toy.batch(1, 4))
    for index, name in enumerate(names):
        text = text.replace(f'"{name}"', f'"in__{index}"')
    head, first, second, rest = text.split("input {\n", 3)
    text = "input {\n".join((head, second, first, rest))
    add_and_load(toy_server, toy_weights, model, "pytorch", text)
    arrays = toy.batch(3, 16)
    renamed = {f"in__{i}": arrays[name] for i, name in enumerate(names)}
    assert_equal(infer(toy_server.address("grpc"), model, renamed), toy.eager(arrays))


def test_outputs_come_by_name_in_any_order_of_the_config(toy_server, toy_weights):
    """Of ONNX by name, of TorchScript, whose outputs have none, by the index of NAME__INDEX."""
    arrays = toy.batch(3, 16)
    for backend, item, score in (
        ("onnxruntime", "item", "score"),
        ("pytorch", "out__0", "out__1"),
    ):
        model = f"toy_{backend}_swapped"
        text = config_text(model, backend, toy.LIMITS)
        text = text.replace('"item"', f'"{item}"').replace('"score"', f'"{score}"')
        head, first, rest = text.split("output {\n", 2)
        second, _, rest = rest.partition("}\n")
        text = f"{head}output {{\n{second}}}\noutput {{\n{first}{rest}"
        add_and_load(toy_server, toy_weights, model, backend, text)
        answer = infer(toy_server.address("grpc"), model, arrays)
        assert_equal({"item": answer[item], "score": answer[score]}, toy.eager(arrays))


class Parallel(toy.Toy):
    """The toy beside work for both of torch's pools, which would not start for less."""

    def forward(self, history, history_time, history_weight, request_time, user_features,
                exclude, category_filter):  # fmt: skip
        item, score = super().forward(history, history_time, history_weight, request_time,
                                      user_features, exclude, category_filter)  # fmt: skip
        return item, score + 0 * work(history_weight)


def total(weight):
    return weight.sum()


def forked(weight):
    waiting = torch.jit.fork(total, weight)
    return torch.exp(-total(weight).abs() * torch.ones(1_000_000)).sum() + torch.jit.wait(waiting)


with warnings.catch_warnings(action="ignore"):  # deprecated in favour of torch.export
    work = torch.jit.script(forked)


DEFAULT_SESSION = """
import sys, onnxruntime, psutil
before = psutil.Process().num_threads()
session = onnxruntime.InferenceSession(sys.argv[1])
print(psutil.Process().num_threads() - before + 1)
"""


def default_onnx_threads(path):
    """Of ONNX Runtime, for whoever says nothing."""
    command = [sys.executable, "-c", DEFAULT_SESSION, str(path)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def default_torch_threads(_):
    return int(os.environ["OMP_NUM_THREADS"])  # set in conftest.py, inherited by the servers


THREAD_CASES = {
    "onnx, in an operator": ("onnxruntime", "intra_op_threads", default_onnx_threads),
    "torch, in an operator": ("pytorch", "intra_op_threads", default_torch_threads),
    "torch, operators at a time": ("pytorch", "inter_op_threads", None),
}


@pytest.mark.parametrize("case", THREAD_CASES)
def test_threads_of_the_config_are_those_of_the_process(toy_server, tmp_path, case):
    backend, setting, default = THREAD_CASES[case]
    path = tmp_path / toy.FILES[backend]
    write = toy.write_onnx if backend == "onnxruntime" else toy.write_torchscript
    write(path, Parallel() if backend == "pytorch" else None)
    seen = {}
    for count in (1, 3, 0):
        model = f"toy_{backend}_{setting}_{count}"
        text = config_text(model, backend, toy.LIMITS, ServingConfig(**{setting: count}))
        add_and_load(toy_server, {backend: path}, model, backend, text)
        infer(toy_server.address("grpc"), model, toy.batch(2, 4))
        (pid,) = stubs_of(toy_server, model)
        seen[count] = psutil.Process(pid).num_threads()
        controlled(toy_server, lambda control, model=model: control.unload(model))
    assert seen[3] - seen[1] in (2, 4)  # torch may have a pool for each of two calling threads
    pools = (seen[3] - seen[1]) // 2
    assert not default or seen[0] - seen[1] == (default(path) - 1) * pools


# settings of a CPU -> how many stubs serve the model
LIVE = {
    "no batching": ({"batching": False}, 1),
    "a delay": ({"queue_delay_us": 500}, 1),
    "preferred batches": ({"preferred_batch_sizes": (4, 8)}, 1),
    "two instances": ({"instances": 2}, 2),
    "on the CPU": ({"kind": "cpu"}, 1),
    "the runtime's threads": ({"intra_op_threads": 0, "inter_op_threads": 0}, 1),
    "no warm-up": ({"warmup": False}, 1),
    "a GPU's accelerator, unused": ({"tensorrt": "fp16"}, 1),
}


@pytest.mark.parametrize("backend", ["onnxruntime", "pytorch"])
@pytest.mark.parametrize("case", LIVE)
def test_every_setting_of_a_cpu_loads_and_answers_rightly(toy_server, toy_weights, backend, case):
    changes, stubs = LIVE[case]
    model = f"toy_{backend}_{'_'.join(changes)}"
    text = config_text(model, backend, toy.LIMITS, ServingConfig(**changes))
    add_and_load(toy_server, toy_weights, model, backend, text)
    assert len(stubs_of(toy_server, model)) == stubs
    batches = [toy.batch(1, 4, seed=seed) for seed in range(12)]
    answers, executions = at_once(toy_server.grpc, model, batches)
    for arrays, seen in zip(batches, answers, strict=True):
        assert_equal(seen, toy.eager(arrays))
    if case == "no batching":
        assert executions == len(batches)
    controlled(toy_server, lambda control: control.unload(model))


@pytest.mark.parametrize(
    "changes",
    # The first waits for others, so that the queue is full however slowly they are sent.
    [{"max_queue_size": 1, "queue_delay_us": 300_000}, {"queue_timeout_us": 1}],
    ids=["queue size", "timeout"],
)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_the_queue_policy_turns_away_is_told_so_and_the_others_are_answered(
    toy_server, toy_weights, changes, scheme
):
    model = f"toy_{'_'.join(changes)}_{scheme[:4]}"
    text = config_text(model, "onnxruntime", toy.LIMITS, ServingConfig(**changes))
    add_and_load(toy_server, toy_weights, model, "onnxruntime", text)
    batches = [toy.batch(1, 4 + 12 * (seed % 2), seed=seed) for seed in range(40)]

    async def ask():
        client = connect(toy_server.address(scheme))
        asked = (client.infer(model, 1, one, timeout_s=60) for one in batches)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        await client.close()
        return answers

    answers = asyncio.run(ask())
    refused = [one for one in answers if isinstance(one, Exception)]
    assert refused
    assert (
        len(refused) < 40 or "queue_timeout_us" in changes
    )  # a microsecond: nobody may be in time
    for one in refused:
        assert isinstance(one, Unavailable) and "has too much to do" in one.what
    for arrays, seen in zip(batches, answers, strict=True):
        if seen not in refused:
            assert_equal(seen, toy.eager(arrays))
    controlled(toy_server, lambda control: control.unload(model))


# change of the tensorrt accelerator's text -> words of the refusal, on the CPU too
WRONG_ACCELERATORS = {
    "its name": (replaced('name: "tensorrt"', 'name: "abacus"'), "abacus"),
    "its device": (
        replaced("gpu_execution_accelerator", "cpu_execution_accelerator"), "tensorrt"),
    "a parameter's name": (
        replaced('"trt_engine_cache_enable"', '"trt_make_it_fast"'), "trt_make_it_fast"),
    "a precision": (replaced('"FP16"', '"FP4"'), "precision_mode of the tensorrt accelerator"),
    "a size": (replaced('"1073741824"', '"1 GB"'), "'1 GB'"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_ACCELERATORS)
def test_an_accelerator_that_no_gpu_would_know_is_refused_on_a_cpu(toy_server, toy_weights, case):
    change, words = WRONG_ACCELERATORS[case]
    model = "wrong_accelerator_" + "".join(c if c.isalnum() else "_" for c in case)
    serving = ServingConfig(tensorrt="fp16")
    text = change(config_text(model, "onnxruntime", toy.LIMITS, serving))
    with pytest.raises(ReleaseError) as refusal:
        add_and_load(toy_server, toy_weights, model, "onnxruntime", text)
    assert words in refusal.value.what
    assert "\n" not in str(refusal.value)


def test_torchscript_has_no_accelerator(toy_server, toy_weights):
    accelerator = 'gpu_execution_accelerator { name: "tensorrt" }'
    text = config_text("torch_accelerated", "pytorch", toy.LIMITS)
    text += f"optimization {{ execution_accelerators {{ {accelerator} }} }}"
    with pytest.raises(ReleaseError, match="tensorrt"):
        add_and_load(toy_server, toy_weights, "torch_accelerated", "pytorch", text)


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is one")
@pytest.mark.parametrize("backend", ["onnxruntime", "pytorch"])
@pytest.mark.parametrize("gpus", [(), (0,)])
def test_a_model_for_gpus_is_refused_where_there_is_none(toy_server, toy_weights, backend, gpus):
    model = f"toy_{backend}_gpu_{len(gpus)}"
    text = config_text(model, backend, toy.LIMITS, ServingConfig(kind="gpu", gpus=gpus))
    with pytest.raises(ReleaseError, match=r"(?i)gpu"):
        add_and_load(toy_server, toy_weights, model, backend, text)


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
