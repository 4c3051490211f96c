"""Does a split let the future in? The split's rows against the whole data -> findings.

A finding either passes, notes what the protocol cannot help, or FAILED: then the split
is wrong, and figures from it would be worth nothing. Knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from recommender.contract import Array
from recommender.data.dataset import Dataset
from recommender.data.split import Query, Split
from recommender.data.timing import ORDER, REAL
from recommender.errors import DataError
from recommender.users import Users

PASSED, NOTE, FAILED = "passed", "note", "FAILED"


@dataclass(frozen=True, kw_only=True)
class Finding:
    name: str
    verdict: str  # PASSED, NOTE or FAILED
    count: int  # rows or queries concerned
    text: str  # one sentence with the numbers


def check(dataset: Dataset, split: Split, protocol: str) -> tuple[Finding, ...]:
    """Every check of both parts: validation against `train`, test against `train_valid`."""
    findings: list[Finding] = []
    items = len(dataset.catalogue)
    for part, queries, known in (
        ("validation", split.valid, split.train),
        ("test", split.test, split.train_valid),
    ):
        if queries:
            held_out = _held_out(dataset.users, queries)
            findings += [
                _targets_known(part, queries, known, items),
                _duplicates(part, held_out, known, items),
                _hidden(queries, known)
                if protocol == "cold-items"
                else _own_future(part, queries, known),
            ]
            if protocol == "temporal":
                findings.append(_cut(part, queries, known))
    if split.test and protocol != "temporal":
        findings += [_others_future(split.test, split.train_valid), _ties(dataset, split.test)]
    findings += _about_the_data(dataset)
    return tuple(findings)


def refuse(findings: Sequence[Finding]) -> None:
    """Raise DataError where a check FAILED."""
    for finding in findings:
        if finding.verdict == FAILED:
            raise DataError(
                f"the split lets the future in: {finding.text.rstrip('.')}",
                remedy="No figure from it would mean anything: mend the split.",
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Rows:
    user: Array  # [n] int64
    items: Array  # [n] int64
    times: Array  # [n] int64


def _held_out(users: Users, queries: Sequence[Query]) -> _Rows:
    """The rows of the data that hold the queries' targets: after the known history."""
    rows: list[tuple[Array, Array, Array]] = []
    for query in queries:
        later = users.history(query.user)[len(query.history) :]
        asked = np.isin(later.items, query.targets)
        items = later.items[asked]
        rows.append((np.full(len(items), query.user), items, later.times[asked]))
    user, items, times = (np.concatenate(column) for column in zip(*rows, strict=True))
    return _Rows(user=user, items=items, times=times)


def _rows(users: Users) -> _Rows:
    row = np.repeat(np.arange(len(users)), users.lengths)
    return _Rows(user=row, items=users.items, times=users.times)


def _verdict(count: int) -> str:
    return FAILED if count else PASSED


def _targets_known(part: str, queries: Sequence[Query], known: Users, items: int) -> Finding:
    """A target may stand in training only as a repeat that the query's own history shows."""
    rows = _rows(known)
    new = [q.targets[~np.isin(q.targets, q.history.items)] for q in queries]
    user = np.repeat([q.user for q in queries], [len(targets) for targets in new])
    pairs = user * (items + 1) + np.concatenate(new)
    leaked = int(np.isin(pairs, rows.user * (items + 1) + rows.items).sum())
    total = sum(len(q.targets) for q in queries)
    return Finding(
        name=f"{part} targets in the same user's training rows",
        verdict=_verdict(leaked),
        count=leaked,
        text=f"{leaked:,} of {total:,} {part} targets stand among the rows that the same user "
        "has in training.",
    )


def _duplicates(part: str, held_out: _Rows, known: Users, items: int) -> Finding:
    """Noted, not refused: with repeats allowed, a view and a purchase may share a second."""
    rows = _rows(known)
    pair, asked = (r.user * (items + 1) + r.items for r in (rows, held_out))
    near = np.isin(pair, asked)  # few, if any: what is left to compare row by row
    trained = set(zip(pair[near].tolist(), rows.times[near].tolist(), strict=True))
    count = sum(row in trained for row in zip(asked.tolist(), held_out.times.tolist(), strict=True))
    return Finding(
        name=f"{part} rows that are training rows",
        verdict=NOTE if count else PASSED,
        count=count,
        text=f"{count:,} of {len(asked):,} held-out {part} rows have a twin in training "
        "(same user, item and time).",
    )


def _own_future(part: str, queries: Sequence[Query], known: Users) -> Finding:
    """Of the asked user, nothing after the request may have been trained on or be shown."""
    count = 0
    for query in queries:
        trained = known.history(query.user).times > query.request_time
        shown = query.history.times > query.request_time
        count += bool(trained.any() or shown.any())
    return Finding(
        name=f"the asked user's own future ({part})",
        verdict=_verdict(count),
        count=count,
        text=f"For {count:,} of {len(queries):,} {part} queries the user's own rows in training "
        "or in the history shown lie after the time of the query.",
    )


def _hidden(queries: Sequence[Query], known: Users) -> Finding:
    """Nobody may have touched a hidden item. What the asked user did with other items later is
    trained on: with a tenth of the items hidden, hardly anybody has no event after the first."""
    hidden = np.unique(np.concatenate([query.targets for query in queries]))
    count = int(np.isin(known.items, hidden).sum())
    shown = sum(bool((query.history.times > query.request_time).any()) for query in queries)
    later = sum(bool(len(query.history) < known.lengths[query.user]) for query in queries)
    return Finding(
        name="events of hidden items in training",
        verdict=FAILED if count or shown else NOTE if later else PASSED,
        count=count or shown or later,
        text=f"{count:,} training rows are of the {len(hidden):,} hidden items that are asked for; "
        f"the history shown holds later events in {shown:,} of {len(queries):,} queries. For "
        f"{later:,} the user's own later events of other items are among the training rows.",
    )


def _cut(part: str, queries: Sequence[Query], known: Users) -> Finding:
    cut = min(query.request_time for query in queries)
    count = int((known.times >= cut).sum())
    last = int(known.times.max(initial=0))
    return Finding(
        name=f"training rows at or after the cut ({part})",
        verdict=_verdict(count),
        count=count,
        text=f"{count:,} of {len(known.times):,} training rows lie at or after the {part} cut, "
        f"{_day(cut)} ({cut}); the last one is of {_day(last)} ({last}).",
    )


def _others_future(queries: Sequence[Query], known: Users) -> Finding:
    """Leave-one-out cuts every user at another moment: inherent, so noted and measured."""
    asked = np.array([query.request_time for query in queries])
    times = np.sort(known.times)
    later = len(times) - np.searchsorted(times, asked, side="right")
    own = np.array([(known.history(q.user).times > q.request_time).sum() for q in queries])
    others = later - own
    count = int((others > 0).sum())
    meaning = (
        ": the models may have learned from the future. That is inherent to leave-one-out; "
        "temporal is the protocol without it"
    )
    return Finding(
        name="other users' future in training",
        verdict=NOTE if count else PASSED,
        count=count,
        text=f"For {count / len(queries):.0%} of {len(queries):,} test queries other users' "
        "training rows lie after the time of the query, on average "
        f"{others.mean() / len(times):.0%} of all training rows{meaning if count else ''}.",
    )


def _ties(dataset: Dataset, queries: Sequence[Query]) -> Finding:
    tied = []
    for query in queries:
        later = dataset.users.history(query.user)[len(query.history) :]
        times = later.times[np.isin(later.items, query.targets)]
        tied.append(len(query.history) > 0 and times[0] == query.history.times[-1])
    count = int(np.sum(tied))
    return Finding(
        name="targets at the time of the last known event",
        verdict=NOTE if count else PASSED,
        count=count,
        text=f"{count / len(queries):.0%} of {len(queries):,} test targets ({count:,}) share "
        "the timestamp with the last event of the history: which of them came first is the "
        "order of rows in the file, and arbitrary.",
    )


def _about_the_data(dataset: Dataset) -> list[Finding]:
    findings = []
    rows = len(dataset.users.times)
    if dataset.time_kind != REAL:
        says = "the order of a user's events" if dataset.time_kind == ORDER else "nothing"
        findings.append(
            Finding(
                name="made-up timestamps",
                verdict=NOTE,
                count=rows,
                text=f"The timestamps of the {rows:,} events are no real moments and say {says}: "
                "checks of time find no more than that.",
            )
        )
    if dataset.mean_rating is not None:
        findings.append(
            Finding(
                name="mean rating",
                verdict=NOTE,
                count=rows,
                text=f"Ratings are centred by the mean of all {rows:,} rows, "
                f"{dataset.mean_rating:.3f}, held-out rows included: one number that training "
                "alone would give a little differently.",
            )
        )
    return findings


def _day(time: int) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M UTC")
