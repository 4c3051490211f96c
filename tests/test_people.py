"""What a release knows and what the store heard become one history, each act once."""

from __future__ import annotations

import dataclasses
from weakref import ref

import numpy as np
import pytest
import toy
from bento_process import CLOCK, write_release
from stores import past

from bento.people import People, known, live
from bento.preprocess import question
from bento.schemas import Context, RecommendRequest
from bento.store import Event, Person
from recommender.acts import ActRules
from recommender.contract import RECOMMENDER_ONNX
from recommender.release import Release, read_release

NOW = 1_700_000_000


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """User `reader` read i1 to i10, a second each, until CLOCK."""
    folder = tmp_path_factory.mktemp("repository")
    write_release(folder, toy.LIMITS, items=toy.ITEMS - 1, models=(RECOMMENDER_ONNX,))
    return read_release(folder)


def event(item: str, at: int, kind: str = "view") -> Event:
    return Event(event_id=f"{item}@{at}", user_id="reader", item_id=item, event=kind, timestamp=at)


def person(*events: Event, forgotten: int | None = None) -> Person:
    return Person(past=past(*events), forgotten=forgotten)


def test_live_events_come_after_what_the_release_knows(release: Release) -> None:
    found = known(release, "reader", person(event("i50", NOW), event("i60", NOW + 100)))
    assert found.history.items.tolist() == [*range(1, 11), 50, 60]
    assert found.history.times.tolist() == [*range(CLOCK - 10, CLOCK), NOW, NOW + 100]
    assert found.features is not None and found.features.tolist() == [1, 2]


def test_an_event_from_between_takes_its_place_by_time(release: Release) -> None:
    found = known(release, "reader", person(event("i50", CLOCK - 8)))
    assert found.history.items.tolist() == [1, 2, 3, 50, 4, 5, 6, 7, 8, 9, 10]


def test_what_was_trained_on_and_is_still_in_the_store_counts_once(release: Release) -> None:
    found = known(release, "reader", person(event("i9", CLOCK - 2), event("i10", CLOCK - 1)))
    assert found.history.items.tolist() == list(range(1, 11))


def test_a_user_only_the_store_knows_and_one_nobody_knows(release: Release) -> None:
    found = known(release, "stranger", person(event("i5", NOW)))
    assert found.history.items.tolist() == [5]
    assert found.features is None
    assert len(known(release, "stranger", None).history) == 0
    assert len(known(release, None, None).history) == 0


def test_after_an_erasure_a_release_of_before_tells_nothing(release: Release) -> None:
    erased = known(release, "reader", person(forgotten=NOW))
    assert len(erased.history) == 0
    assert erased.features is None
    came_back = known(release, "reader", person(event("i5", NOW + 9), forgotten=NOW))
    assert came_back.history.items.tolist() == [5]
    partly = known(release, "reader", person(forgotten=CLOCK - 3))
    assert partly.history.items.tolist() == [9, 10]


def test_events_weigh_what_the_data_says(release: Release) -> None:
    rules = ActRules(weights={"view": 1.0, "purchase": 4.0, "return": -2.0, "hover": 0.0})
    heard = [event("i1", NOW, "purchase"), event("i2", NOW + 1, "hover"),
             event("i3", NOW + 2, "Return"), event("i4", NOW + 3, "wink"),
             event("unheard-of", NOW + 4)]  # fmt: skip
    history = live(past(*heard), dataclasses.replace(release, acts=rules))
    assert history.items.tolist() == [1, 3, 4]
    np.testing.assert_allclose(history.weights, [4, -2, 1])


@pytest.mark.parametrize(("burst", "kept"), [(60, [4, 5, 4]), (0, [4, 4, 4, 5, 4])])
def test_the_same_act_at_once_counts_once(release: Release, burst: int, kept: list[int]) -> None:
    rules = ActRules(burst_seconds=burst)
    heard = [event("i4", NOW), event("i4", NOW + 30), event("i4", NOW + 90), event("i5", NOW + 91),
             event("i4", NOW + 92)]  # fmt: skip
    history = live(past(*heard), dataclasses.replace(release, acts=rules))
    assert history.items.tolist() == kept


def test_what_came_after_the_moment_that_is_asked_for_is_neither_read_nor_seen(
    release: Release,
) -> None:
    later = person(event("i50", NOW), event("i60", NOW + 100))
    everything = known(release, "reader", later)

    def asked(at: int | None) -> tuple[list[int], list[int]]:
        body = RecommendRequest(user_id="reader", context=Context(time=at))
        nothing = np.zeros(0, np.int64)
        found = question(body, release, everything, nothing, now=NOW + 200)
        return found.request.history.items.tolist(), sorted(found.selection.exclude.tolist())

    assert asked(None) == ([*range(1, 11), 50, 60], [*range(1, 11), 50, 60])
    assert asked(NOW) == ([*range(1, 11), 50], [*range(1, 11), 50])
    assert asked(CLOCK - 8) == ([1, 2, 3], [1, 2, 3])
    assert asked(1) == ([], [])


def test_a_user_is_put_together_anew_when_the_store_says_something_new(release: Release) -> None:
    people, before, after = People(release), person(event("i50", NOW)), person(event("i60", NOW))
    first = people.known("reader", before)
    assert people.known("reader", before) is first
    assert people.known("reader", after).history.items.tolist()[-1] == 60
    assert people.known("reader", person(forgotten=NOW)).history.items.tolist() == []
    assert people.known("reader", before).history.items.tolist()[-1] == 50
    assert people.known("stranger", before).history.items.tolist() == [50]
    assert people.known(None, None).history.items.tolist() == []


def test_a_person_whom_the_store_has_let_go_is_kept_by_nobody(release: Release) -> None:
    people, one = People(release), person(event("i50", NOW))
    people.known("reader", one)
    gone = ref(one)
    del one
    assert gone() is None


def test_of_too_many_users_those_not_asked_for_lately_are_put_together_again(
    release: Release,
) -> None:
    people, one = People(release, most_events=50), person(event("i50", NOW))
    first, second = people.known("reader", one), people.known("other", one)
    people.known("reader", one)
    for number in range(3):
        people.known(f"user-{number}", one)
    assert people.known("reader", one) is first
    assert people.known("other", one) is not second
