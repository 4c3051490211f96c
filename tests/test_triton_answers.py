"""Answers and refusals of a real tritonserver: both formats, both transports."""

from __future__ import annotations

import asyncio
import socket

import numpy as np
import pytest
import toy
from triton_process import (
    MODELS,
    SCHEMES,
    assert_equal,
    at_once,
    counted,
    infer,
    joined,
    load,
    three_ports,
)
from tritonclient.grpc import service_pb2

from client.control import Control
from client.over_grpc import TritonGrpc
from client.tensors import connect
from recommender.errors import BadInput, NotFound, Unavailable


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("rows", "length"), [(1, 4), (7, 16), (16, 5)])
def test_served_answers_equal_those_in_process(toy_server, scheme, model, rows, length):
    arrays = toy.batch(rows, length, seed=rows)
    assert_equal(infer(toy_server.address(scheme), model, arrays), toy.eager(arrays))


def test_a_catalogue_filtered_and_excluded_away_ends_in_padding(toy_server):
    arrays = toy.batch(2, 4)
    arrays["category_filter"][:] = 1 << 40  # no item has it
    for model in MODELS:
        answer = infer(toy_server.address("grpc"), model, arrays)
        assert (answer["item"] == 0).all()
        assert (answer["score"] == -np.inf).all()


@pytest.mark.parametrize("model", MODELS)
def test_a_row_gets_the_same_answer_alone_and_among_others(toy_server, model):
    arrays = toy.batch(16, 16)
    together = infer(toy_server.address("grpc"), model, arrays)
    for row in (0, 9, 15):
        alone = infer(
            toy_server.address("grpc"), model, {k: a[row : row + 1] for k, a in arrays.items()}
        )
        assert_equal(alone, {name: a[row : row + 1] for name, a in together.items()})


@pytest.mark.parametrize("model", MODELS)
def test_concurrent_requests_are_joined_into_batches(toy_server, model):
    arrays = toy.batch(320, 16)
    rows = [{k: a[i : i + 1] for k, a in arrays.items()} for i in range(320)]
    wanted = toy.eager(arrays)

    async def run():
        client = TritonGrpc(toy_server.grpc)
        answers = [None] * 320

        async def caller(first):
            for i in range(first, 320, 32):
                answers[i] = await client.infer(model, 1, rows[i], timeout_s=20)

        async with Control(toy_server.grpc) as control:
            before = await control.statistics(model, 1)
            await asyncio.gather(*(caller(first) for first in range(32)))
            after = await counted(control, model, before.inferences + 320)
        await client.close()
        return answers, before, after

    answers, before, after = asyncio.run(run())
    assert after.inferences - before.inferences == 320
    assert (after.executions - before.executions) * 2 <= 320
    for i, answer in enumerate(answers):
        assert_equal(answer, {name: a[i : i + 1] for name, a in wanted.items()})


@pytest.mark.parametrize("model", MODELS)
def test_concurrent_requests_of_mixed_lengths_all_get_their_own_answer(toy_server, model):
    batches = [toy.batch(1 + i % 3, (4, 9, 16)[i % 3], seed=i) for i in range(48)]

    async def run():
        client = TritonGrpc(toy_server.grpc)
        try:
            return await asyncio.gather(*(client.infer(model, 1, b, timeout_s=20) for b in batches))
        finally:
            await client.close()

    for batch, answer in zip(batches, asyncio.run(run()), strict=True):
        assert_equal(answer, toy.eager(batch))


@pytest.mark.parametrize("model", MODELS)
def test_a_request_that_breaks_the_model_fails_alone(toy_server, model):
    good = toy.batch(1, 16)
    bad = {**good, "history": np.full_like(good["history"], 10**6)}  # beyond the toy's table

    answers, _ = at_once(toy_server.grpc, model, [bad if i == 5 else good for i in range(16)])
    assert isinstance(answers.pop(5), Unavailable)
    for answer in answers:
        assert_equal(answer, toy.eager(good))


class Loses(toy.Toy):
    """It answers fewer rows than it was asked for, where a time is negative."""

    def forward(self, history, history_time, history_weight, request_time, user_features,
                exclude, category_filter):  # fmt: skip
        item, score = super().forward(history, history_time, history_weight, request_time,
                                      user_features, exclude, category_filter)  # fmt: skip
        kept = request_time[:, 0] >= 0
        return item[kept], score[kept]


def test_a_model_that_loses_a_row_gives_nobody_the_answer_of_another(toy_server, tmp_path):
    toy.write_torchscript(tmp_path / "model.pt", Loses())
    toy.add_model(toy_server.repository, "toy_loses_torchscript", "pytorch", tmp_path / "model.pt")
    load(toy_server, ("toy_loses_torchscript",))
    batches = [toy.batch(1, 16, seed=i) for i in range(16)]
    batches[5]["request_time"][:] = -1
    answers = joined(toy_server.grpc, "toy_loses_torchscript", batches)
    assert isinstance(answers[5], Unavailable)
    assert "answers [0, 0] rows to 1" in answers[5].what
    for i in range(16):
        if i != 5:
            assert_equal(answers[i], toy.eager(batches[i]))


@pytest.mark.parametrize("model", MODELS)
def test_requests_that_are_refused_cost_their_neighbours_nothing(toy_server, model):
    """Wrong types and shapes never reach the batch; what is only odd is answered in it."""
    batches, spoilers = [], [spoil for spoil, _ in BAD_REQUESTS.values()]
    for i in range(48):
        good = toy.batch(1 if i % 2 else 2, 16, seed=i)
        batches.append(spoilers[i // 2 % len(spoilers)](good) if i % 2 == 0 else good)
    batches[1]["history_weight"][:] = np.nan
    batches[3]["category_filter"][:] = np.iinfo(np.int64).min
    batches[7] = toy.batch(1, 3 * toy.LIMITS.history, seed=7)  # longer than any bucket
    answers = joined(toy_server.grpc, model, batches)
    for i in range(48):
        if i % 2 == 0:
            assert isinstance(answers[i], BadInput)
        elif i > 1:
            assert_equal(answers[i], toy.eager(batches[i]))
    assert isinstance(answers[1], dict)


@pytest.mark.parametrize("model", MODELS)
def test_only_the_outputs_asked_for_come_back(toy_server, model):
    async def run():
        client = TritonGrpc(toy_server.grpc)
        request = service_pb2.ModelInferRequest(model_name=model, model_version="1")
        for name, array in toy.batch(1, 4).items():
            kind = "FP32" if array.dtype == np.float32 else "INT64"
            request.inputs.add(name=name, datatype=kind, shape=array.shape)
            request.raw_input_contents.append(array.tobytes())
        request.outputs.add(name="score")
        try:
            return await client.call("ModelInfer", request, timeout_s=20)
        finally:
            await client.close()

    assert [output.name for output in asyncio.run(run()).outputs] == ["score"]


# --- refusals


def changed(name, change):
    return lambda arrays: {**arrays, name: change(arrays[name])}


BAD_REQUESTS = {
    "exclude is too short": (changed("exclude", lambda a: a[:, :3]), "exclude"),
    "a tensor has the wrong type": (
        changed("history", lambda a: a.astype(np.float32)),
        "history",
    ),
    "a tensor is missing": (
        lambda arrays: {k: a for k, a in arrays.items() if k != "exclude"},
        "exclude",
    ),
    "a tensor too many": (lambda arrays: {**arrays, "x": arrays["exclude"]}, "8 inputs"),
    "lengths differ": (changed("history_time", lambda a: a[:, :5]), "history_time"),
    "the batch is too large": (
        lambda arrays: {k: np.repeat(a, 9, axis=0) for k, a in arrays.items()},
        "<= 16",
    ),
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_bad_tensors_are_refused_by_name(toy_server, scheme, model, case):
    spoil, word = BAD_REQUESTS[case]
    with pytest.raises(BadInput) as refusal:
        infer(toy_server.address(scheme), model, spoil(toy.batch(2, 16)))
    assert word in refusal.value.what
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("model", "version"), [("nothing", 1), ("toy_onnx", 9)])
def test_an_unknown_model_or_version_is_not_found(toy_server, scheme, model, version):
    with pytest.raises(NotFound, match=model):
        infer(toy_server.address(scheme), model, toy.batch(1, 4), version)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_ready_is_about_the_exact_version(toy_server, scheme):
    async def run():
        client = connect(toy_server.address(scheme))
        try:
            asked = [("toy_onnx", 1), ("toy_onnx", 2), ("nothing", 1)]
            return [await client.ready(*one) for one in asked], await client.live()
        finally:
            await client.close()

    assert asyncio.run(run()) == ([True, False, False], True)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_nobody_at_the_address_is_unavailable_and_named(scheme):
    address = f"127.0.0.1:{three_ports().http}"
    with pytest.raises(Unavailable, match=address):
        infer(f"{scheme}://{address}", "toy_onnx", toy.batch(1, 4))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_server_that_never_answers_is_unavailable_after_the_deadline(scheme):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, says nothing
        address = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unavailable):
            infer(address, "toy_onnx", toy.batch(1, 4), timeout_s=0.3)


def test_an_unknown_scheme_is_refused():
    with pytest.raises(BadInput, match="grpc://"):
        connect("ftp://somewhere:1")
