"""The Bento service on a real Triton: the model's answers, and what happens when it goes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import toy
from bento_process import (
    CLOCK,
    Service,
    answers,
    bentoml_serve,
    wait_until,
    worker_of,
)
from prometheus_client.parser import text_string_to_metric_families
from toy_release import beside, returning
from triton_process import Returning

from client.service import AsyncRecserveClient, RecserveClient
from recommender.contract import Array
from recommender.errors import BadInput, NotFound, Unavailable
from serving import tritonserver

MODELS = ("recommender_onnx", "recommender_torchscript")
HOUR = 3600


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Returning]:
    with returning(tmp_path_factory.mktemp("triton"), MODELS) as server:
        yield server


@pytest.fixture(scope="module")
def service(triton: Returning, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with bentoml_serve(tmp_path_factory.mktemp("bento"), beside(triton)) as running:
        wait_until(lambda: answers(running.http, "/readyz"))
        yield running


def wanted(
    *,
    items: list[int] = (),
    times: list[int] | None = None,
    time: int = CLOCK,
    user: tuple[int, int] = (0, 0),
    exclude: list[int] = (),
    words: int = 0,
    length: int = 4,
) -> list[tuple[str, float]]:
    """The toy's answer to one question, computed here, in process."""
    padding = [0] * (length - len(items))
    question: dict[str, Array] = {
        "history": np.array([padding + list(items)]),
        "history_time": np.array([padding + (times or [time] * len(items))]),
        "history_weight": np.array([padding + [1.0] * len(items)], np.float32),
        "request_time": np.array([[time]]),
        "user_features": np.array([user]),
        "exclude": np.array([[*exclude, *[0] * (toy.LIMITS.exclude - len(exclude))]]),
        "category_filter": np.array([[words]]),
    }
    answer = toy.eager(question)
    pairs = zip(answer["item"][0].tolist(), answer["score"][0].tolist(), strict=True)
    return [(f"i{index}", score) for index, score in pairs if index]


def assert_answers(answer: dict[str, object], expected: list[tuple[str, float]]) -> None:
    assert answer["fallback"] is False
    assert isinstance(answer["items"], list)
    assert [item["item_id"] for item in answer["items"]] == [item for item, _ in expected]
    scores = [item["score"] for item in answer["items"]]
    np.testing.assert_allclose(scores, [score for _, score in expected], atol=1e-5)


def counted(service: Service, name: str, **labels: str) -> float:
    families = text_string_to_metric_families(service.http.get("/metrics").text)
    samples = [s for f in families for s in f.samples if s.name == name]
    return sum(s.value for s in samples if labels.items() <= s.labels.items())


def fallbacks(service: Service, cause: str) -> float:
    return counted(service, "recserve_fallback_total", cause=cause)


@pytest.mark.parametrize("model", MODELS)
def test_a_known_user_gets_what_the_model_says_of_the_stored_history(
    service: Service, model: str
) -> None:
    before = counted(service, "recserve_exclude_overflow_total")
    answer = service.recommend(user_id="reader", model=model, context={"time": CLOCK})
    newest_first = list(range(10, 2, -1))  # E is 8; the two oldest are dropped afterwards
    expected = wanted(
        items=list(range(1, 11)),
        times=list(range(CLOCK - 10, CLOCK)),
        user=(1, 2),
        exclude=newest_first,
        length=16,
    )
    assert_answers(answer, [pair for pair in expected if pair[0] not in ("i1", "i2")])
    assert answer["model"] == model
    assert counted(service, "recserve_exclude_overflow_total") == before + 2


def test_a_history_without_times_counts_as_plain_and_just_now(service: Service) -> None:
    answer = service.recommend(history=["i7", "i50"], context={"time": CLOCK - HOUR})
    assert_answers(answer, wanted(items=[7, 50], exclude=[50, 7], time=CLOCK - HOUR))


def test_an_unknown_user_and_a_user_without_history_get_the_models_answer(
    service: Service,
) -> None:
    assert_answers(service.recommend(user_id="stranger"), wanted())
    assert_answers(service.recommend(user_id="new"), wanted(user=(2, 1)))


def test_user_columns_of_the_request_come_before_the_stored_ones(service: Service) -> None:
    assert_answers(service.recommend(user={"job": "nurse", "age": 20}), wanted(user=(2, 1)))
    assert_answers(service.recommend(user_id="new", user={"age": 44}), wanted(user=(2, 2)))


def test_time_is_read_from_the_request_and_clamped_to_the_releases_clock(
    service: Service,
) -> None:
    assert_answers(
        service.recommend(context={"time": CLOCK - 5 * HOUR}), wanted(time=CLOCK - 5 * HOUR)
    )
    assert_answers(service.recommend(context={"time": CLOCK + 5 * HOUR}), wanted(time=CLOCK))
    assert_answers(service.recommend(), wanted(time=CLOCK))  # now lies years later


def test_exclusions_and_categories_reach_the_model(service: Service) -> None:
    best = [item for item, _ in wanted()]
    answer = service.recommend(filter={"exclude": best[:3], "categories": ["Comedy", "Noir"]})
    exclude = [int(item[1:]) for item in best[:3]]
    assert_answers(answer, wanted(exclude=exclude, words=0b101))


def test_a_part_of_the_answer_keeps_its_ranks(service: Service) -> None:
    answer = service.recommend(n=3, offset=4)
    assert_answers(answer, wanted()[4:7])
    assert isinstance(answer["items"], list)
    assert [item["rank"] for item in answer["items"]] == [5, 6, 7]


def test_joined_requests_get_the_answers_they_get_alone(service: Service) -> None:
    bodies = [
        {"history": [f"i{1 + (i * k) % 119}" for k in range(1, 2 + i % 9)]} for i in range(64)
    ]
    alone = [service.recommend(**body) for body in bodies]

    async def together() -> list[object]:
        async with AsyncRecserveClient(service.url) as client:
            return await asyncio.gather(*(client.recommend(**body) for body in bodies))

    for one, other in zip(alone, asyncio.run(together()), strict=True):
        assert isinstance(one["items"], list)
        assert [i["item_id"] for i in one["items"]] == [i.item_id for i in other.items]
        assert not other.fallback


def test_the_client_gives_typed_answers_and_the_services_errors(service: Service) -> None:
    with RecserveClient(service.url) as client:
        assert client.ready()
        answer = client.recommend(user_id="reader", n=2, context={"time": CLOCK})
        assert [item.rank for item in answer.items] == [1, 2]
        assert (answer.release, answer.model, answer.fallback) == (1, MODELS[0], False)
        assert client.popular(n=1, filter={"categories": ["Noir"]}).items[0].title == "Title 2"
        with pytest.raises(BadInput, match="from 1 to 10") as refused:
            client.recommend(n=10_000)
        assert (refused.value.field, refused.value.value) == ("n", 10_000)
        with pytest.raises(NotFound, match="nope"):
            client.recommend(model="nope")


def test_the_client_says_when_nobody_answers() -> None:
    with (
        RecserveClient("http://127.0.0.1:13098") as client,
        pytest.raises(Unavailable, match="recserve serve"),
    ):
        client.recommend()
    with pytest.raises(BadInput, match="http://host:port"), RecserveClient("nonsense") as client:
        client.recommend()


def test_the_running_worker_has_neither_torch_nor_pandas_in_its_memory(service: Service) -> None:
    assert service.recommend(user_id="reader", n=3)["fallback"] is False
    assert service.post("/v1/popular", {"n": 3, "text": "title"})["items"]
    paths = [Path(file.path) for file in worker_of(service).memory_maps()]
    parts = {part for path in paths for part in path.parts}
    assert {"msgspec", "numpy", "grpc"} <= parts  # so much for looking at the right process
    assert not [part for part in parts if part.startswith(("torch", "libtorch", "pandas"))]


# From here on Triton goes away; each test leaves it as it found it.


def test_a_triton_that_hangs_is_answered_for_within_the_deadline(
    service: Service, triton: Returning
) -> None:
    before = fallbacks(service, "deadline")
    os.kill(triton.process.pid, signal.SIGSTOP)
    try:
        answer = service.recommend(user_id="reader", n=1, deadline_ms=100)
    finally:
        os.kill(triton.process.pid, signal.SIGCONT)
    assert (answer["fallback"], answer["model"]) == (True, "popularity")
    assert isinstance(answer["items"], list)
    assert answer["items"][0]["item_id"] == "i11"
    assert fallbacks(service, "deadline") == before + 1
    assert_answers(service.recommend(), wanted())


def test_a_triton_that_dies_is_answered_for_and_used_again_when_it_is_back(
    service: Service, triton: Returning
) -> None:
    before = fallbacks(service, "unavailable")
    tritonserver.stop(triton.process)
    assert service.recommend(n=1)["fallback"] is True
    assert fallbacks(service, "unavailable") == before + 1
    assert service.http.get("/readyz").status_code == 200
    triton.start()
    wait_until(lambda: service.recommend(n=1)["fallback"] is False)
    assert_answers(service.recommend(), wanted())


def test_release_says_whether_triton_answers(service: Service, triton: Returning) -> None:
    with RecserveClient(service.url) as client:
        assert client.release().triton == "answers"
        triton.kill()
        try:
            wait_until(lambda: client.recommend(n=1).fallback and client.release().triton == "away")
            assert client.ready()
        finally:
            triton.start()
        wait_until(lambda: client.release().triton == "answers")  # by a probe: nobody asks
        assert not client.recommend(n=1).fallback
