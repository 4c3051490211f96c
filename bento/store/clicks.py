"""Impressions and events -> click-through by variant and release, fallbacks apart.

An event belongs to the answer whose request id it names, or else to the newest answer of the
hour before it that showed its user this item (of those of one second, which stores give in any
order, the one whose request id sorts last). A shown item counts as clicked once. Holds all
impressions of the period in memory: some hundred bytes each.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable

from bento.store.base import Clicks, Event, Impression

WINDOW = 3600  # seconds


def click_through(shown: Iterable[Impression], acts: Iterable[Event]) -> list[Clicks]:
    """Sorted by release, then variant, fallbacks last. `acts`: events that count as a click."""
    answers = sorted(shown, key=lambda answer: (answer.time, answer.request_id))
    by_request = {answer.request_id: place for place, answer in enumerate(answers)}
    of_user: dict[str, list[int]] = defaultdict(list)  # places, hence by time
    for place, answer in enumerate(answers):
        if answer.user_id is not None:
            of_user[answer.user_id].append(place)

    def answer_of(act: Event) -> int | None:
        named = by_request.get(act.request_id or "")
        if named is not None and act.item_id in answers[named].items:
            return named
        places = of_user.get(act.user_id, [])
        before = bisect_right(places, act.timestamp, key=lambda place: answers[place].time)
        for place in reversed(places[:before]):
            if answers[place].time < act.timestamp - WINDOW:
                return None
            if act.item_id in answers[place].items:
                return place
        return None

    clicked = {(found, act.item_id) for act in acts if (found := answer_of(act)) is not None}
    counts: dict[tuple[int, str, bool], Counter[str]] = defaultdict(Counter)
    for answer in answers:
        counts[_row(answer)].update(answers=1, impressions=len(answer.items))
    for place, _ in clicked:
        counts[_row(answers[place])]["clicks"] += 1
    return [
        Clicks(
            variant=variant,
            release=release,
            fallback=fallback,
            answers=count["answers"],
            impressions=count["impressions"],
            clicks=count["clicks"],
        )
        for (release, variant, fallback), count in sorted(counts.items())
    ]


def _row(answer: Impression) -> tuple[int, str, bool]:
    """What an answer is counted under, in the order of the report."""
    return answer.release, answer.variant, answer.fallback
