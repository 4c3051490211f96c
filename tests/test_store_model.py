"""Whatever comes in whatever order, a store answers like a model that one caller uses at a time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import (
    DAY,
    NOW,
    PATIENT_S,
    WEIGHTS,
    Model,
    RedisServer,
    event,
    opened,
    past,
    redis_server,
)

from bento.store import Event, Keep, connect

USERS = ("ann", "bob", "eve")
CLIENTS, BATCHES, REPEATS = 8, 12, 5


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis"), "--appendfsync", "no") as running:
        yield running


def some_event() -> st.SearchStrategy[Event]:
    return st.builds(
        event,
        st.integers(0, 15),
        st.sampled_from(USERS),
        st.sampled_from(("i1", "i2", "i3")),
        st.sampled_from(("view", "purchase", "return", "other")),
        st.integers(-6, 6).map(lambda sixths: NOW + sixths * DAY // 3),
    )


ADD = st.tuples(st.just("add"), st.lists(some_event(), min_size=1, max_size=8))
FORGET = st.tuples(
    st.just("forget"),
    st.tuples(st.sampled_from(USERS), st.integers(-3, 3).map(lambda d: NOW + d * DAY)),
)
RESTART = st.tuples(st.just("restart"), st.none())
HALF_LIFE = st.tuples(st.just("half-life"), st.sampled_from((1.0, 30.0)))


@pytest.mark.parametrize("backend", ["sqlite", "redis"])
@settings(
    max_examples=60, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(steps=st.lists(st.one_of(ADD, ADD, ADD, FORGET, RESTART, HALF_LIFE), max_size=12))
def test_any_sequence_of_calls_answers_as_the_model_does(
    backend: str, server: RedisServer, steps: list[tuple[str, object]]
) -> None:
    cap = 3  # soon full
    with TemporaryDirectory() as folder:
        server.empty()
        url = server.url if backend == "redis" else f"sqlite:///{folder}/events.db"
        asyncio.run(_compare(url, steps, cap))


async def _compare(url: str, steps: list, cap: int) -> None:
    model, half_life, keep = Model(cap), 7.0, Keep(events_per_user=cap)
    store = connect(url, keep=keep, wait_s=PATIENT_S)
    await store.trends(now=NOW, half_life_days=half_life)  # from now on kept with this one
    for what, value in steps:
        if what == "add":
            assert await store.add(value, weights=WEIGHTS) == model.add(value)
        elif what == "forget":
            user, now = value
            assert await store.forget(user, now=now) == model.forget(user, now)
        elif what == "restart":
            await store.close()
            store = connect(url, keep=keep, wait_s=PATIENT_S)
        elif not model.dropped:
            half_life = value
        for user in USERS:
            person = await store.person(user, limit=99)
            assert person.past == past(*model.history(user))
            assert person.forgotten == model.erased.get(user)
        trends = await store.trends(now=NOW, half_life_days=half_life)
        assert trends == pytest.approx(model.trends(NOW, half_life), rel=1e-6, abs=1e-6)
    await store.close()


@pytest.mark.parametrize("backend", ["sqlite", "redis"])
def test_eight_clients_that_repeat_and_reorder_batches_count_each_event_once(
    backend: str, server: RedisServer, tmp_path: Path
) -> None:
    server.empty()
    url = server.url if backend == "redis" else f"sqlite:///{tmp_path}/events.db"
    rng = random.Random(3)
    moments = iter(rng.sample(range(NOW, NOW + 30 * DAY), CLIENTS * BATCHES * 10))
    batches = [
        [event(n * 100 + i, rng.choice(USERS), f"i{rng.randrange(5)}", at=next(moments))
         for i in range(rng.randint(1, 10))]
        for n in range(CLIENTS * BATCHES)
    ]  # fmt: skip

    async def client(store, number: int) -> int:
        """Its own batches five times over, and some of its neighbour's, in any order."""
        mine = batches[number::CLIENTS] * REPEATS + batches[(number + 1) % CLIENTS :: CLIENTS]
        random.Random(number).shuffle(mine)
        accepted = 0
        for batch in mine:
            accepted += (await store.add(batch, weights=WEIGHTS)).accepted
        return accepted

    async def act() -> None:
        model = Model()
        for batch in batches:
            model.add(batch)
        async with opened(url) as store:
            accepted = await asyncio.gather(*(client(store, n) for n in range(CLIENTS)))
            assert sum(accepted) == sum(len(batch) for batch in batches)
            for user in USERS:
                known = await store.person(user, limit=10_000)
                assert known.past == past(*model.history(user))
            # which of a day's views came first decides by some hours what it has decayed to
            trends = await store.trends(now=NOW + 30 * DAY, half_life_days=1e6)
            assert trends == pytest.approx(model.trends(NOW + 30 * DAY, 1e6), rel=1e-4)

    asyncio.run(act())
