"""Users who are asked for at once are read at once, and each hears of himself alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from stores import WEIGHTS, RedisServer, event, opened, past, redis_server

from bento.store import Past, Person
from bento.store.together import MOST, Together
from recommender.errors import Unavailable


class Shelf:
    """Reads a user as one act on the item of the same name, when it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[str], int]] = []
        self.go_on = asyncio.Event()

    async def read(self, users: Sequence[str], limit: int) -> list[Person]:
        self.asked.append((list(users), limit))
        await self.go_on.wait()
        if "away" in users:
            raise Unavailable("the shelf is away", remedy="Wait.")
        if "broken" in users:
            raise ValueError("broken")
        return [Person(past=Past([user], ["view"], [1]), forgotten=None) for user in users]


def asking(together: Together, *users: str, limit: int = 9) -> list[asyncio.Task[Person]]:
    return [asyncio.create_task(together.person(user, limit=limit)) for user in users]


def test_who_comes_during_a_reading_is_read_in_the_next_one() -> None:
    async def act() -> None:
        shelf = Shelf()
        together = Together(shelf.read, at_once=1)
        first = asking(together, "a", "b")
        await asyncio.sleep(0.01)
        later = asking(together, "c", "d", "c") + asking(together, "e", limit=5)
        await asyncio.sleep(0.01)
        assert shelf.asked == [(["a", "b"], 9)]
        shelf.go_on.set()
        found = await asyncio.gather(*first, *later)
        assert [person.past.items for person in found] == [["a"], ["b"], ["c"], ["d"], ["c"], ["e"]]
        assert shelf.asked[1:] == [(["c", "d", "c"], 9), (["e"], 5)]

    asyncio.run(act())


def test_as_many_readings_as_agreed_and_users_in_each() -> None:
    async def act() -> None:
        shelf = Shelf()
        together = Together(shelf.read, at_once=2)
        tasks = asking(together, *(f"u{i}" for i in range(3 * MOST)))
        await asyncio.sleep(0.01)
        assert [len(users) for users, _ in shelf.asked] == [MOST, MOST]
        shelf.go_on.set()
        found = await asyncio.gather(*tasks)
        assert [person.past.items for person in found] == [[f"u{i}"] for i in range(3 * MOST)]
        assert len(shelf.asked) == 3

    asyncio.run(act())


def test_a_user_who_cannot_be_read_fails_alone_and_a_store_that_is_away_fails_all() -> None:
    async def act() -> None:
        shelf = Shelf()
        shelf.go_on.set()
        together = Together(shelf.read, at_once=1)
        one, broken, other = await asyncio.gather(
            *asking(together, "a", "broken", "b"), return_exceptions=True
        )
        assert isinstance(broken, ValueError)
        assert isinstance(one, Person) and isinstance(other, Person)
        assert (one.past.items, other.past.items) == (["a"], ["b"])
        lost = await asyncio.gather(*asking(together, "a", "away"), return_exceptions=True)
        assert [type(error) for error in lost] == [Unavailable, Unavailable]
        (again,) = await asyncio.gather(*asking(together, "a"))
        assert again.past.items == ["a"]

    asyncio.run(act())


def test_whoever_nobody_waits_for_any_more_is_not_read() -> None:
    async def act() -> None:
        shelf = Shelf()
        together = Together(shelf.read, at_once=1)
        (first,) = asking(together, "a")
        await asyncio.sleep(0.01)
        gone, stays = asking(together, "b", "c")
        await asyncio.sleep(0.01)
        gone.cancel()
        first.cancel()  # its reading is under way, and comes to its end
        await asyncio.sleep(0.01)
        shelf.go_on.set()
        assert (await stays).past.items == ["c"]
        assert shelf.asked == [(["a"], 9), (["c"], 9)]

    asyncio.run(act())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.mark.parametrize("backend", ["sqlite", "redis"])
def test_a_crowd_each_with_a_past_of_its_own(
    backend: str, server: RedisServer, tmp_path: Path
) -> None:
    """Among them one erased, one unknown, ids that differ behind a NUL, and one that no store can
    be asked for."""
    server.empty()
    url = server.url if backend == "redis" else f"sqlite:///{tmp_path}/events.db"
    users = [f"u{i}" for i in range(2 * MOST)] + ["same\x00a", "same\x00b", "same"]
    sent = {user: event(i, user, f"i{i}") for i, user in enumerate(users)}

    async def act() -> None:
        async with opened(url) as store:
            await store.add(list(sent.values()), weights=WEIGHTS)
            await store.forget("u5", now=sent["u5"].timestamp + 1)
            for _ in range(2):
                found = await asyncio.gather(
                    *(store.person(user, limit=9) for user in [*users, "nobody", "\ud800"]),
                    return_exceptions=True,
                )
                *persons, nobody, odd = found
                assert isinstance(odd, UnicodeEncodeError)
                assert isinstance(nobody, Person) and nobody.past == past()
                for user, person in zip(users, persons, strict=True):
                    assert isinstance(person, Person)
                    assert person.past == (past() if user == "u5" else past(sent[user]))
                    assert (person.forgotten is not None) == (user == "u5")

    asyncio.run(act())
