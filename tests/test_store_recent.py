"""Persons read lately: never older than a write, whoever waits for what, and not too many."""

from __future__ import annotations

import tracemalloc

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bento.store.base import Past, Person
from bento.store.recent import PERSON, Recent

USERS = ("ann", "bob", "cid")


def person(events: int) -> Person:
    return Person(past=Past(["i"] * events, ["view"] * events, [1] * events), forgotten=None)


def test_a_person_is_found_until_something_is_written_of_it() -> None:
    recent = Recent()
    ticket = recent.reads("ann")
    recent.keep("ann", 10, person(3), ticket)
    recent.read("ann", ticket)
    assert recent.find("ann", 10) == person(3)
    assert recent.find("ann", 20) is None  # as many events were not read
    recent.writes({"ann"})
    assert recent.find("ann", 10) is None
    recent.written({"ann"})
    assert recent.find("ann", 10) is None


def test_no_more_events_are_held_than_agreed_and_the_longest_unasked_goes_first() -> None:
    recent = Recent(most_events=2 * (PERSON + 4))
    for user in ("ann", "bob"):
        recent.keep(user, 9, person(4), recent.reads(user))
    assert recent.find("ann", 9)
    recent.keep("cid", 9, person(4), recent.reads("cid"))
    assert [recent.find(user, 9) is not None for user in USERS] == [True, False, True]
    recent.keep("dan", 9, person(20), recent.reads("dan"))
    assert [recent.find(user, 9) for user in (*USERS, "dan")] == [None] * 4


@pytest.mark.parametrize(("users", "events"), [(100_000, 0), (4_000, 90)])
def test_all_that_is_held_takes_the_memory_that_the_docs_state(users: int, events: int) -> None:
    read = Past([f"item {i}" for i in range(events)], ["view"] * events, [2**30] * events)
    as_json, decoder = msgspec.json.encode(read), msgspec.json.Decoder(Past)  # as from SQLite
    recent = Recent()
    tracemalloc.start()
    try:
        for user in map(str, range(users)):
            ticket, found = recent.reads(user), Person(past=decoder.decode(as_json), forgotten=None)
            recent.keep(user, 1000, found, ticket)
            recent.read(user, ticket)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 25e6 < held < 35e6  # 32 MB (docs/events.md)


def test_nobody_is_found_after_the_file_was_away() -> None:
    recent = Recent()
    recent.keep("ann", 9, person(1), recent.reads("ann"))
    late = recent.reads("bob")
    recent.clear()
    recent.keep("bob", 9, person(1), late)
    assert recent.find("ann", 9) is None and recent.find("bob", 9) is None


class Interleaved(RuleBasedStateMachine):
    """Readings and writes begin and end in any order; a database of one number a user."""

    def __init__(self) -> None:
        super().__init__()
        self.recent = Recent(most_events=2 * PERSON + 4)
        self.stored = dict.fromkeys(USERS, 0)
        self.readings: list[tuple[str, object, int]] = []
        self.writes: list[str] = []

    @rule(user=st.sampled_from(USERS))
    def begin_reading(self, user: str) -> None:
        self.readings.append((user, self.recent.reads(user), self.stored[user]))

    @precondition(lambda self: self.readings)
    @rule(which=st.integers(0, 99), fails=st.booleans())
    def end_reading(self, which: int, fails: bool) -> None:
        user, ticket, events = self.readings.pop(which % len(self.readings))
        if not fails:
            self.recent.keep(user, 9, person(events), ticket)
        self.recent.read(user, ticket)

    @rule(user=st.sampled_from(USERS))
    def begin_write(self, user: str) -> None:
        self.recent.writes({user})
        self.writes.append(user)

    @precondition(lambda self: self.writes)
    @rule(which=st.integers(0, 99))
    def commit(self, which: int) -> None:
        self.stored[self.writes[which % len(self.writes)]] += 1

    @precondition(lambda self: self.writes)
    @rule(which=st.integers(0, 99))
    def end_write(self, which: int) -> None:
        self.recent.written({self.writes.pop(which % len(self.writes))})

    @rule()
    def away(self) -> None:
        self.recent.clear()

    @invariant()
    def what_is_found_is_what_is_stored(self) -> None:
        for user in USERS:
            found = self.recent.find(user, 9)
            assert found is None or len(found.past.items) == self.stored[user]


TestInterleaved = Interleaved.TestCase
TestInterleaved.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
