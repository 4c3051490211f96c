"""Persons read lately, for as long as nobody writes of them: a reading that costs no thread.

Right only where one process writes, as one service does to its SQLite file. From the moment
that a write of a user is handed in until it is done, however long the caller waits for it, nothing
read of that user is kept. Knows no file and no database.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable

from bento.store.base import Person
from bento.store.kept import Kept

MOST_EVENTS = 200_000  # of all persons together: 32 MB
PERSON = 4  # events that take as much memory as a person without any


class Recent:
    """Of one event loop; `written` may be called by any thread."""

    def __init__(self, most_events: int = MOST_EVENTS) -> None:
        self._persons: Kept[tuple[int, Person]] = Kept(most_events)  # with its limit
        self._reading: dict[str, object] = {}  # the newest reading of each user
        self._writing: Counter[str] = Counter()
        self._lock = threading.Lock()  # of `_writing`

    def find(self, user_id: str, limit: int) -> Person | None:
        """At most `limit` of its newest events, as `Store.person`."""
        found = self._persons.find(user_id)
        return None if found is None or found[0] != limit else found[1]

    def reads(self, user_id: str) -> object:
        """A reading begins: its ticket, for `keep` and at last for `read`."""
        ticket = object()
        if user_id not in self._writing:
            self._reading[user_id] = ticket
        return ticket

    def keep(self, user_id: str, limit: int, person: Person, ticket: object) -> None:
        """What was read under `ticket`, unless it may be older than a write."""
        if self._reading.get(user_id) is ticket:
            self._persons.keep(user_id, (limit, person), PERSON + len(person.past.items))

    def read(self, user_id: str, ticket: object) -> None:
        """The reading is over, with or without a person."""
        if self._reading.get(user_id) is ticket:
            del self._reading[user_id]

    def writes(self, user_ids: Iterable[str]) -> None:
        """A write begins; `written` must follow once it is done, or can no longer be."""
        for user_id in user_ids:
            with self._lock:
                self._writing[user_id] += 1
            self._reading.pop(user_id, None)
            self._persons.drop(user_id)

    def written(self, user_ids: Iterable[str]) -> None:
        with self._lock:
            for user_id in user_ids:
                self._writing[user_id] -= 1
                if not self._writing[user_id]:
                    del self._writing[user_id]

    def clear(self) -> None:
        """The file is away, or another one: nothing that was read is known to be right."""
        self._persons.clear()
        self._reading.clear()
