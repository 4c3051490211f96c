"""One behavioural suite over every backend: eager PyTorch, ONNX Runtime, TorchScript, live Triton
with both formats, gRPC and HTTP. The contract is the contract, whoever answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from served import Stack
from triton_process import at_once

from client.tensors import connect
from export.examples import batches
from export.parity import TOLERANCE, compare, onnx_answerer, torchscript_answerer
from recommender.contract import RECOMMENDER_ONNX, RECOMMENDER_TORCHSCRIPT, Array, Limits
from recommender.features import Request, tensors
from recommender.models.graph import answer
from recommender.runs import Run
from recommender.users import History

Answerer = Callable[[dict[str, Array]], Mapping[str, Array]]

BACKENDS = ["eager", "onnx", "torchscript", "triton onnx grpc", "triton onnx http",
            "triton torchscript grpc", "triton torchscript http"]  # fmt: skip


@pytest.fixture(scope="module", params=BACKENDS)
def ask(request: pytest.FixtureRequest, run: Run, repository: Path) -> Answerer:
    name: str = request.param
    if name == "eager":
        return lambda arrays: answer(run.graph, arrays, run.blueprint.limits)
    if name == "onnx":
        return onnx_answerer(repository / RECOMMENDER_ONNX / "1" / "model.onnx")
    if name == "torchscript":
        return torchscript_answerer(repository / RECOMMENDER_TORCHSCRIPT / "1" / "model.pt")
    stack: Stack = request.getfixturevalue("stack")
    model = RECOMMENDER_ONNX if "onnx" in name else RECOMMENDER_TORCHSCRIPT
    return _triton(stack.grpc if "grpc" in name else stack.http, model)


def _triton(address: str, model: str) -> Answerer:
    async def ask(arrays: dict[str, Array]) -> Mapping[str, Array]:
        client = connect(address)
        try:
            return await client.infer(model, 1, arrays, timeout_s=60)
        finally:
            await client.close()

    return lambda arrays: asyncio.run(ask(arrays))


@pytest.fixture
def limits(run: Run) -> Limits:
    return run.blueprint.limits


def history(*items: int) -> History:
    return History(
        items=np.array(items, np.int64),
        times=np.arange(len(items), dtype=np.int64) * 3600 + 1_736_000_000,
        weights=np.ones(len(items), np.float32),
    )


def test_answers_equal_eager_on_random_real_and_hostile_inputs(ask: Answerer, run: Run) -> None:
    blueprint = run.blueprint
    for name, arrays in batches(blueprint.limits, blueprint.items, blueprint.clock, run.users):
        compare(answer(run.graph, arrays, blueprint.limits), ask(arrays), name)


def test_a_row_alone_equals_the_same_row_in_a_batch_of_64(ask: Answerer, run: Run) -> None:
    limits = run.blueprint.limits
    arrays = tensors(
        [Request(history=run.users.history(r), request_time=1_740_000_000) for r in range(64)],
        limits,
    )
    together = ask(arrays)
    for row in (0, 1, 31, 63):
        alone = ask({name: array[row : row + 1] for name, array in arrays.items()})
        assert (alone["item"][0] == together["item"][row]).all()
        assert np.allclose(alone["score"][0], together["score"][row], atol=TOLERANCE)


def test_the_answer_does_not_depend_on_the_length_bucket(ask: Answerer, limits: Limits) -> None:
    request = Request(history=history(3, 9, 4), request_time=1_740_000_000)
    answers = [ask(tensors([request], limits, length=bucket)) for bucket in limits.length_buckets]
    for other in answers[1:]:
        compare(answers[0], other, "another bucket")


def test_scores_fall_and_no_item_comes_twice(ask: Answerer, limits: Limits) -> None:
    answered = ask(tensors([Request(history=history(1, 2, 3))], limits))
    item, score = answered["item"][0], answered["score"][0]
    assert (np.diff(score) <= 0).all()
    assert len(set(item.tolist())) == len(item)
    assert item.dtype == np.int64
    assert score.dtype == np.float32


def test_excluded_items_never_come_back(ask: Answerer, limits: Limits) -> None:
    first = ask(tensors([Request(history=history(5, 6))], limits))["item"][0]
    rest = ask(tensors([Request(history=history(5, 6), exclude=first[:20])], limits))["item"][0]
    assert not set(first[:20].tolist()) & set(rest.tolist())
    assert rest[: len(first) - 20].tolist() == first[20:].tolist()


def test_a_filter_gives_every_item_of_the_category_and_no_other(
    ask: Answerer, run: Run, limits: Limits
) -> None:
    catalogue = run.blueprint.catalogue
    name = catalogue.category_names[1]
    wanted = {i for i in range(1, len(catalogue) + 1) if name in catalogue.categories_of(i)}
    request = Request(history=history(7), category_mask=catalogue.category_mask([name]))
    answered = ask(tensors([request], limits))["item"][0]
    assert set(answered[answered > 0].tolist()) == wanted


def test_an_impossible_filter_gives_nothing(ask: Answerer, limits: Limits) -> None:
    nothing = np.array([np.iinfo(np.int64).min])
    answered = ask(tensors([Request(history=history(7), category_mask=nothing)], limits))
    assert (answered["item"] == 0).all()
    assert np.isneginf(answered["score"]).all()


def test_an_empty_history_is_answered_sensibly(ask: Answerer, limits: Limits) -> None:
    answered = ask(tensors([Request(request_time=1_740_000_000)], limits))
    assert (answered["item"] > 0).all()


def test_times_long_after_the_training_data_change_nothing(ask: Answerer, limits: Limits) -> None:
    now, later = (
        ask(tensors([Request(history=history(7, 8), request_time=time)], limits))
        for time in (1_900_000_000, 4_000_000_000)
    )
    compare(now, later, "a century later")


@pytest.mark.parametrize("model", [RECOMMENDER_ONNX, RECOMMENDER_TORCHSCRIPT])
def test_no_value_of_a_request_fails_the_batch_it_is_joined_to(
    stack: Stack, run: Run, model: str
) -> None:
    """One row of each hostile kind, and of the others, in as few executions as Triton makes."""
    blueprint, length = run.blueprint, run.blueprint.limits.length_buckets[0]
    every = batches(blueprint.limits, blueprint.items, blueprint.clock, run.users)
    alone = [
        {name: array[:1] for name, array in arrays.items()}
        for _, arrays in every
        if arrays["history"].shape[1] == length
    ]
    assert len(alone) > 8
    answered, executions = at_once(stack.grpc.removeprefix("grpc://"), model, alone * 3)
    for arrays, seen in zip(alone * 3, answered, strict=True):
        compare(answer(run.graph, arrays, blueprint.limits), seen, "joined")
    assert executions < len(answered)


def test_a_history_beyond_the_limit_harms_no_later_request(ask: Answerer, limits: Limits) -> None:
    arrays = tensors([Request(history=history(7))], limits)
    longer = tensors([Request(history=history(*[7] * (limits.history + 9)))], limits,
                     length=limits.history + 9)  # fmt: skip
    with contextlib.suppress(Exception):  # refused, or answered: ONNX Runtime checks no maximum
        ask(longer)
    assert (ask(arrays)["item"] > 0).any()


def test_a_wrong_shape_is_refused_and_the_next_request_is_answered(
    ask: Answerer, limits: Limits
) -> None:
    arrays = tensors([Request(history=history(7))], limits)
    broken = {**arrays, "exclude": arrays["exclude"].reshape(-1)[: limits.exclude - 1]}
    with pytest.raises(Exception):  # noqa: B017 -- each backend has its own
        ask(broken)
    assert (ask(arrays)["item"] > 0).any()
