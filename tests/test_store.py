"""The event store as its callers see it: the same over SQLite and a real Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from stores import DAY, NOW, WEIGHTS, RedisServer, event, opened, past, redis_server

from bento.store import Blocked, Clicks, Counted, Impression, Keep, connect, reading
from recommender.errors import BadInput, Unavailable

BACKENDS = ("sqlite", "redis")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path, server: RedisServer) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/shop/events.db"
    server.empty()
    return server.url


def test_an_event_is_in_the_history_once_it_is_acknowledged(url: str) -> None:
    async def act() -> None:
        async with opened(url) as store:
            for number in range(20):
                counted = await store.add([event(number, at=NOW + number)], weights=WEIGHTS)
                assert counted == Counted(accepted=1, duplicates=0, forgotten=0)
                assert (await store.person("ann", limit=1)).past.times == [NOW + number]

    asyncio.run(act())


def test_an_event_comes_back_as_it_was_sent(url: str) -> None:
    odd = event(7, user="Ünï:\n'\"{}", item="☃ i\x00\x1f\u2028\\", kind="Wish List", request="r:1")

    async def act() -> None:
        async with opened(url) as store:
            await store.add([odd], weights=WEIGHTS)
            assert (await store.person(odd.user_id, limit=5)).past == past(odd)
        with reading(url) as reader:
            assert list(reader.events()) == [odd]

    asyncio.run(act())


def test_a_repeat_is_a_duplicate_and_changes_nothing(url: str) -> None:
    async def act() -> None:
        async with opened(url) as store:
            first = [event(1), event(2, at=NOW + 1), event(1)]
            assert await store.add(first, weights=WEIGHTS) == Counted(2, 1, 0)
            assert await store.add(first, weights=WEIGHTS) == Counted(0, 3, 0)
            other = event(1, user="bob")  # an event id is its user's own
            assert await store.add([other], weights=WEIGHTS) == Counted(1, 0, 0)
            assert len((await store.person("ann", limit=9)).past.items) == 2

    asyncio.run(act())


def test_histories_are_sorted_by_time_then_arrival_and_limited_to_the_newest(url: str) -> None:
    times = [5, 1, 9, 5, 0, 9]

    async def act() -> None:
        async with opened(url) as store:
            sent = [event(i, item=f"i{i}", at=NOW + t) for i, t in enumerate(times)]
            await store.add(sent, weights=WEIGHTS)
            in_order = [sent[i] for i in (4, 1, 0, 3, 2, 5)]
            assert (await store.person("ann", limit=99)).past == past(*in_order)
            assert (await store.person("ann", limit=2)).past == past(*in_order[-2:])
            assert (await store.person("ann", limit=0)).past == past()
            assert (await store.person("nobody", limit=5)).past == past()

    asyncio.run(act())


def test_a_history_keeps_its_newest_events_and_what_it_dropped_never_counts_again(url: str) -> None:
    old = [event(i, item=f"i{i}", at=NOW + i * DAY) for i in range(8)]

    async def act() -> None:
        async with opened(url, Keep(events_per_user=5)) as store:
            assert (await store.add(old, weights=WEIGHTS)).accepted == 8
            assert (await store.person("ann", limit=99)).past == past(*old[3:])
            before = await store.trends(now=NOW + 8 * DAY, half_life_days=30)
            assert await store.add(old[:5], weights=WEIGHTS) == Counted(0, 5, 0)
            assert await store.trends(now=NOW + 8 * DAY, half_life_days=30) == before

    asyncio.run(act())


def test_votes_decay_by_their_own_time_whenever_they_arrive(url: str) -> None:
    async def act() -> None:
        async with opened(url) as store:
            late = [event(1, "ann", at=NOW - 7 * DAY), event(2, "bob", at=NOW - 14 * DAY)]
            await store.add([event(3, "eve"), *late], weights=WEIGHTS)
            await store.add([event(4, "ann", "i2", "purchase")], weights=WEIGHTS)
            trends = await store.trends(now=NOW, half_life_days=7)
            assert trends == pytest.approx({"i1": 1 + 1 / 2 + 1 / 4, "i2": 4.0})
            later = await store.trends(now=NOW + 14 * DAY, half_life_days=7)
            assert later == pytest.approx({"i1": 1.75 / 4, "i2": 1.0})
            assert await store.trends(now=NOW + 400 * DAY, half_life_days=7) == {}

    asyncio.run(act())


def test_one_user_lifts_an_item_once_a_day_and_by_the_strongest_act(url: str) -> None:
    async def act() -> None:
        async with opened(url) as store:
            flood = [event(i, at=NOW + i) for i in range(50)]
            await store.add(flood, weights=WEIGHTS)
            trends = await store.trends(now=NOW, half_life_days=1000)
            assert trends == pytest.approx({"i1": 1.0}, rel=1e-3)
            await store.add([event(100, kind="purchase"), event(101)], weights=WEIGHTS)
            trends = await store.trends(now=NOW, half_life_days=1000)
            assert trends == pytest.approx({"i1": 4.0}, rel=1e-3)
            await store.add([event(102, at=NOW + DAY), event(103, "bob")], weights=WEIGHTS)
            trends = await store.trends(now=NOW, half_life_days=1000)
            assert trends == pytest.approx({"i1": 6.0}, rel=1e-3)

    asyncio.run(act())


def test_returns_and_weightless_acts_lift_nothing_and_unknown_ones_count_one(url: str) -> None:
    async def act() -> None:
        async with opened(url) as store:
            kinds = [event(1, item="a", kind="return"), event(2, item="b", kind="impression"),
                     event(3, item="c", kind="wishlist"), event(4, item="b")]  # fmt: skip
            await store.add(kinds, weights=WEIGHTS)
            assert await store.trends(now=NOW, half_life_days=7) == pytest.approx({"b": 1, "c": 1})
            assert len((await store.person("ann", limit=9)).past.items) == 4

    asyncio.run(act())


def test_another_half_life_counts_anew_from_the_events(url: str) -> None:
    async def act() -> None:
        async with opened(url) as store:
            await store.add([event(1, at=NOW - 10 * DAY), event(2, "bob")], weights=WEIGHTS)
            for days, votes in ((10.0, 1.5), (5.0, 1.25), (10.0, 1.5)):
                trends = await store.trends(now=NOW, half_life_days=days)
                assert trends == pytest.approx({"i1": votes})

    asyncio.run(act())


def test_trends_stay_finite_far_into_the_future_and_at_tiny_half_lives(url: str) -> None:
    async def act() -> None:
        async with opened(url) as store:
            await store.trends(now=NOW, half_life_days=0.01)
            for year in range(50):
                await store.add([event(year, at=NOW + year * 365 * DAY)], weights=WEIGHTS)
            trends = await store.trends(now=NOW + 49 * 365 * DAY, half_life_days=0.01)
            assert trends == pytest.approx({"i1": 1.0})
            assert (await store.trends(now=NOW, half_life_days=0.01))["i1"] < float("inf")

    asyncio.run(act())


def test_what_was_forgotten_is_gone_and_a_late_retry_does_not_bring_it_back(url: str) -> None:
    shown = Impression(
        request_id="r", variant="a", release=1, user_id="ann", items=("i1",), time=int(time.time())
    )

    async def act() -> None:
        async with opened(url) as store:
            mine = [event(i, item=f"i{i}", at=NOW + i) for i in range(5)]
            await store.add([*mine, event(9, "bob", "i1")], weights=WEIGHTS)
            await store.impressions([shown])
            assert await store.forget("ann", now=NOW + 100) == 5
            person = await store.person("ann", limit=9)
            assert (person.past, person.forgotten) == (past(), NOW + 100)
            trends = await store.trends(now=NOW, half_life_days=7)
            assert trends == pytest.approx({"i1": 1.0})  # bob's
            late = msgspec.structs.replace(shown, request_id="late", time=NOW + 50)
            await store.impressions([late])
            assert await store.click_through(since=0) == []
            assert await store.add(mine, weights=WEIGHTS) == Counted(0, 0, 5)
            assert (await store.person("bob", limit=9)).forgotten is None
            new = event(20, at=NOW + 101)
            assert await store.add([event(21, at=NOW + 100), new], weights=WEIGHTS) == (1, 0, 1)
            assert (await store.person("ann", limit=9)).past == past(new)
            assert await store.forget("ann", now=NOW) == 1  # never takes an erasure back
            assert (await store.person("ann", limit=9)).forgotten == NOW + 100

    asyncio.run(act())


def test_blocked_items_take_effect_and_every_change_counts(url: str) -> None:
    async def act() -> None:
        async with opened(url) as store:
            assert await store.blocked() == Blocked(frozenset(), 0)
            assert await store.block(add=["a", "b"], remove=["c"]) == Blocked(frozenset("ab"), 1)
            assert await store.block(add=["a"], remove=["a", "b"]) == Blocked(frozenset("a"), 2)
            assert await store.block(add=["a"], remove=["x"]) == Blocked(frozenset("a"), 2)
            assert await store.blocked() == Blocked(frozenset("a"), 2)

    asyncio.run(act())


def test_clicks_are_attributed_by_request_or_by_user_and_item_within_the_hour(url: str) -> None:
    now = int(time.time()) - 3 * 3600

    def answer(request: str, variant: str, user: str | None, *items: str, at: int = now):
        return Impression(request_id=request, variant=variant, release=2, user_id=user,
                          items=items, time=at)  # fmt: skip

    async def act() -> None:
        async with opened(url) as store:
            shown = [
                answer("r1", "a", "ann", "i1", "i2", "i3"),
                answer("r2", "b", "ann", "i1", at=now + 600),
                answer("r3", "a", None, "i1", "i2"),
                answer("old", "a", "ann", "i9", at=now - 8 * DAY),
            ]
            await store.impressions(shown)
            await store.impressions(shown[:2])  # a repeat
            clicks = [
                event(1, item="i1", at=now + 700),  # r2, the newer one
                event(2, item="i2", at=now + 20),  # r1
                event(3, item="i2", kind="purchase", at=now + 30),  # r1 again: once
                event(4, item="i3", at=now + 3601),  # too late
                event(5, item="i3", kind="return", at=now + 5),  # no click
                event(6, "bob", "i1", at=now + 9000, request="r3"),  # by its request
                event(7, "bob", "i7", at=now + 60, request="r3"),  # not shown there
            ]
            await store.add(clicks, weights=WEIGHTS)
            assert await store.click_through(since=now - DAY) == [
                clicks_of("a", answers=2, impressions=5, clicks=2),
                clicks_of("b", answers=1, impressions=1, clicks=1),
            ]
            assert (await store.click_through(since=now - DAY))[0].ctr == pytest.approx(0.4)
            assert await store.forget("ann", now=now + 10_000) == 5
            assert await store.click_through(since=0) == [
                clicks_of("a", answers=1, impressions=2, clicks=1)
            ]

    asyncio.run(act())


def clicks_of(variant: str, *, fallback: bool = False, **counts: int) -> Clicks:
    return Clicks(variant=variant, release=2, fallback=fallback, **counts)


def test_fallbacks_of_a_variant_are_counted_apart_from_what_its_models_showed(url: str) -> None:
    now = int(time.time()) - 600

    async def act() -> None:
        async with opened(url) as store:
            of_models = [
                Impression(request_id=f"r{i}", variant="ab"[i % 2], release=2, user_id=f"u{i}",
                           items=("i1", "i2"), time=now)
                for i in range(4)
            ]  # fmt: skip
            away = [
                msgspec.structs.replace(
                    shown, request_id=f"away-{shown.request_id}", time=now + 60, fallback=True
                )
                for shown in of_models[:3]
            ]
            await store.impressions([*away, *of_models])
            clicks = [
                event(1, "u0", at=now + 30),  # by user and item: before the outage
                event(2, "u0", "i2", at=now + 90),  # in it
                event(3, "u1", at=now + 90, request="r1"),  # by request: before it
                event(4, "u1", at=now + 95, request="away-r1"),
                event(5, "u2", at=now + 90),
            ]
            await store.add(clicks, weights=WEIGHTS)
            assert await store.click_through(since=0) == [
                clicks_of("a", answers=2, impressions=4, clicks=1),
                clicks_of("a", fallback=True, answers=2, impressions=4, clicks=2),
                clicks_of("b", answers=2, impressions=4, clicks=1),
                clicks_of("b", fallback=True, answers=1, impressions=2, clicks=1),
            ]

    asyncio.run(act())


def test_answers_of_one_second_are_told_apart_the_same_way_however_they_are_kept(
    url: str,
) -> None:
    now = int(time.time()) - 600
    names = [f"r{i:02}" for i in range(20)]

    async def act() -> None:
        async with opened(url) as store:
            await store.impressions(
                [
                    Impression(request_id=name, variant=name, release=2, user_id="ann",
                               items=("i1",), time=now)
                    for name in (*names[10:], *names[:10])
                ]
            )  # fmt: skip
            await store.add([event(1, at=now + 5)], weights=WEIGHTS)
            clicked = [one.variant for one in await store.click_through(since=0) if one.clicks]
            assert clicked == ["r19"]

    asyncio.run(act())


def test_impressions_are_kept_for_their_time_only(url: str) -> None:
    now = int(time.time())

    async def act() -> None:
        async with opened(url, Keep(impression_days=2)) as store:
            await store.impressions(
                [
                    Impression(request_id=f"r{days}", variant="a", release=1, user_id="ann",
                               items=("i",), time=now - days * DAY + 60)
                    for days in (0, 1, 2, 3)
                ]
            )  # fmt: skip
            (found,) = await store.click_through(since=0)
            assert found.answers == 3

    asyncio.run(act())


def test_everything_survives_a_restart(url: str) -> None:
    async def act() -> None:
        async with opened(url) as store:
            await store.add([event(1), event(2, "bob")], weights=WEIGHTS)
            await store.forget("bob", now=NOW)
            await store.block(add=["x"], remove=[])
            before = await store.trends(now=NOW, half_life_days=7)
        async with opened(url) as store:
            assert (await store.person("ann", limit=9)).past == past(event(1))
            assert (await store.person("bob", limit=9)).forgotten == NOW
            assert await store.trends(now=NOW, half_life_days=7) == before
            assert await store.blocked() == Blocked(frozenset("x"), 1)
            assert await store.add([event(1)], weights=WEIGHTS) == Counted(0, 1, 0)
            await store.ping()

    asyncio.run(act())


def test_a_batch_with_one_event_that_cannot_be_kept_leaves_nothing(url: str) -> None:
    broken = event(2, user="lone \ud800 surrogate")

    async def act() -> None:
        async with opened(url) as store:
            with pytest.raises(ValueError, match="surrogate"):
                await store.add([event(1), broken], weights=WEIGHTS)
            assert (await store.person("ann", limit=9)).past == past()
            assert await store.add([event(1)], weights=WEIGHTS) == Counted(1, 0, 0)

    asyncio.run(act())


def test_a_command_reads_the_whole_store_while_the_service_writes(url: str) -> None:
    async def act() -> None:
        async with opened(url) as store:
            await store.add([event(i, f"u{i % 7}", at=NOW + i) for i in range(50)], weights=WEIGHTS)
            await store.forget("u3", now=NOW + 99)
            with reading(url) as reader:
                found = list(reader.events())
                assert len(found) == len({(e.user_id, e.event_id) for e in found}) == 43
                assert (reader.erasure("u3"), reader.erasure("u1")) == (NOW + 99, None)
                assert await store.add([event(99)], weights=WEIGHTS) == Counted(1, 0, 0)

    asyncio.run(act())


def test_a_call_that_is_given_up_does_not_mix_up_later_answers(url: str) -> None:
    async def act() -> None:
        async with opened(url) as store:
            await store.add([event(i, f"u{i}", f"i{i}") for i in range(9)], weights=WEIGHTS)
            for _ in range(30):
                calls = [asyncio.ensure_future(store.person(f"u{i}", limit=1)) for i in range(9)]
                await asyncio.sleep(0.0005)
                for call in calls[::2]:
                    call.cancel()
                answers = await asyncio.gather(*calls, return_exceptions=True)
                for i, answer in enumerate(answers):
                    if not isinstance(answer, asyncio.CancelledError):
                        assert answer.past == past(event(i, f"u{i}", f"i{i}"))

    asyncio.run(act())


@pytest.mark.parametrize(
    "url",
    ["", "events.db", "sqlite://", "sqlite:///", "postgres://u:secret@h/db", "redis://",
     "redis://u:secret@h:port/0", "redis://u:secret@h:1/x"],
)  # fmt: skip
def test_another_kind_of_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(BadInput, match="redis://host:port/db") as refusal:
        connect(url)
    assert "secret" not in str(refusal.value)


def test_a_store_that_is_not_there_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="start the service"), reading(f"sqlite:///{tmp_path}/x"):
        pass
    assert list(tmp_path.iterdir()) == []
