"""What happened to every question: when it was due, sent and answered, and with what outcome.

A generator appends to a Recording while it runs; `Rows` is what is left of it: arrays, small
enough to go through a pipe, and merged without loss. Knows no target and no statistics.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from recommender.contract import Array


class Fate(StrEnum):
    RIGHT = "right"  # answered, and the answer passed every check
    WRONG = "wrong"  # answered, and a check failed
    FALLBACK = "fallback"  # popular items: well-formed, but no model gave them
    REFUSED = "refused"  # 429, 503, a full queue of Triton: too much to do, said in time
    FAILED = "failed"  # no answer


class Outcome(NamedTuple):
    fate: Fate
    kind: str = ""  # in words; nothing for a right answer


class Part(NamedTuple):
    """Which kind of question."""

    endpoint: str
    length: int = 0  # of the history that the model reads, as a bucket of the release; 0: none


RIGHT = Outcome(Fate.RIGHT)


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Of every question; instants are seconds from the start of what is measured."""

    due: Array  # [n] float64: scheduled; in a closed loop, when the caller was ready
    sent: Array  # [n] float64
    done: Array  # [n] float64
    part: Array  # [n] uint16, of `parts`
    outcome: Array  # [n] uint16, of `outcomes`
    release: Array  # [n] uint32, that the answer names; 0: none
    parts: tuple[Part, ...]
    outcomes: tuple[Outcome, ...]
    # [m] float64: due, but the generator gave up, before they were sent or while under way
    unsent: Array = field(default_factory=lambda: np.zeros(0))
    cpu_s: float = 0.0  # of the generator, while it measured
    busy: float = 0.0  # share of the time it ran or waited for a core; of the busiest process

    def __len__(self) -> int:
        return len(self.due)

    def fate(self, *fates: Fate) -> Array:
        """[n] bool"""
        wanted = [outcome.fate in fates for outcome in self.outcomes]
        return np.array([*wanted, False], bool)[self.outcome]

    def where(self, chosen: Array) -> Rows:
        """The rows where `chosen` [n] bool; what is kept for all of them stays."""
        return replace(
            self,
            due=self.due[chosen],
            sent=self.sent[chosen],
            done=self.done[chosen],
            part=self.part[chosen],
            outcome=self.outcome[chosen],
            release=self.release[chosen],
        )

    def between(self, begin: float, end: float) -> Rows:
        """Those due from `begin` to before `end`, seconds from the start, which becomes `begin`."""
        found = self.where((self.due >= begin) & (self.due < end))
        unsent = self.unsent[(self.unsent >= begin) & (self.unsent < end)]
        return replace(
            found,
            due=found.due - begin,
            sent=found.sent - begin,
            done=found.done - begin,
            unsent=unsent - begin,
        )


class Recording:
    def __init__(self) -> None:
        self.due, self.sent, self.done = array("d"), array("d"), array("d")
        self.part, self.outcome, self.release = array("H"), array("H"), array("I")
        self.parts: dict[Part, int] = {}
        self.outcomes: dict[Outcome, int] = {RIGHT: 0}
        self.unsent: Array = np.zeros(0)

    def add(
        self,
        part: Part,
        due: float,
        sent: float,
        done: float,
        outcome: Outcome,
        release: int = 0,
    ) -> None:
        """Instants of time.perf_counter()."""
        self.due.append(due)
        self.sent.append(sent)
        self.done.append(done)
        self.part.append(self.parts.setdefault(part, len(self.parts)))
        self.outcome.append(self.outcomes.setdefault(outcome, len(self.outcomes)))
        self.release.append(release)

    def give_up(self, instants: Array) -> None:
        """Of what was due at `instants` [n] (of time.perf_counter()), all that was not added."""
        due, counts = np.unique(instants, return_counts=True)  # a trace may hold one twice
        added = np.bincount(np.searchsorted(due, np.array(self.due)), minlength=len(due))
        self.unsent = np.repeat(due, counts - added)

    def rows(self, start: float, *, cpu_s: float = 0.0, busy: float = 0.0) -> Rows:
        """Of what was due at `start` (time.perf_counter()) or later."""
        due, unsent = np.array(self.due) - start, self.unsent - start
        rows = Rows(
            due=due,
            sent=np.array(self.sent) - start,
            done=np.array(self.done) - start,
            part=np.array(self.part, np.uint16),
            outcome=np.array(self.outcome, np.uint16),
            release=np.array(self.release, np.uint32),
            parts=tuple(self.parts),
            outcomes=tuple(self.outcomes),
            unsent=unsent[unsent >= 0],
            cpu_s=cpu_s,
            busy=busy,
        )
        return rows.where(due >= 0)


def merged(many: Sequence[Rows]) -> Rows:
    """One recording of what several generators did at once."""
    parts = tuple(dict.fromkeys(part for rows in many for part in rows.parts))
    outcomes = tuple(dict.fromkeys(outcome for rows in many for outcome in rows.outcomes))

    def renumbered(numbers: Array, old: Sequence[object], new: Sequence[object]) -> Array:
        return np.array([*map(new.index, old), 0], np.uint16)[numbers]

    return Rows(
        due=np.concatenate([rows.due for rows in many]),
        sent=np.concatenate([rows.sent for rows in many]),
        done=np.concatenate([rows.done for rows in many]),
        part=np.concatenate([renumbered(rows.part, rows.parts, parts) for rows in many]),
        outcome=np.concatenate(
            [renumbered(rows.outcome, rows.outcomes, outcomes) for rows in many]
        ),
        release=np.concatenate([rows.release for rows in many]),
        parts=parts,
        outcomes=outcomes,
        unsent=np.concatenate([rows.unsent for rows in many]),
        cpu_s=sum(rows.cpu_s for rows in many),
        busy=max(rows.busy for rows in many),
    )
