"""What a load asks: endpoints, filters, users of a folder, histories; every answer is checked."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import uvloop
from bento_process import Service, write_index
from known_server import (
    ITEMS,
    USERS,
    answering,
    right,
    seen_by,
    write_release,
    write_version,
)
from served import Stack

from client.load.mix import Mix
from client.load.plan import Plan
from client.load.questions import Question, Questions
from client.load.report import Report
from client.load.session import run
from recommender.errors import BadInput, DataError
from recommender.release import Release, read_release

EVERYTHING = Mix.of(
    "recommend=4,similar=1,rank=1,popular=1,events=1", "categories=0.3,exclude=0.2,only=0.1"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="module")
def release(folder: Path) -> Release:
    return read_release(folder)


def load(address: str, folder: Path, **plan: Any) -> Report:
    return uvloop.run(run(Plan(target=address, repository=folder, **plan)))


def asked(release: Release, count: int, **how: Any) -> list[tuple[Question, dict[str, Any]]]:
    options = {"mix": Mix(), "n": 10, "now": 2_000_000, **how}
    questions = islice(Questions(release, release.users, **options), count)
    return [(question, json.loads(question.body)) for question in questions]


def test_endpoints_come_by_their_weights(release: Release) -> None:
    mix = Mix.of("recommend=8,similar=1,events=1")
    paths = Counter(question.path for question, _ in asked(release, 5000, mix=mix))
    assert paths["/v1/recommend"] == pytest.approx(4000, abs=150)
    assert paths["/v1/similar"] == pytest.approx(500, abs=110)
    assert paths["/v1/events"] == pytest.approx(500, abs=110)


def test_filters_come_by_their_shares_where_one_is_taken(release: Release) -> None:
    mix = Mix.of("recommend=1,rank=1", "categories=0.2,exclude=0.1,only=0.05")
    kinds = Counter[str]()
    for question, body in asked(release, 6000, mix=mix):
        if question.path == "/v1/rank":
            assert "filter" not in body
        else:
            kinds[next(iter(body.get("filter", {"none": 1})))] += 1
    share = kinds.total()
    assert kinds["categories"] / share == pytest.approx(0.2, abs=0.04)
    assert kinds["exclude"] / share == pytest.approx(0.1, abs=0.03)
    assert kinds["only"] / share == pytest.approx(0.05, abs=0.025)
    assert Mix.of(None, "0.2").filters == {"categories": 0.2}


def test_users_are_named_or_their_histories_sent(release: Release) -> None:
    for question, body in asked(release, USERS):
        assert set(body) == {"user_id", "n"} and question.user_id == body["user_id"]
        assert question.part.length == 8  # the bucket of 5 events
    histories = {tuple(body["history"]) for _, body in asked(release, USERS, inline=True)}
    assert histories == {tuple(f"item-{i}" for i in seen_by(u)) for u in range(USERS)}


def test_the_mix_is_asked_and_right_answers_pass(folder: Path) -> None:
    with answering(lambda _, body: (0.0, 200, right(body))) as (address, server):
        for inline in (False, True):
            found = load(address, folder, requests=400, mix=EVERYTHING, zipf=1.0, inline=inline)
            assert (found.errors, found.wrong) == ({}, {})
            assert found.right == found.requests == 400
    assert server.paths == {
        "/v1/recommend", "/v1/similar", "/v1/rank", "/v1/popular", "/v1/events"
    }  # fmt: skip
    assert set(found.by) == {"recommend", "similar", "rank", "popular", "events"}
    assert sum(share.requests for share in found.by.values()) == 400
    assert set(found.lengths) == {8}


def blind_to(field: str) -> Any:
    """The right answer to the body without one of its fields."""

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        wanted = {k: v for k, v in body.get("filter", {}).items() if k != field}
        return right({k: v for k, v in body.items() if k != field} | {"filter": wanted})

    return answer


def few_events(body: dict[str, Any]) -> dict[str, Any]:
    return {"accepted": 0, "duplicates": 0}


def one_candidate_swapped(body: dict[str, Any]) -> dict[str, Any]:
    answer = right(body)
    others = {f"item-{i}" for i in range(1, 61)} - set(body["candidates"])
    answer["items"][3]["item_id"] = min(others)
    return answer


@pytest.mark.parametrize(
    ("mix", "answer", "kind"),
    [
        (
            Mix.of("recommend=1", "categories=1"),
            blind_to("categories"),
            "an item that the filter does not let through",
        ),
        (Mix.of("popular=1", "exclude=1"), blind_to("exclude"), "an item that was excluded"),
        (Mix.of("similar=1"), blind_to("item_id"), "an item that was excluded"),
        (Mix.of("rank=1"), one_candidate_swapped, "an item that the filter does not let through"),
        (Mix.of("events=1"), few_events, "0 events taken instead of 1"),
    ],
)
def test_what_an_answer_does_not_keep_is_found(
    folder: Path, mix: Mix, answer: Any, kind: str
) -> None:
    with answering(lambda _, body: (0.0, 200, answer(body))) as (address, _):
        found = load(address, folder, requests=100, mix=mix)
    assert kind in found.wrong and not found.passed


def test_a_history_that_was_sent_may_not_come_back(folder: Path) -> None:
    with answering(lambda _, body: (0.0, 200, blind_to("history")(body))) as (address, _):
        found = load(address, folder, requests=50, inline=True)
    assert "an item that was excluded" in found.wrong


def test_an_answer_is_judged_by_the_release_that_it_names(tmp_path: Path) -> None:
    """A promotion in the middle of a run is none of its faults; an answer of both releases is."""
    old, new = ([f"{name}-{i}" for i in range(1, ITEMS + 1)] for name in ("item", "new"))
    homes = {number: write_version(tmp_path, number, ids) for number, ids in ((1, old), (2, new))}
    write_index(tmp_path, serving=1, releases=homes)

    def behaviour(number: int, body: dict[str, Any]) -> Any:
        answer = right(body)
        if number >= 70:  # of 20 + 100
            for item in answer["items"]:
                item["item_id"] = item["item_id"].replace("item", "new")
            answer["release"] = 2
        if number >= 110:
            answer["items"][0]["item_id"] = "item-60"
        return 0.0, 200, answer

    with answering(behaviour) as (address, _):
        found = load(address, tmp_path, requests=100)
    assert found.releases == {1: 50, 2: 50}
    assert found.wrong == {"an item outside the catalogue": 10} and found.right == 90


def test_users_come_from_a_data_folder(folder: Path, tmp_path: Path) -> None:
    rows = [f"u{u},item-{i},{100 - i}" for u in (1, 2) for i in (9, 7, 8)]
    rows.append("u3,item-unknown,5")  # no event that the release knows
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(rows))
    bodies = list[dict[str, Any]]()

    def behaviour(_: int, body: dict[str, Any]) -> Any:
        bodies.append(body)
        return 0.0, 200, right(body)

    with answering(behaviour) as (address, _):
        assert load(address, folder, requests=20, data=tmp_path, inline=True).right == 20
    assert {tuple(body["history"]) for body in bodies} == {("item-9", "item-8", "item-7")}
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp\nu,x,5\n")
    with pytest.raises(DataError, match="no event of an item that the release knows"):
        load("http://127.0.0.1:13299", folder, requests=1, data=tmp_path)


def test_a_mix_that_makes_no_sense_is_refused(folder: Path) -> None:
    for mix in ("recommend", "recommend=-1", "recommend=0", "dance=1"):
        with pytest.raises(BadInput):
            Mix.of(mix)
    for filters in ("only=0.6,exclude=0.6", "price=0.1", "2"):
        with pytest.raises(BadInput):
            Mix.of(None, filters)
    with pytest.raises(BadInput, match="has no similar, filter only"):
        load("grpc://x:1", folder, requests=1, mix=Mix.of("recommend=1,similar=1", "only=0.1"))


# On the real servers.


def test_the_service_answers_the_whole_mix_rightly(stack: Stack, aside: Service) -> None:
    blocked = aside.post("/v1/blocked", {})["items"]  # by who had the service before
    assert aside.post("/v1/blocked", {"remove": blocked})["items"] == []
    for inline in (False, True):
        found = load(
            aside.url,
            stack.repository,
            requests=300,
            concurrency=2,
            mix=EVERYTHING,
            zipf=0.9,
            inline=inline,
        )
        assert (found.errors, found.wrong) == ({}, {})
        assert found.right == found.requests == 300
    assert len(found.by) == 5
    assert found.releases.keys() == {found.release}


@pytest.mark.parametrize("target", ["grpc", "http"])
def test_triton_answers_rightly_with_categories(stack: Stack, target: str) -> None:
    mix = Mix.of("recommend=1", "categories=0.5")
    found = load(getattr(stack, target), stack.repository, requests=60, mix=mix)
    assert (found.errors, found.wrong) == ({}, {})
    assert found.right == 60
