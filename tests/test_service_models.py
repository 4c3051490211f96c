"""Every route on a real release in a real Triton: its ranker, its similar items, its explainer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from served import ITEMS, Stack

from bento.asking import Models
from bento.preprocess import nothing_but
from client.api import Answer
from client.service import AsyncRecserveClient, RecserveClient
from client.tensors import connect
from export.parity import TOLERANCE
from recommender.errors import BadInput, NotFound
from recommender.explain import explain
from recommender.features import Request
from recommender.release import read_release
from recommender.runs import Run

USERS = [f"user-{i:06}" for i in (2, 7, 42, 120, 299)]  # 1 clicks on the page
PATIENT = 2000  # ms: a busy test machine is no outage


@pytest.fixture(scope="module")
def bento(stack: Stack) -> Iterator[RecserveClient]:
    with RecserveClient(stack.url, timeout_s=30) as client:
        yield client


def ids(answer: Answer) -> list[str]:
    assert not answer.fallback
    return [item.item_id for item in answer.items]


def scores(answer: Answer) -> list[float | None]:
    return [item.score for item in answer.items]


# Allow-lists and given candidates


@pytest.mark.parametrize("user", USERS)
def test_an_allow_list_is_answered_in_the_recommenders_order_by_its_scores(
    bento: RecserveClient, user: str
) -> None:
    whole = bento.recommend(user_id=user, n=100, deadline_ms=PATIENT)
    only = [item.item_id for item in whole.items[::7]]
    answer = bento.recommend(user_id=user, filter={"only": only[::-1]}, n=50, deadline_ms=PATIENT)
    assert ids(answer) == only
    assert answer.model == "ranker"
    wanted = {item.item_id: item.score for item in whole.items}
    assert scores(answer) == pytest.approx([wanted[item] for item in only], abs=1e-4)
    assert not answer.notes


def test_an_allow_list_of_all_there_is_changes_nothing(bento: RecserveClient, run: Run) -> None:
    everything = list(run.blueprint.catalogue.item_ids)
    for more in ({}, {"filter": {"categories": ["group-001"]}}):
        whole = bento.recommend(user_id=USERS[0], n=100, deadline_ms=PATIENT, **more)
        wanted = {"only": everything, **more.get("filter", {})}
        answer = bento.recommend(user_id=USERS[0], n=100, deadline_ms=PATIENT, filter=wanted)
        assert ids(answer) == ids(whole)
        assert scores(answer) == pytest.approx(scores(whole), abs=1e-4)


def test_excluded_and_seen_items_stay_out_of_an_allow_list(bento: RecserveClient, run: Run) -> None:
    row = run.users.row(USERS[1]) or 0
    seen = [run.blueprint.catalogue.item_id(int(i)) for i in run.users.history(row).items[:3]]
    free = ids(bento.recommend(user_id=USERS[1], n=4, deadline_ms=PATIENT))
    wanted = {"only": [*seen, *free], "exclude": free[:1]}
    answer = bento.recommend(user_id=USERS[1], filter=wanted, deadline_ms=PATIENT)
    assert ids(answer) == free[1:]
    answer = bento.recommend(user_id=USERS[1], filter=wanted, allow_seen=True, deadline_ms=PATIENT)
    assert {*ids(answer)} == {*seen, *free[1:]}


def test_candidates_are_ranked_as_the_recommender_would(bento: RecserveClient) -> None:
    for user in USERS:
        whole = bento.recommend(user_id=user, n=100, deadline_ms=PATIENT)
        shuffled = ids(whole)[::-1][::3]
        answer = bento.rank(user_id=user, candidates=[*shuffled, "gone"], deadline_ms=PATIENT)
        assert ids(answer) == [item for item in ids(whole) if item in shuffled]
        assert (answer.model, answer.ignored) == ("ranker", ["gone"])
        assert [item.rank for item in answer.items] == [*range(1, len(shuffled) + 1)]
    given = bento.rank(history=["item-000007"], candidates=shuffled, deadline_ms=PATIENT)
    other = bento.rank(history=["item-000090"], candidates=shuffled, deadline_ms=PATIENT)
    assert scores(given) != scores(other)


def test_seen_items_are_candidates_like_any_other(bento: RecserveClient, run: Run) -> None:
    answer = bento.rank(
        user_id=USERS[0], candidates=run.blueprint.catalogue.item_ids, deadline_ms=PATIENT
    )
    assert len(answer.items) == ITEMS
    assert scores(answer) == sorted(scores(answer), reverse=True)


# Without HTTP: limits that the release of the tests does not reach


def asked(repository: Path, stack: Stack, work: object) -> object:
    """The result of `await work(models, until)`."""

    async def ask() -> object:
        release = read_release(repository)
        models = Models(
            release, connect(stack.grpc), probed=release.models[0], patience_s=PATIENT / 1000
        )
        try:
            return await work(models, asyncio.get_running_loop().time() + 30)
        finally:
            await models.close()

    return asyncio.run(ask())


def test_more_candidates_than_the_ranker_takes_go_in_several_calls(
    repository: Path, stack: Stack, run: Run
) -> None:
    request = Request(history=run.users.history(3), request_time=run.blueprint.clock)
    items = np.random.default_rng(1).permutation(ITEMS) + 1

    async def both(models: Models, until: float) -> object:
        whole = await models.ranked(request, items, until)
        many = np.resize(items, 512 * 2 + 3)  # repeated: three calls
        return whole, await models.ranked(request, many, until)

    whole, several = asked(repository, stack, both)
    assert len(several.item) == 512 * 2 + 3
    assert list(dict.fromkeys(several.item.tolist())) == whole.item.tolist()
    # The three calls may be rows of one batch, which rounds otherwise than a lone row.
    alone = dict(zip(whole.item.tolist(), whole.score.tolist(), strict=True))
    wanted = [alone[item] for item in several.item.tolist()]
    np.testing.assert_allclose(several.score, wanted, rtol=0, atol=TOLERANCE)


def test_without_a_ranker_all_others_are_excluded_where_they_fit(
    repository: Path, stack: Stack, run: Run
) -> None:
    limits = run.blueprint.limits
    request = Request(history=run.users.history(3), request_time=run.blueprint.clock)
    only = np.array([3, 9, 27, 81])
    assert limits.exclude >= ITEMS - len(only)
    alone = nothing_but(only, request, limits, ITEMS)
    assert isinstance(alone, Request)
    assert nothing_but(only, request, limits, limits.exclude + 5) is None

    async def both(models: Models, until: float) -> object:
        return (
            await models.ranked(request, only, until),
            await models.best("recommender_onnx", alone, until),
        )

    by_ranker, by_recommender = asked(repository, stack, both)
    assert by_ranker.item.tolist() == by_recommender.item.tolist()


# Similar items


def test_similar_items_are_the_models(bento: RecserveClient, run: Run) -> None:
    item = run.blueprint.catalogue.item_id(7)
    answer = bento.similar(item_id=item, n=10, deadline_ms=PATIENT)
    assert (answer.model, answer.variant, len(answer.items)) == ("similar_items", "default", 10)
    assert item not in ids(answer)
    assert scores(answer) == sorted(scores(answer), reverse=True)
    second = bento.similar(item_id=item, n=5, offset=5, deadline_ms=PATIENT)
    assert ids(second) == ids(answer)[5:]
    wanted = {"categories": ["group-001"], "exclude": ids(answer)[:2]}
    filtered = bento.similar(item_id=item, n=5, filter=wanted, deadline_ms=PATIENT)
    assert all("group-001" in found.categories for found in filtered.items)
    assert not {*ids(filtered)} & {*ids(answer)[:2]}


def test_an_allow_list_of_similar_items_is_exact(bento: RecserveClient, run: Run) -> None:
    item = run.blueprint.catalogue.item_id(7)
    whole = ids(bento.similar(item_id=item, n=100, deadline_ms=PATIENT))
    left = [other for other in run.blueprint.catalogue.item_ids if other not in whole]
    wanted = {"only": [whole[30], left[0], whole[2], item]}
    answer = bento.similar(item_id=item, filter=wanted, deadline_ms=PATIENT)
    found = ids(answer)
    assert found[:2] == [whole[2], whole[30]]
    assert {*found} == {whole[2], whole[30], left[0]} - {item}
    assert not answer.notes


def test_an_item_that_is_not_there_is_a_404_of_its_own(bento: RecserveClient) -> None:
    with pytest.raises(NotFound, match="no item 'gone'") as refused:
        bento.similar(item_id="gone")
    assert (refused.value.field, refused.value.value) == ("item_id", "gone")


# Reasons


def test_reasons_are_those_of_the_run_word_by_word(bento: RecserveClient, run: Run) -> None:
    for user in USERS[:3]:
        row = run.users.row(user) or 0
        then = int(run.users.history(row).times[-1])
        context = {"time": then}
        answer = bento.recommend(
            user_id=user, n=5, explain=True, context=context, deadline_ms=PATIENT
        )
        assert not answer.notes
        wanted = explain(run, user, ids(answer), at=then)
        for item, other in zip(answer.items, wanted.items, strict=True):
            assert item.reason is not None
            assert item.reason.text == other.reason.text
            assert [i.item_id for i in item.reason.items] == [
                said.item_id for said in other.reason.items
            ]
            said = {s.name: s.contribution for s in item.reason.signals}
            assert said == pytest.approx(
                {s.name: s.contribution for s in other.reason.signals}, abs=1e-3
            )
            assert sum(said.values()) == pytest.approx(item.score, abs=1e-3)


def test_a_page_has_reasons_of_its_own_and_a_pinned_item_none(bento: RecserveClient) -> None:
    whole = bento.recommend(user_id=USERS[2], n=6, explain=True, deadline_ms=PATIENT)
    page = bento.recommend(user_id=USERS[2], n=3, offset=3, explain=True, deadline_ms=PATIENT)
    assert [i.reason.text for i in page.items if i.reason] == [
        i.reason.text for i in whole.items[3:] if i.reason
    ]
    pin = whole.items[4].item_id
    answer = bento.recommend(
        user_id=USERS[2], n=3, explain=True, rules={"pin": [pin]}, deadline_ms=PATIENT
    )
    assert answer.items[0].item_id == pin and answer.items[0].score == whole.items[4].score
    assert [item.reason is None for item in answer.items] == [True, False, False]
    assert not answer.notes


def test_beyond_what_the_explainer_takes_reasons_are_missing_and_noted(
    bento: RecserveClient,
) -> None:
    answer = bento.recommend(user_id=USERS[0], n=40, explain=True, deadline_ms=PATIENT)
    assert [item.reason is not None for item in answer.items] == [True] * 32 + [False] * 8
    assert answer.notes == ["explanations"]


def test_where_the_time_is_too_short_for_reasons_the_answer_comes_without(
    bento: RecserveClient,
) -> None:
    """Whatever is late, the answer is whole, and says what it lacks."""
    for deadline in (1, 3, 5, 8, 12, 20, 40):
        answer = bento.recommend(user_id=USERS[0], n=10, explain=True, deadline_ms=deadline)
        assert len(answer.items) == 10
        explained = all(item.reason is not None for item in answer.items)
        assert ("explanations" in answer.notes) is not explained
        assert set(answer.notes) <= {"store", "explanations"}  # 1 ms is short for a store, too


# Pages


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"diversity": 0.6},
        {"diversity": 0.3, "rules": {"max_per_category": 15, "pin": ["item-000003"]}},
        {"filter": {"only": [f"item-{i:06}" for i in range(1, 120)]}, "diversity": 0.2},
    ],
    ids=["as ranked", "diversity", "caps and pins", "allow-list"],
)
def test_pages_of_a_models_answer_never_overlap_or_skip(
    bento: RecserveClient, more: Mapping[str, object]
) -> None:
    body = {"user_id": USERS[3], "deadline_ms": PATIENT, "context": {"time": 1_740_000_000}, **more}
    whole = ids(bento.recommend(n=60, **body))
    pages = [ids(bento.recommend(n=7, offset=at, **body)) for at in range(0, 56, 7)]
    assert [item for page in pages for item in page] == whole[:56]
    assert len(set(whole)) == len(whole)


# The client


def test_the_async_client_has_the_same_methods(stack: Stack, bento: RecserveClient) -> None:
    async def ask() -> list[Answer]:
        async with AsyncRecserveClient(stack.url, timeout_s=30) as client:
            assert await client.ready()
            assert (await client.release()).release == 1
            return [
                await client.recommend(user_id=USERS[0], n=3, deadline_ms=PATIENT),
                await client.similar(item_id="item-000007", n=3, deadline_ms=PATIENT),
                await client.rank(candidates=["item-000001", "item-000002"], deadline_ms=PATIENT),
                await client.popular(n=3),
            ]

    wanted = [
        bento.recommend(user_id=USERS[0], n=3, deadline_ms=PATIENT),
        bento.similar(item_id="item-000007", n=3, deadline_ms=PATIENT),
        bento.rank(candidates=["item-000001", "item-000002"], deadline_ms=PATIENT),
        bento.popular(n=3),
    ]
    for answer, other in zip(asyncio.run(ask()), wanted, strict=True):
        assert ids(answer) == ids(other)


def test_the_client_raises_what_the_service_refuses(bento: RecserveClient) -> None:
    with pytest.raises(BadInput, match="1") as refused:
        bento.recommend(diversity=3)
    assert (refused.value.field, refused.value.value) == ("diversity", 3)
